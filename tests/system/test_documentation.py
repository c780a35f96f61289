"""README and docs: short, built strictly, and true of the command line."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import fusion_nas
from search_space.operators.definitions import FUSION_OPERATORS
from studies.cli.app import app
from studies.results.objectives import MORE
from studies.samplers.registry import SAMPLERS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NOT_ENGLISH = (
    "held against",
    "hold it against",
    "dear",
    "dearer",
    "dearest",
    "spoilt",
    "has it from",
)
"""Words that this project once used where engineers use others."""


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command line of the pages, as (page, words after `fusion-nas`)."""
    for page in PAGES:
        text = re.sub(r"\\\n\s*", " ", page.read_text("utf-8"))
        for line in text.splitlines():
            if line.startswith("    fusion-nas "):
                yield page.name, shlex.split(line, comments=True)[1:]


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 10_000


@pytest.mark.parametrize(("page", "words"), list(commands()))
def test_a_documented_command_has_the_flags_that_it_is_given(page: str, words: list[str]) -> None:
    command, rest = get_command(app), list(words)
    while isinstance(command, TyperGroup):
        command = command.commands[rest.pop(0)]
    known = {flag for parameter in command.params for flag in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known


def test_what_can_be_chosen_is_documented() -> None:
    text = " ".join(page.read_text("utf-8") for page in PAGES)
    presets = [file.stem for file in (ROOT / "studies" / "presets").glob("*.toml")]
    for name in (*FUSION_OPERATORS, *presets, *(each.name for each in MORE), *SAMPLERS):
        assert f"`{name}`" in text or f" {name}" in text, name


def test_the_python_of_the_documents_has_the_keywords_that_are_there() -> None:
    keywords = set(fusion_nas.Options.__annotations__)
    for page in (ROOT / "README.md", DOCS / "reference" / "python.md"):
        (snippet,) = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S)
        compile(snippet, page.name, "exec")
        (given,) = re.findall(r"fn\.search\(([^)]*)\)", snippet)
        assert set(re.findall(r"(\w+)=", given)) <= keywords
        assert all(hasattr(fusion_nas, name) for name in re.findall(r"fn\.(\w+)", snippet))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pages_use_the_words_of_the_field(page: Path) -> None:
    text = " ".join(page.read_text("utf-8").split())
    found = [words for words in NOT_ENGLISH if re.search(rf"\b{words}\b", text)]
    assert not found


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text("utf-8"))
    local = [link for link in links if not link.startswith("http")]
    assert local and all((ROOT / link).exists() for link in local)


def test_every_picture_of_the_documents_is_there_and_shown() -> None:
    shown = set()
    for page in PAGES:
        for link in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text("utf-8")):
            shown.add((page.parent / link).resolve())
    assert shown == {file for file in (DOCS / "images").rglob("*") if file.is_file()}


def test_every_page_of_the_documents_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in PAGES[1:]:
        assert f": {page.relative_to(DOCS)}\n" in navigation, page


def test_the_documentation_builds_strictly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "reference" / "commands" / "index.html").is_file()
