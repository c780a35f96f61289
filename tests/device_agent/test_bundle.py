"""The agent ships as one file that needs nothing but Python 3.10."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import device_agent
from device_agent.bundle import build_zipapp

SOURCES = sorted(Path(device_agent.__file__).parent.rglob("*.py"))


def outermost_imports(source: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{source}: import by full name"
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_nothing_but_the_standard_library_is_imported(source: Path) -> None:
    assert outermost_imports(source) <= {*sys.stdlib_module_names, "device_agent"}


def test_no_runtime_is_loaded_until_it_is_asked_for() -> None:
    code = "import sys, device_agent.__main__; print(*sys.modules)"
    top = Path(device_agent.__file__).parent.parent
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=top, capture_output=True, text=True, check=True
    )
    assert not {"numpy", "onnxruntime"} & set(loaded.stdout.split())


def test_the_file_is_the_same_every_time_and_named_by_its_content(tmp_path: Path) -> None:
    one, other = build_zipapp(tmp_path / "a"), build_zipapp(tmp_path / "b")
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()
    written_ns = one.stat().st_mtime_ns
    assert build_zipapp(tmp_path / "a") == one
    assert one.stat().st_mtime_ns == written_ns
    assert list((tmp_path / "a").iterdir()) == [one]


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    good = build_zipapp(tmp_path).read_bytes()
    build_zipapp(tmp_path).write_bytes(good[:100])
    assert build_zipapp(tmp_path).read_bytes() == good
    file = build_zipapp(tmp_path)
    file.unlink()
    file.mkdir()
    assert build_zipapp(tmp_path).read_bytes() == good, "also where a folder has its name"


@pytest.mark.parametrize("name", [sys.executable, "python3.10"])
def test_it_runs_alone_and_describes_the_device(tmp_path: Path, name: str) -> None:
    python = shutil.which(name)
    if python is None or subprocess.run([python, "-V"], capture_output=True).returncode != 0:
        pytest.skip(f"{name} is not here, or does not start")
    agent = build_zipapp(tmp_path)
    command = [python, "-I", str(agent)]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "serve" in shown.stdout and "describe" in shown.stdout
    described = subprocess.run(
        [*command, "describe"], cwd=tmp_path, capture_output=True, check=True
    )
    info = device_agent_info(described.stdout)
    assert [runtime["name"] for runtime in info["runtimes"]] == [
        "onnxruntime",
        "tensorrt",
        "openvino",
    ]
    for runtime in info["runtimes"]:
        assert bool(runtime["version"]) != bool(runtime["problem"])


def device_agent_info(stdout: bytes) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = json.loads(stdout)
    return found
