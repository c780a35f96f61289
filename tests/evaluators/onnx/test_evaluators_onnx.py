"""An exported file is the network it came from, and its costs are what a hand count gives."""

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from every_design import SPECS, costs_of, every_design, inputs_ending_at, network_of
from onnx import numpy_helper
from quick_evaluators import builder, demo, design
from torch import Tensor, nn

from evaluators.costs import static_costs
from evaluators.onnx import builder as onnx_builder
from evaluators.onnx.builder import Artifact, ParityError, run_onnx
from evaluators.onnx.export import export
from search_space.design.encoder import EncoderError
from search_space.design.genotype import (
    FusionPoint,
    Genotype,
)


@pytest.mark.parametrize("genotype", every_design(), ids=Genotype.describe)
def test_every_design_is_one_static_file_that_agrees_with_torch(
    genotype: Genotype, tmp_path: Path
) -> None:
    network = network_of(genotype)
    made = builder(tmp_path).build(genotype, network)

    assert made.path.name.startswith(made.sha256)
    assert hashlib.sha256(made.path.read_bytes()).hexdigest() == made.sha256
    assert [file.name for file in tmp_path.iterdir()] == [made.path.name]

    model = onnx.load(str(made.path))
    onnx.checker.check_model(model, full_check=True)
    told = {
        entry.name: tuple(extent.dim_value for extent in entry.type.tensor_type.shape.dim)
        for entry in (*model.graph.input, *model.graph.output)
    }
    assert told == {**{spec.name: spec.shape for spec in made.inputs}, "logits": (1, 2)}
    assert all(shape[0] == 1 and 0 not in shape for shape in told.values())

    torch.manual_seed(1)
    rows = [inputs_ending_at(genotype, real) for real in (1, 2, 7, genotype.text_tokens)]
    with torch.inference_mode():
        expected = torch.cat([network(*row) for row in rows]).numpy()
    assert np.abs(run_onnx(made.path, rows) - expected).max() <= 1e-4 * max(1, abs(expected).max())
    assert made.max_difference <= 1e-4 and np.ptp(expected, axis=0).max() > 1e-3


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic", "fp16"])
def test_a_reduced_precision_runs_and_tells_what_it_costs(tmp_path: Path, precision: str) -> None:
    kept = builder(tmp_path / "fp32").build(design(text_tap=6), network_of(design(text_tap=6)))
    asked = design(text_tap=6, precision=precision)
    made = builder(tmp_path / "less").build(asked, network_of(asked))
    rows = [inputs_ending_at(asked, 9)]
    assert 0 < made.max_difference < 0.2 and made.max_difference > kept.max_difference
    difference = np.abs(run_onnx(made.path, rows) - run_onnx(kept.path, rows)).max()
    assert 0 < difference < 0.2
    assert made.path.stat().st_size < 0.8 * kept.path.stat().st_size
    assert costs_of(made.costs)["onnx_bytes"] == made.path.stat().st_size
    assert len(list((tmp_path / "less").iterdir())) == 1


def test_the_same_weights_are_the_same_file_and_others_are_not(tmp_path: Path) -> None:
    one, two = (builder(tmp_path / name).build(design()) for name in "ab")
    assert one.sha256 == two.sha256
    assert builder(tmp_path).build(design(), network_of(design())).sha256 != one.sha256


def test_a_discarded_artifact_is_gone_and_may_be_discarded_again(tmp_path: Path) -> None:
    made = builder(tmp_path).build(design())
    made.discard()
    made.discard()
    assert not list(tmp_path.iterdir())


# -- what is refused


def tamper(path: Path) -> None:
    model = onnx.load(str(path))
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    changed = numpy_helper.to_array(largest) * 1.5
    largest.CopyFrom(numpy_helper.from_array(changed, largest.name))
    onnx.save(model, str(path))


def test_a_file_that_differs_from_torch_is_refused_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = onnx.checker.check_model

    def check_and_tamper(path: str, **options: bool) -> None:
        check(path, **options)
        tamper(Path(path))

    monkeypatch.setattr(onnx_builder.onnx.checker, "check_model", check_and_tamper)
    with pytest.raises(ParityError, match=r"small-bert.*differs from torch by .*allowed 1\.0e-03"):
        builder(tmp_path).build(design(), network_of(design()))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["fp32", "int8", "int8-dynamic"])
def test_logits_that_are_not_finite_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setattr(
        onnx_builder, "run_onnx", lambda path, rows: np.full((len(rows), 2), np.nan, np.float32)
    )
    with pytest.raises(ParityError, match=f"{precision} gives logits that are not finite"):
        builder(tmp_path).build(design(precision=precision))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["reduce_precision", "run_onnx", "static_costs"])
def test_an_error_leaves_no_temporary_file_and_no_switch_thrown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("as if the disk were full")

    fastpath, level = torch.backends.mha.get_fastpath_enabled(), logging.root.manager.disable
    monkeypatch.setattr(onnx_builder, step, fail)
    with pytest.raises(RuntimeError, match="as if"):
        builder(tmp_path).build(design(precision="int8"))
    assert not list(tmp_path.iterdir())
    assert torch.backends.mha.get_fastpath_enabled() == fastpath
    assert logging.root.manager.disable == level


