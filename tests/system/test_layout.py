"""The layout: five packages, one direction, and a device agent that needs nothing."""

import ast
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("search_space", "evaluators", "studies", "device_agent", "fusion_nas")


def modules_of(room: str) -> list[str]:
    files = sorted((ROOT / room).rglob("*.py"))
    names = [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files]
    return [n.removesuffix(".__init__") for n in names if not n.endswith("__main__")]


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_belongs_to_fusion_nas_alone(room: str) -> None:
    assert set(packages_distributions()[room]) == {"fusion-nas"}


def test_the_rooms_are_listed_one_by_one_and_tests_is_none_of_them() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        packages = tomllib.load(file)["tool"]["setuptools"]["packages"]
    assert {package.partition(".")[0] for package in packages} == set(ROOMS)
    there = {
        ".".join(folder.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for folder in (ROOT / room).rglob("__init__.py")
    }
    assert set(packages) == there


def imported_by(room: str) -> set[str]:
    """Top-level names of everything that importing all of a room brings in."""
    program = (
        "import sys, importlib\nbefore = set(sys.modules)\n"
        f"for name in {modules_of(room)!r}:\n    importlib.import_module(name)\n"
        "print(*{n.partition('.')[0] for n in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("room", ["search_space", "evaluators"])
def test_neither_designs_nor_evaluators_know_optuna(room: str) -> None:
    assert not {"optuna", "studies"} & imported_by(room)


def test_the_device_agent_needs_the_standard_library_alone() -> None:
    assert imported_by("device_agent") <= {"device_agent", *sys.stdlib_module_names}


@pytest.mark.parametrize("room", ROOMS)
def test_no_folder_holds_more_than_twelve_files_of_code(room: str) -> None:
    folders = [ROOT / room, *(each.parent for each in (ROOT / room).rglob("__init__.py"))]
    assert max(len(list(folder.glob("*.py"))) for folder in folders) <= 12


def test_helpers_of_several_tests_are_in_tests_support() -> None:
    """No test module imports another one, so that each runs alone and can be moved."""
    tests = {file.stem: file for file in (ROOT / "tests").rglob("test_*.py")}
    for file in tests.values():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not tests.keys() & set(names), file.name


def test_every_file_that_is_no_code_is_named_to_be_packaged() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        named = tomllib.load(file)["tool"]["setuptools"]["package-data"]
    packaged = {
        path
        for package, patterns in named.items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    there = {path for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file()}
    assert {path for path in there if path.suffix not in (".py", ".pyc")} == packaged


PRIVATE_NAMES = {
    ("studies/infra/optuna_private.py", "_trial_id"),
    ("studies/infra/optuna_private.py", "_pop_waiting_trial_id"),
    ("studies/infra/optuna_private.py", "_storage"),
    ("studies/infra/optuna_private.py", "_study_id"),
    ("studies/infra/optuna_private.py", "_rdb"),
}
"""All that `studies` uses of private names, Optuna's or others'; each says why beside it."""


def private_uses(file: Path) -> set[tuple[str, str]]:
    """(file, name) of each private name that is taken from anything but `self`, or imported."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Attribute) and not is_own(node.value):
            names = [node.attr]
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.ImportFrom):
            modules = (node.module or "").split(".")
            names = [*modules, *(alias.name for alias in node.names)]
        private = [name for name in names if name.startswith("_") and not name.startswith("__")]
        found |= {(str(file.relative_to(ROOT)), name) for name in private}
    return found


def is_own(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def test_private_names_of_optuna_are_used_in_one_module_alone() -> None:
    uses = {use for file in (ROOT / "studies").rglob("*.py") for use in private_uses(file)}
    assert uses == PRIVATE_NAMES


@pytest.mark.parametrize("file", sorted((ROOT / "studies" / "search").glob("*.py")))
def test_nothing_of_the_search_takes_more_than_eight_parameters(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            taken = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            assert len([each for each in taken if each.arg != "self"]) <= 8, node.name


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph(*ROOMS)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert len(imports) > 250
    order = list(TopologicalSorter(imports).static_order())  # CycleError names a circle
    assert set(order) == set(imports)
