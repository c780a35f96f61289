"""NVIDIA's own parser and builder over the files that are built here; without a GPU."""

import subprocess
import sys
from pathlib import Path

import pytest
from runtime_contract import model

from device_agent.jobs.child import own_command
from device_agent.runtime import Unavailable
from device_agent.runtimes.tensorrt_rtx import load_rtx, take
from evaluators.devices.recipes import RuntimeMissing
from evaluators.latency import tensorrt_check
from evaluators.latency.tensorrt_check import ask, covering, facets
from search_space.operators.definitions import FUSION_OPERATORS
from search_space.space.named import load_space


@pytest.fixture(scope="module")
def trt() -> object:
    try:
        return load_rtx()
    except Unavailable as error:
        pytest.skip(str(error))


def fixed(path: Path, operator: str, domain: str = "") -> Path:
    """A network of static shapes."""
    import onnx

    made = onnx.load(str(model(path, operator, domain=domain)))
    for entry in (*made.graph.input, *made.graph.output):
        entry.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(made, str(path))
    return path


def test_a_network_is_parsed_and_built(trt: object, tmp_path: Path) -> None:
    found = take(trt, fixed(tmp_path / "m.onnx", "Abs"), True)
    assert found.parsed and found.built and found.refused == ""
    assert (found.layers or 0) >= 1 and (found.engine_bytes or 0) > 0


def test_a_network_that_is_refused_is_named_with_its_node(trt: object, tmp_path: Path) -> None:
    found = take(trt, fixed(tmp_path / "m.onnx", "Fuse", "elsewhere"), False)
    assert not found.parsed and "Fuse only: " in found.refused
    (tmp_path / "none.onnx").write_bytes(b"no network")
    assert not take(trt, tmp_path / "none.onnx", False).parsed


def test_where_the_packages_are_missing_it_says_how_to_get_them(tmp_path: Path) -> None:
    command = own_command("tensorrt-takes", str(tmp_path / "m.onnx"))
    command[0] = sys.executable
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode == 0:
        pytest.skip("they are here")
    with pytest.raises(RuntimeMissing) as raised:
        ask(tmp_path / "m.onnx", False)
    assert "TensorRT-RTX cannot be loaded" in raised.value.message
    assert raised.value.hint == "pip install 'fusion-nas[tensorrt-rtx]'"


def test_a_few_designs_have_all_that_a_space_offers() -> None:
    space = load_space("demo", weights="random")
    chosen = covering(space, 500)
    found = set().union(*map(facets, chosen))
    assert {name for kind, name in found if kind == "operator"} == set(space.operators)
    assert {name for kind, name in found if kind == "encoder"} == {e.name for e in space.encoders}
    assert {n for k, n in found if k == "text pooling"} == set(space.text_poolings)
    assert len(chosen) < len(found) and set(space.operators) <= set(FUSION_OPERATORS)
    assert tensorrt_check.PRECISIONS == ("fp32", "fp16", "int8")
