"""A rewritten design gives the same outputs for less work, and says what was rewritten."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import onnx
import optuna
import pytest
import torch
from every_design import costs_of, every_design, inputs_ending_at, network_of
from quick_evaluators import QUICK_TIMING, builder, demo, design, image_folder, quality
from rich.console import Console
from tiny import Place, finished_place
from torch import nn

from evaluators.devices.client import DeviceClient, open_local_device
from evaluators.features.preprocessing import Preprocessing
from evaluators.features.tokenizers import PretrainedTokenizer
from evaluators.latency.evaluator import LatencyEvaluator, Runs
from evaluators.onnx.builder import Artifact, OnnxBuilder, run_onnx
from evaluators.onnx.rewriting import Rewriting
from evaluators.quality.evaluator import QualityEvaluator
from search_space.design.encoder import EncoderSpec
from search_space.design.genotype import FusionPoint, Genotype
from search_space.network.branch import AttentionBlock
from search_space.network.network import build
from search_space.network.rewrites import ALL, BY_NAME, NONE, OWN_LENGTH, Rewrites, fold, rewrite
from search_space.space.named import load_space
from search_space.space.space import SearchSpace
from studies.config.options import REWRITES
from studies.config.settings import load_settings
from studies.config.usage import UsageError
from studies.report import page, terminal
from studies.report.json_output import as_json
from studies.results.study_outcome import outcome_of, reference_row
from studies.results.trial_record import TrialResult

LENGTHS = (3, 11, 5, 2)
"""Tokens of the texts of some data: their mean is 5.25."""


def rewriting_builder(
    folder: Path, rewrites: Rewrites = ALL, lengths: Sequence[int] = LENGTHS
) -> OnnxBuilder:
    encoders = {spec.name: spec for spec in demo().encoders}
    return OnnxBuilder(
        encoders, demo().shapes, 2, folder, rewrites=rewrites, text_lengths=lambda name: lengths
    )


@cache
def small() -> SearchSpace:
    """A space with a MobileNetV2."""
    return load_space(str(Path(__file__).parents[1] / "support" / "small_space.toml"))


def small_build(genotype: Genotype, folder: Path) -> onnx.ModelProto:
    """The exported graph of a design whose BatchNorms have seen pictures."""
    encoders = {spec.name: spec for spec in small().encoders}
    network = build(genotype, encoders, small().shapes, 2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    made = OnnxBuilder(encoders, small().shapes, 2, folder).build(genotype, network)
    return onnx.load(str(made.path))


def trained_like(blocks: Sequence[AttentionBlock]) -> None:
    """Weights as training leaves them: biases and norms that are not zeros and ones."""
    for parameter in (p for block in blocks for p in block.parameters()):
        if parameter.ndim == 1:
            nn.init.normal_(parameter, parameter.detach().mean().item(), 0.1)


def operators(artifact: Artifact) -> Counter[str]:
    """How often each operator stands in a file; equal tensors are shared by way of Identity."""
    found = Counter(node.op_type for node in onnx.load(str(artifact.path)).graph.node)
    del found["Identity"]
    return found


# -- attention over one key


@pytest.mark.parametrize("count", [1, 4, 8])
def test_a_chain_of_blocks_over_one_key_is_a_chain_of_linear_maps_and_norms(count: int) -> None:
    torch.manual_seed(0)
    blocks = [AttentionBlock(32, residual=False).eval() for _ in range(count)]
    trained_like(blocks)
    vectors = torch.randn(50, 32)
    with torch.inference_mode():
        expected = vectors.unsqueeze(1)
        for block in blocks:
            expected = block(expected)
        folded = fold(blocks)
        found = folded(vectors)
    assert float((found - expected.squeeze(1)).abs().max()) < 1e-5
    assert float(expected.std(0).max()) > 1e-3
    assert [type(one) for one in folded] == [nn.Linear, nn.LayerNorm] * count
    matrices = [sum(p.numel() for p in of.parameters() if p.ndim == 2) for of in (*blocks, folded)]
    assert sum(matrices[:-1]) == 5 * matrices[-1]


def test_query_and_key_weights_of_such_a_block_change_nothing() -> None:
    torch.manual_seed(0)
    block = AttentionBlock(16, residual=False).eval()
    vector = torch.randn(4, 1, 16)
    with torch.inference_mode():
        before = block(vector)
        block.attention.in_proj_weight[:32] = torch.randn(32, 16)
        assert torch.allclose(block(vector), before, atol=1e-6)


def test_the_network_that_is_rewritten_stays_as_it_was() -> None:
    asked = design(attention_blocks=3)
    network = network_of(asked)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = rewrite(network, asked, demo().shapes, ALL)
    assert found is not network and found.trunks["text"] is network.trunks["text"]
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any("attention" in name for name in found.fusion.state_dict())


@pytest.mark.parametrize(
    "untouched",
    [
        design(attention_blocks=2, attention_over="tokens"),
        design("cross-attention"),
        design("cross-attention", attention_blocks=2, attention_over="tokens"),
        design(),
    ],
    ids=Genotype.describe,
)
def test_attention_over_tokens_is_never_touched(untouched: Genotype, tmp_path: Path) -> None:
    network = network_of(untouched)
    assert rewrite(network, untouched, demo().shapes, ALL) is network
    without_texts = OnnxBuilder(
        {spec.name: spec for spec in demo().encoders}, demo().shapes, 2, tmp_path, rewrites=ALL
    )
    made = without_texts.build(untouched, network)
    assert made.sha256 == builder(tmp_path).build(untouched, network).sha256
    assert made.rewritten == ()


# -- every design, rewritten


@pytest.mark.parametrize(
    ("genotype", "rewrites"),
    [(genotype, ALL) for genotype in every_design()[1::7]]
    + [(genotype, OWN_LENGTH) for genotype in (*every_design()[::6], *every_design()[-3:])],
)
def test_a_rewritten_design_agrees_with_the_network_as_written(
    genotype: Genotype, rewrites: Rewrites, tmp_path: Path
) -> None:
    network = network_of(genotype)
    made = rewriting_builder(tmp_path, rewrites).build(genotype, network)
    assert made.max_difference <= 1e-4
    torch.manual_seed(1)
    rows = [inputs_ending_at(genotype, real) for real in (*LENGTHS, 1, 7)]
    fed = Rewriting(rewrites, lambda name: LENGTHS).fed
    with torch.inference_mode():
        expected = torch.cat([network(*row) for row in rows]).numpy()
    found = run_onnx(made.path, [fed(genotype, row) for row in rows])
    assert abs(found - expected).max() <= 1e-4 * max(1, abs(expected).max())
    assert expected.std(0).max() > 5e-4


def test_texts_are_padded_to_the_longest_of_the_data(tmp_path: Path) -> None:
    made = rewriting_builder(tmp_path).build(design(text_tokens=32))
    assert [spec.shape for spec in made.inputs[:2]] == [(1, 11), (1, 11)]
    graph = onnx.load(str(made.path)).graph
    assert [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim] == [1, 11]
    assert made.rewritten == ("texts padded to 11 tokens, the longest of the data",)
    short = rewriting_builder(tmp_path, lengths=(40, 30)).build(design())
    assert short.inputs[0].shape == (1, 16) and short.rewritten == ()


def test_a_text_at_its_own_length_is_timed_at_the_mean(tmp_path: Path) -> None:
    made = rewriting_builder(tmp_path, OWN_LENGTH).build(design())
    assert made.inputs[0].shape == (1, 6)
    graph = onnx.load(str(made.path)).graph
    assert graph.input[0].type.tensor_type.shape.dim[1].dim_param == "tokens"
    assert made.rewritten == ("each text at its own length, timed at 6 tokens, their mean",)
    cut = Rewriting(OWN_LENGTH, lambda name: (2, 40)).timed(design())
    assert cut.text_tokens == 9  # of 2 and the 16 that the design reads of the other


def test_a_fusion_that_reads_the_tokens_is_padded_to_the_longest_instead(tmp_path: Path) -> None:
    over_tokens = design(attention_blocks=1, attention_over="tokens")
    for asked in (design("prefix"), over_tokens, design(text_pooling="attention")):
        rewriting = Rewriting(OWN_LENGTH, lambda name: LENGTHS)
        assert rewriting.timed(asked).text_tokens == 11 and not rewriting.open_axes(asked)
        assert rewriting.key(asked) == {}
        assert rewriting.words(asked) == ("texts padded to 11 tokens, the longest of the data",)
    assert rewriting.open_axes(design(vision_pooling="attention")), "its text is read pooled"


def test_a_text_that_the_graph_would_cut_off_is_refused() -> None:
    fed = Rewriting(ALL, lambda name: LENGTHS).fed
    with pytest.raises(ValueError, match="a text of 12 tokens where the graph takes 11"):
        fed(design(), inputs_ending_at(design(), 12))


@pytest.mark.parametrize(
    ("precision", "rewrites"), [("int8-dynamic", ALL), ("int8", OWN_LENGTH), ("fp16", OWN_LENGTH)]
)
def test_reduced_precision_is_made_of_the_rewritten_graph(
    tmp_path: Path, precision: str, rewrites: Rewrites
) -> None:
    asked = design(precision=precision, attention_blocks=4)
    made = rewriting_builder(tmp_path, rewrites).build(asked, network_of(asked))
    written = builder(tmp_path).build(asked, network_of(asked))
    softmaxes = [operators(artifact)["Softmax"] for artifact in (written, made)]
    assert softmaxes[0] - softmaxes[1] == 4
    assert made.max_difference < 0.2


def test_costs_are_those_of_the_rewritten_graph(tmp_path: Path) -> None:
    asked = design(attention_blocks=4)
    made = costs_of(rewriting_builder(tmp_path).build(asked).costs)
    written = costs_of(builder(tmp_path).build(asked).costs)
    for name in ("parameters", "macs", "weight_bytes", "onnx_bytes"):
        assert made[name] < written[name]


# -- what exporter and trunks do by themselves, and is not done again


@pytest.mark.parametrize("pooling", ["conv-max", "mean"])
def test_the_exporter_folds_every_batch_norm_into_its_convolution(
    pooling: str, tmp_path: Path
) -> None:
    point = FusionPoint(0, 16)
    asked = Genotype(None, "small-mobilenet", 0, (point,), vision_pooling=pooling)  # type: ignore[arg-type]
    graph = small_build(asked, tmp_path).graph
    found = Counter(node.op_type for node in graph.node)
    assert found["BatchNormalization"] == 0 and found["Conv"] >= 50


@pytest.mark.parametrize(
    "asked",
    [
        Genotype("small-bert", "small-mobilenet", 16, (FusionPoint(2, 5),)),
        Genotype("small-bert", "small-vit", 16, (FusionPoint(6, 6),), text_pooling="pooler"),
        Genotype("small-bert", "small-vit", 16, (FusionPoint(1, 1), FusionPoint(3, 2))),
    ],
    ids=Genotype.describe,
)
def test_a_graph_holds_nothing_that_its_one_output_does_not_need(
    asked: Genotype, tmp_path: Path
) -> None:
    graph = small_build(asked, tmp_path).graph
    assert [output.name for output in graph.output] == ["logits"]
    needed, makers = {"logits"}, {name: node for node in graph.node for name in node.output}
    waiting = ["logits"]
    while waiting:
        node = makers.get(waiting.pop())
        new = set(node.input) - needed if node else set()
        needed |= new
        waiting += new
    assert all(needed & set(node.output) for node in graph.node)
    assert {tensor.name for tensor in graph.initializer} <= needed


def test_trunks_end_at_their_deepest_tap(tmp_path: Path) -> None:
    def count(operator: str, asked: Genotype) -> int:
        graph = small_build(asked, tmp_path).graph
        return sum(node.op_type == operator for node in graph.node)

    for tap in (1, 4):
        text = Genotype("small-bert", None, 16, (FusionPoint(tap, 0),))
        assert count("Softmax", text) == tap  # one a layer
    convolutions = [
        count("Conv", Genotype(None, "small-mobilenet", 0, (FusionPoint(0, tap),)))
        for tap in (2, 15, 16)
    ]
    # Three a bottleneck; the last tap has the encoder's final one too.
    assert [b - convolutions[0] for b in convolutions] == [0, 39, 43]


# -- keys


def timer(device: DeviceClient, made_by: OnnxBuilder) -> LatencyEvaluator:
    runs = Runs(threads=1, timing=QUICK_TIMING, deadline_s=60.0)
    return LatencyEvaluator(made_by, lambda: device, runs)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[DeviceClient]:
    opened = open_local_device(tmp_path / "device")
    yield opened
    opened.close()


def test_designs_of_one_graph_share_a_latency_key_and_others_do_not(
    tmp_path: Path, device: DeviceClient
) -> None:
    written = timer(device, builder(tmp_path))
    cut, own = (timer(device, rewriting_builder(tmp_path, kind)) for kind in (ALL, OWN_LENGTH))
    short, long, folded = design(), design(text_tokens=32), design(attention_blocks=4)
    assert cut.key(short) == cut.key(long) != cut.key(folded)
    assert cut.key(short) == written.key(replace(short, text_tokens=11))
    keys = [of.key(one) for of in (written, cut, own) for one in (short, folded)]
    assert len(set(keys)) == len(keys)
    unseen = rewriting_builder(tmp_path, lengths=(16, 20))
    assert timer(device, unseen).key(short) == written.key(short)


def test_a_latency_says_what_was_rewritten_and_which_blocks_cannot_attend(
    tmp_path: Path, device: DeviceClient
) -> None:
    evaluator = timer(device, rewriting_builder(tmp_path, OWN_LENGTH))
    found = evaluator.evaluate(design(attention_blocks=4))
    assert found.details["rewritten"] == [
        "attention over one key folded into its linear form (4 blocks)",
        "each text at its own length, timed at 6 tokens, their mean",
    ]
    row = reference_row("early", "words", "", TrialResult().with_evaluations(found))
    assert (
        row.folded == "4 attention blocks over a single key, where attention has no effect: folded"
    )
    assert found["latency_ms"].value > 0


# -- the artifact that is judged


def test_lengths_are_those_of_all_texts_whatever_their_labels(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "set")
    spec = next(spec for spec in demo().encoders if spec.modality == "text")
    found = Preprocessing(data, demo().shapes).text_lengths(spec)
    # A word is a token here; two more mark start and end.
    assert found == tuple(len(sample.text.split()) + 2 for sample in data.samples)
    other = replace(data, samples=tuple(replace(s, label=0) for s in data.samples))
    assert Preprocessing(other, demo().shapes).text_lengths(spec) == found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> QualityEvaluator:
    """Judges designs as they are written."""
    folder = tmp_path_factory.mktemp("written")
    return quality(image_folder(folder / "set"), folder / "home")


@pytest.mark.slow
@pytest.mark.parametrize("rewrites", [ALL, OWN_LENGTH], ids=["all", "own-length"])
def test_a_reduced_precision_is_judged_as_the_graph_that_is_timed(
    written: QualityEvaluator, tmp_path: Path, rewrites: Rewrites
) -> None:
    data = written.data
    asked = design(text_tokens=32, attention_blocks=2, precision="int8-dynamic")
    made = quality(data, tmp_path / "made", rewrites=rewrites)
    assert made.key(asked) != written.key(asked)
    assert made.key(replace(asked, precision="fp32")) == written.key(
        replace(asked, precision="fp32")
    )
    artifact, timed = made.exporter.artifact(asked), made.exporter.builder.build(asked)
    assert operators(artifact) == operators(timed) and artifact.inputs == timed.inputs
    assert (
        operators(artifact)["Softmax"] == operators(written.exporter.artifact(asked))["Softmax"] - 2
    )
    valid = data.split("valid")
    right = run_onnx(artifact.path, made.exporter.inputs(asked, valid)).argmax(1) == [
        sample.label for sample in valid
    ]
    assert made.evaluate(asked)["accuracy"].value == pytest.approx(100 * right.mean())


def test_a_fold_is_judged_as_the_graph_for_the_texts_of_all_data(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "set")
    whole = quality(data, tmp_path / "home", rewrites=ALL)
    shorter = replace(data, samples=tuple(s for s in data.samples if len(s.text.split()) < 6))
    part = whole.other(shorter)
    ours, theirs = (each.exporter.builder.rewriting for each in (part, whole))
    asked = design(text_tokens=32)
    assert ours.longest(asked) == theirs.longest(asked)


# -- as users see it


@pytest.fixture
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished_place(tmp_path_factory.getbasetemp())


def test_a_study_tells_its_rewrites_and_marks_what_cannot_attend(finished: Place) -> None:
    (name,) = optuna.study.get_all_study_names(finished.url)
    outcome = outcome_of(optuna.load_study(study_name=name, storage=finished.url))
    said = outcome.conditions["rewrites before timing"]
    assert said.startswith("all: attention over one key folded, padding cut to the longest text")
    folded = {row.name: row.folded for row in outcome.rows}
    mark = "4 attention blocks over a single key, where attention has no effect: folded"
    assert folded["early-tiny-vit"] == mark and folded["late-tiny-vit"] == ""
    assert mark in page.render(outcome)
    others = tuple(row for row in outcome.front if not row.folded)
    folds = tuple(row for row in outcome.rows if row.folded)
    for front in (others, (*others, *folds)):
        printed = io.StringIO()
        terminal.show(replace(outcome, front=front), Console(file=printed, width=100))
        assert printed.getvalue().count(mark) == sum(row.folded == mark for row in folds)
    assert {row["name"]: row["folded"] for row in as_json(outcome)["trials"]} == folded


def test_what_is_exported_is_what_was_timed(finished: Place, tmp_path: Path) -> None:
    (name,) = optuna.study.get_all_study_names(finished.url)
    trials = optuna.load_study(study_name=name, storage=finished.url).trials
    early = next(t for t in trials if t.user_attrs.get("name") == "early-tiny-vit")
    out = tmp_path / "carried"
    done = finished.finish(finished.command("export", str(early.number), "--out", str(out)))
    assert done.returncode == 0, done.stderr
    card = json.loads((out / "card.json").read_text(encoding="utf-8"))
    latency = next(e for e in finished.kept() if e["key"] == card["valid"]["latency_key"])
    assert card["rewritten"] == latency["details"]["rewritten"] != []
    shapes = {spec["name"]: spec["shape"] for spec in card["inputs"]}
    assert shapes["input_ids"][1] < 16
    graph = onnx.load(str(out / "network.onnx")).graph
    assert not any("blocks" in node.name for node in graph.node)


def test_a_study_goes_on_under_its_own_rewrites_alone(finished: Place) -> None:
    done = finished.finish(finished.run("--trials", "6", "--rewrites", "none"))
    assert done.returncode != 0
    assert "was made with another rewrites" in done.stderr


def test_rewrites_that_there_are_not_are_refused() -> None:
    with pytest.raises(UsageError, match="--rewrites 'some': choose one of all, none, own-length"):
        load_settings("pareto", {"rewrites": "some"})
    with pytest.raises(UsageError, match="its engines take texts of one length"):
        load_settings("pareto", {"rewrites": "own-length", "runtime": "tensorrt"})
    assert tuple(BY_NAME) == REWRITES and BY_NAME["none"] == NONE
    assert load_settings("pareto").device.rewrites == "all"
    assert load_settings("tokens").device.rewrites == "none"


def test_the_texts_of_mosi_are_at_most_a_quarter_of_what_the_paper_pads_to(shared: Path) -> None:
    with open(shared / "data/mosi/label.csv", encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    folder = str(shared / "weights/all-MiniLM-L6-v2")
    mask = PretrainedTokenizer(EncoderSpec("minilm", "text", "transformers", folder)).encode(
        texts, 512
    )[1]
    assert len(texts) == 2199 and 16 < int(mask.sum(1).max()) <= 160
    assert 10 < float(mask.sum(1).float().mean()) < 25
