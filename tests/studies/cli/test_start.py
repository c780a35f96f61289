"""Commands import no library that they do not need: none that trains, none that makes a page."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stored_study import stored_study

EXPENSIVE = ("torch", "torchvision", "transformers", "timm", "sklearn", "scipy")
"""Libraries that take seconds to import."""
OF_PAGES = ("jinja2",)
PROGRAM = f"""
import sys
from studies.cli.app import main
try:
    main()
except SystemExit as end:
    print("ended with", end.code, file=sys.stderr)
print("imported", *sorted(set(sys.modules) & set({EXPENSIVE + OF_PAGES!r})), file=sys.stderr)
print("numpy" in sys.modules, file=sys.stderr)
"""


def imported_by(folder: Path, *words: str) -> tuple[int, str]:
    """Return the exit code of a command, and which of the libraries above it imported."""
    environment = os.environ | {"FUSION_NAS_HOME": str(folder / "home")}
    command = [sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    *_, ended, imported, _ = done.stderr.strip().splitlines()
    return int(ended.removeprefix("ended with ")), imported.removeprefix("imported").strip()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--help", 0),
        ("--version", 0),
        ("run --help", 0),
        ("device list", 0),
        ("device add orin ssh://jetson@orin.local", 0),
        ("run --study nope", 2),
        ("run --trials 0", 2),
        ("run --data nowhere", 2),
        ("run --no-such-flag", 2),
        ("run --study superfuse --trials 3", 2),
        ("report", 6),
        ("export 0", 6),
        ("stress 0", 6),
        ("space nope", 2),
        ("table --card", 0),
        ("doctor", 0),
        ("compare one two", 6),
        ("run --config nowhere.toml", 2),
        ("run --from nowhere --study superfuse", 2),
    ],
)
def test_what_needs_no_network_and_no_page_imports_neither(
    tmp_path: Path, words: str, code: int
) -> None:
    assert imported_by(tmp_path, *words.split()) == (code, "")


def test_the_list_of_devices_comes_without_numpy(tmp_path: Path) -> None:
    environment = os.environ | {"FUSION_NAS_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", PROGRAM, "device", "list"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.stderr.splitlines()[-1] == "False", done.stderr


def test_a_report_makes_a_page_and_imports_nothing_that_trains(tmp_path: Path) -> None:
    storage = stored_study(tmp_path)
    assert imported_by(tmp_path, "report", "--storage", storage) == (0, "jinja2 scipy")


def test_a_report_as_json_alone_makes_no_page(tmp_path: Path) -> None:
    storage = stored_study(tmp_path)
    assert imported_by(tmp_path, "report", "--json", "--storage", storage) == (0, "")
    assert not list(tmp_path.rglob("*.html"))


@pytest.mark.parametrize(
    ("set_by_user", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")]
)
@pytest.mark.parametrize("first", ["import fusion_nas", "from studies.cli.app import app, main"])
def test_how_threads_wait_is_set_before_pytorch_is_loaded(
    tmp_path: Path, first: str, set_by_user: dict[str, str], policy: str
) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | set_by_user
    run = "import sys; sys.argv = ['fusion-nas', '--version']\ntry: main()\nexcept SystemExit: pass"
    program = (
        f"{first}\n"
        + (run if "main" in first else "")
        + ("\nimport os, sys\nprint(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)")
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.stdout.splitlines()[-1] == f"{policy} False", done.stderr
