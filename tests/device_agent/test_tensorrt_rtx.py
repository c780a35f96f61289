"""NVIDIA's own parser and builder over the files that are built here; without a GPU."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from every_design import SPECS, every_design
from quick_evaluators import demo
from runtime_contract import model

from device_agent.runtime import Unavailable
from device_agent.runtimes import tensorrt_rtx
from device_agent.runtimes.tensorrt_rtx import CANNOT_LOAD, HINT, load_rtx, take
from evaluators.devices.recipes import RuntimeMissing
from evaluators.latency import tensorrt_check
from evaluators.latency.tensorrt_check import ask, covering, facets
from evaluators.onnx.builder import OnnxBuilder
from search_space.design.genotype import FusionPoint, Genotype
from search_space.network.rewrites import ALL
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


def test_where_the_packages_are_missing_it_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_rtx, "HOLDER", "no_such_package")
    with pytest.raises(Unavailable, match=r"pip install 'fusion-nas\[tensorrt-rtx\]'"):
        load_rtx()
    answer = (
        f"import sys; sys.stderr.write({f'cannot be loaded: {HINT}'!r}); sys.exit({CANNOT_LOAD})"
    )
    command = [sys.executable, "-c", answer]
    monkeypatch.setattr(tensorrt_check, "own_command", lambda *arguments: command)
    with pytest.raises(RuntimeMissing) as raised:
        ask(tmp_path / "m.onnx", False)
    assert raised.value.message == "cannot be loaded" and raised.value.hint == HINT


def test_networks_of_every_operator_and_pooling_are_parsed(trt: object, tmp_path: Path) -> None:
    # Each in one precision; `benchmarks/compiler.py` builds each operator in all of them.
    made = OnnxBuilder(SPECS, demo().shapes, 2, tmp_path, "tensorrt", ALL)
    for number, genotype in enumerate(every_design()):
        precision = tensorrt_check.PRECISIONS[number % 3]
        artifact = made.build(replace(genotype, precision=precision))
        found = take(trt, artifact.path, build=False)
        artifact.discard()
        assert found.parsed, (genotype.describe(), precision, found.refused)


def test_attention_is_fused_in_fp16_and_in_int8_but_not_in_fp32(
    trt: object, tmp_path: Path
) -> None:
    made = OnnxBuilder(SPECS, demo().shapes, 2, tmp_path, "tensorrt", ALL)
    design = Genotype("small-bert", "small-xcit", 16, (FusionPoint(2, 1),))
    fused = {}
    for precision in tensorrt_check.PRECISIONS:
        artifact = made.build(replace(design, precision=precision))
        fused[precision] = take(trt, artifact.path, build=True).attention
    # Two layers of the text encoder and one of the vision encoder.
    assert fused == {"fp32": 0, "fp16": 3, "int8": 3}


def test_a_few_designs_have_all_that_a_space_offers() -> None:
    space = load_space("demo", weights="random")
    chosen = covering(space, 500)
    found = set().union(*map(facets, chosen))
    assert {name for kind, name in found if kind == "operator"} == set(space.operators)
    assert {name for kind, name in found if kind == "encoder"} == {e.name for e in space.encoders}
    assert {n for k, n in found if k == "text pooling"} == set(space.text_poolings)
    assert len(chosen) < len(found) and set(space.operators) <= set(FUSION_OPERATORS)
    assert tensorrt_check.PRECISIONS == ("fp32", "fp16", "int8")