def test_a_design_that_cannot_be_built_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="taps 1 to 6"):
        builder(tmp_path).build(design(text_tap=7))


def test_an_export_leaves_other_peoples_logging_as_it_was(tmp_path: Path) -> None:
    logging.disable(logging.INFO)
    try:
        builder(tmp_path).build(design())
        assert logging.root.manager.disable == logging.INFO
    finally:
        logging.disable(logging.NOTSET)


def test_encoders_of_one_name_but_another_source_are_another_architecture(tmp_path: Path) -> None:
    one, other = builder(tmp_path), builder(tmp_path)
    small = SPECS["small-xcit"]
    other._encoders = {**SPECS, "small-xcit": replace(small, source="xcit_tiny_12_p8_224")}
    trained = builder(tmp_path)
    trained._encoders = {**SPECS, "small-xcit": replace(small, weights="pretrained")}
    assert one.encoders_of(design()) != other.encoders_of(design())
    assert one.encoders_of(design()) == trained.encoders_of(design())


# -- costs


class Known(nn.Module):
    """A network whose multiply-accumulates can be counted by hand: small pictures, 16 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(1024, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.convolution = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.head = nn.Linear(12, 5)

    def forward(self, ids: Tensor, mask: Tensor, pixels: Tensor) -> Tensor:
        states = self.table(ids)
        text = self.attention(states, states, states, need_weights=False)[0].mean(1)
        grid = self.depthwise(self.convolution(pixels)).mean((2, 3))
        said: Tensor = self.head(torch.cat([text, grid], 1))
        return said


def test_macs_are_those_of_a_hand_count() -> None:
    attention = 16 * 8 * 24 + 2 * 16 * 16 * 8 + 16 * 8 * 8
    side = demo().shapes["small-xcit"].image_size // 2
    convolutions = side * side * 4 * 3 * 9 + side * side * 4 * 9
    found = costs_of(static_costs(Known().eval(), design(), demo().shapes))  # type: ignore[arg-type]
    assert found["macs"] == attention + convolutions + 12 * 5
    assert found["parameters"] == 1024 * 8 + (24 * 8 + 24 + 8 * 8 + 8) + 4 * 27 + 4 * 9 + 65


@pytest.mark.parametrize("layers", [1, 4])
def test_the_macs_of_bert_count_its_attention(layers: int) -> None:
    length, width, inner = 32, 64, 128
    genotype = Genotype("small-bert", None, length, (FusionPoint(layers, 0),))
    found = costs_of(static_costs(network_of(genotype), genotype, demo().shapes))
    dense = length * (4 * width * width + 2 * width * inner)
    attention = 2 * length * length * width
    head = width * 512 + 512 * 256 + 256 * 2
    assert found["macs"] == layers * (dense + attention) + head


def test_bytes_follow_the_precision_and_parameters_the_network() -> None:
    network = network_of(design())
    count = sum(parameter.numel() for parameter in network.parameters())
    for precision, width in (("fp32", 4), ("fp16", 2), ("int8", 1), ("int8-dynamic", 1)):
        found = costs_of(static_costs(network, design(precision=precision), demo().shapes))
        assert found["parameters"] == count and found["weight_bytes"] == count * width


def test_costs_do_not_depend_on_classes_being_two(tmp_path: Path) -> None:
    made: Artifact = builder(tmp_path, classes=7).build(design())
    assert run_onnx(made.path, [inputs_ending_at(design(), 5)]).shape == (1, 7)
    two = costs_of(static_costs(network_of(design()), design(), demo().shapes))
    assert costs_of(made.costs)["parameters"] - two["parameters"] == 5 * 257


class _Normed(nn.Module):
    """torch's own root mean square norm, with and without a weight."""

    def __init__(self, weight: bool, eps: float | None) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(8, eps=eps, elementwise_affine=weight)

    def forward(self, values: Tensor) -> Tensor:
        normed: Tensor = self.norm(values)
        return normed


@pytest.mark.parametrize("weight", [True, False])
@pytest.mark.parametrize("eps", [1e-3, None])
def test_the_norm_that_the_exporter_does_not_know_agrees_with_torch(
    tmp_path: Path, weight: bool, eps: float | None
) -> None:
    network = _Normed(weight, eps).eval()
    if weight:
        nn.init.normal_(network.norm.weight)
    values = torch.randn(2, 3, 8)
    export(network, (values,), tmp_path / "norm.onnx", ["values"], ["logits"], {}, "a norm")
    with torch.inference_mode():
        expected = network(values).numpy()
    assert np.abs(run_onnx(tmp_path / "norm.onnx", [(values,)]) - expected).max() <= 1e-6


class _Fourier(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return torch.fft.fft(values).real


def test_a_network_without_a_form_in_onnx_is_refused_in_words_and_not_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(EncoderError, match=r"text encoder mine: it cannot be written as ONNX \(.*"):
        given = (torch.randn(2, 8),)
        export(_Fourier(), given, tmp_path / "f.onnx", ["v"], ["logits"], {}, "text encoder mine")
    assert capfd.readouterr() == ("", "")
