"""Designs that read text, a picture and a sound: their networks, graphs and costs, and what they
learn and use of each."""

import csv
import json
import random
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import cache
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from audio_encoders import OWN_EXTRACTOR, SPECTROGRAM, from_timm, heard, noise, tone
from composed import assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from quick_evaluators import BY_STAGE, QUICK, quality
from tiny import SPACE, write_data, write_space
from torch import Tensor, nn

from evaluators.data import DataSet, load
from evaluators.data.media.waves import wav_bytes
from evaluators.latency.features import LatencyFeatures
from evaluators.latency.trunk_work import TrunkWork
from evaluators.onnx.builder import OnnxBuilder, run_onnx
from evaluators.onnx.rewriting import Rewriting
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.quality.modality_use import SHUFFLES, ModalityUseEvaluator
from evaluators.quality.robustness import Noise, RobustnessEvaluator, _targets
from evaluators.quality.stress import StressEvaluator
from evaluators.training.config import TrainingConfig
from evaluators.training.loop import predict
from evaluators.training.plan import ON_FROZEN, WHOLE
from search_space.design.genotype import (
    ATTENTION_OVER,
    AUDIO_POOLINGS,
    AudioPooling,
    FusionPoint,
    Genotype,
)
from search_space.design.rules import canonical
from search_space.encoders.features import features_of
from search_space.encoders.loading import describe
from search_space.modality import MODALITIES, Modality
from search_space.network.network import INPUTS, FusionNetwork, build, by_modality, input_names
from search_space.network.rewrites import ALL, NONE, Rewrites
from search_space.operators.definitions import FUSION_OPERATORS, OPERATORS, Operator
from search_space.space.named import load_space
from search_space.space.space import SearchSpace

torch.set_num_threads(1)

CLASSES = 2
OF_THREE: tuple[Operator, ...] = tuple(
    name for name, each in FUSION_OPERATORS.items() if each.signature.most >= 3
)
OF_TWO: tuple[Operator, ...] = tuple(o for o in OPERATORS if o not in OF_THREE)
TEXT, VISION, AUDIO = "small-bert", "small-xcit", "small-log-mel-xcit"


@cache
def trimodal() -> SearchSpace:
    """The space as it comes, widened: all operators that fuse three, any modality left out."""
    return replace(load_space("trimodal"), operators=OF_THREE, optional=MODALITIES)


def fused(operator: Operator = "gated", audio_tap: int = 2, **changes: Any) -> Genotype:
    """A design of `trimodal` that is fused at one point."""
    point = FusionPoint(2, 3, operator, 16, audio_tap)
    made = Genotype(TEXT, VISION, 16, (point,), audio_encoder=AUDIO)
    return canonical(replace(made, **changes), trimodal().shapes)


@cache
def sampled() -> tuple[Genotype, ...]:
    """Designs as a search draws them; more of those that read all three."""
    rng = random.Random(5)
    drawn = [trimodal().sample(rng) for _ in range(150)]
    three = [design for design in drawn if len(design.encoders) == 3]
    fewer = [design for design in drawn if len(design.encoders) < 3]
    return (*three[:14], *fewer[:6])


def network(genotype: Genotype, seed: int = 0) -> FusionNetwork:
    encoders = {spec.name: spec for spec in trimodal().encoders}
    return build(genotype, encoders, trimodal().shapes, CLASSES, seed)


def inputs(genotype: Genotype, seed: int = 0) -> tuple[Tensor, ...]:
    """Of two samples; the second text is shorter."""
    drawn, made = torch.Generator().manual_seed(seed), []
    if genotype.text_encoder:
        ids = torch.randint(4, 900, (2, genotype.text_tokens), generator=drawn)
        mask = torch.ones_like(ids)
        mask[1, 9:] = 0
        made += [ids * mask, mask]
    for name in [n for m, n in genotype.encoders.items() if m != "text"]:
        made.append(torch.randn(2, *trimodal().shapes[name].input_size, generator=drawn))
    return tuple(made)


def changed(genotype: Genotype, given_: tuple[Tensor, ...], modality: Modality) -> list[Tensor]:
    """The same inputs, but for one modality, whose are another's."""
    mine, other = (by_modality(genotype.encoders, row) for row in (given_, inputs(genotype, 1)))
    return [t for m in genotype.encoders for t in (other if m == modality else mine)[m]]


# -- designs


def test_designs_drawn_have_every_choice_of_modalities() -> None:
    rng = random.Random(0)
    found = {tuple(trimodal().sample(rng).encoders) for _ in range(200)}
    assert len(found) == 7, "all parts of three but the empty one"


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6))
def test_a_drawn_design_is_the_same_by_its_vector_and_by_its_json(seed: int) -> None:
    design = trimodal().sample(random.Random(seed))
    assert trimodal().decode(trimodal().encode(design)) == design
    again = Genotype.from_json(json.loads(json.dumps(design.as_json())))
    assert again == design and again.key == design.key
    assert ("audio_encoder" in design.as_json()) == (design.audio_encoder is not None)
    assert all(("audio_tap" in p.as_json()) == bool(p.audio_tap) for p in design.points)


WITHOUT_SOUND = {
    "a53dcb4efa6941077fb91ed1a81298bab7e15dd208ef2de3164e722f9f9181d4": Genotype(
        TEXT,
        VISION,
        24,
        (FusionPoint(2, 3, "gated", 16), FusionPoint(6, 6, "tensor", 24)),
        attention_blocks=2,
        text_pooling="mean",
        vision_pooling="max",
    ),
    "9efd35ed557177ef03c9b8cbdcb9c6e1adf516f34e958c7c72e33b8cbe641e1c": Genotype(
        TEXT, None, 32, (FusionPoint(6, 0),), text_pooling="pooler", precision="int8-dynamic"
    ),
    "2bf7aa20c96a3f4a6b0e68d8e1d30b8cafca7de84abfe5a37a05337254a422a3": Genotype(
        None, VISION, 0, (FusionPoint(0, 4),)
    ),
}


@pytest.mark.parametrize("key", WITHOUT_SOUND, ids=lambda key: key[:8])
def test_designs_without_sound_have_the_keys_that_they_had_before_there_was_any(key: str) -> None:
    assert WITHOUT_SOUND[key].key == key


def test_designs_with_sound_have_keys_of_their_own() -> None:
    two = fused(audio_encoder=None, points=(FusionPoint(2, 3, "gated", 16),))
    others = [fused(), fused(audio_tap=3), fused(audio_pooling="max"), two]
    assert len({design.key for design in others}) == 4


@pytest.mark.parametrize("operator", OF_TWO)
def test_an_operator_of_two_is_refused_over_three_in_words(operator: Operator) -> None:
    (said,) = trimodal().violations(fused(operator))
    assert said.startswith(f"{operator} fuses 2 modalities, not 3: choose one of concatenation")
    with pytest.raises(ValueError, match="choose one of"):
        network(fused(operator))


@pytest.mark.parametrize("operator", OF_THREE)
def test_an_operator_of_three_is_not_refused(operator: Operator) -> None:
    assert trimodal().violations(fused(operator)) == ()


def test_a_single_sequence_without_text_is_refused_in_words() -> None:
    point = FusionPoint(0, 3, "single-sequence", 16, 2)
    design = fused(text_encoder=None, text_tokens=0, points=(point,))
    assert trimodal().violations(design) == ("single-sequence is of text: choose another",)


@pytest.mark.parametrize("operator", ["cross-attention", "prefix"])
def test_operators_of_text_and_pictures_are_refused_over_text_and_sound(operator: Any) -> None:
    design = fused(vision_encoder=None, points=(FusionPoint(2, 0, operator, 16, 2),))
    (said,) = trimodal().violations(design)
    assert said == f"{operator} is of text and vision: choose another"


def test_taps_that_do_not_exist_are_refused_in_words() -> None:
    (said,) = trimodal().violations(fused(audio_tap=9))
    assert said == f"audio tap 9 of {AUDIO}: it has taps 1 to 6"
    design = fused(audio_encoder=None)
    assert trimodal().violations(design) == ("audio tap 2 without an audio encoder: must be 0",)
    said = "; ".join(trimodal().violations(fused(audio_encoder="a stranger")))
    assert "audio encoder 'a stranger' is unknown here" in said and AUDIO in said


# -- networks


@pytest.mark.parametrize("number", range(0, 20, 2))
def test_a_sampled_design_gives_logits_that_depend_on_all_that_it_reads(number: int) -> None:
    design = sampled()[number]
    built, given_ = network(design), inputs(design)
    assert input_names(design) == tuple(n for m in design.encoders for n in INPUTS[m])
    with torch.no_grad():
        found = built(*given_)
        assert found.shape == (2, CLASSES) and found.isfinite().all()
        assert torch.equal(network(design)(*given_), found), "a seed repeats it"
        for modality in design.encoders:
            other = built(*changed(design, given_, modality))
            assert (other - found).abs().max() > 1e-7, modality
        alone = [built(*(part[k : k + 1] for part in given_)) for k in range(2)]
    torch.testing.assert_close(torch.cat(alone), found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", AUDIO_POOLINGS)
@pytest.mark.parametrize("operator", OF_THREE)
def test_every_operator_attention_and_pooling_can_be_built_and_trained(
    operator: Operator, pooling: AudioPooling
) -> None:
    points = (FusionPoint(2, 3, operator, 16, 1), FusionPoint(4, 5, operator, 16, 6))
    # Of each operator every attention, and every pooling with another one.
    turn = OF_THREE.index(operator) + AUDIO_POOLINGS.index(pooling)
    blocks, over = ((0, "pooled"), (1, "pooled"), (2, "tokens"))[turn % 3]
    asked = {"points": points, "audio_pooling": pooling}
    design = fused(**asked, attention_blocks=blocks, attention_over=over)
    if over == "pooled" and blocks and trimodal().violations(design):
        # The outer product of three is too wide to attend over.
        design = fused(**asked, attention_blocks=2, attention_over="tokens")
    built, given_ = network(design), inputs(design)
    loss = nn.functional.cross_entropy(built(*given_), torch.tensor([0, 1]))
    loss.backward()
    reached = {n.split(".")[1] for n, p in built.named_parameters() if p.grad is not None}
    assert loss.isfinite() and reached >= set(MODALITIES)


@pytest.mark.parametrize("over", ATTENTION_OVER)
@pytest.mark.parametrize("operator", OF_THREE)
def test_padding_of_the_text_changes_nothing_where_sound_is_read_too(
    operator: Operator, over: Any
) -> None:
    blocks = 2 if over == "tokens" else 0
    design = fused(
        operator, text_tokens=32, attention_blocks=blocks, attention_over=over, text_pooling="mean"
    )
    built, (ids, mask, *rest) = network(design), inputs(replace(design, text_tokens=16))
    longer = nn.functional.pad(mask, (0, 16))
    found = []
    with torch.no_grad():
        expected = built(ids, mask, *rest)
        for filler in (0, 77):
            padded = nn.functional.pad(ids, (0, 16))
            found.append(built(torch.where(longer == 1, padded, filler), longer, *rest))
        fewer = mask.clone()
        fewer[0, -6:] = 0
        shorter = built(ids, fewer, *rest)
    for each in found:
        torch.testing.assert_close(each, expected, rtol=0, atol=1e-5)
    assert (shorter[0] - expected[0]).abs().max() > 1e-6, "real tokens do count"


# -- graphs and costs


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts of graphs that all tests share."""
    return tmp_path_factory.mktemp("parts")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "how"), [(12, ALL), (16, NONE)], ids=["three", "fewer"])
def test_a_sampled_design_composed_is_the_design_exported(
    tmp_path: Path, parts: Path, number: int, how: Rewrites
) -> None:
    """Logits as torch gives them, equal parameters and MACs, the same operators and inputs."""
    design = replace(sampled()[number], precision="fp32")
    assert_same(trimodal(), design, tmp_path, parts, how)


@pytest.mark.slow
@pytest.mark.parametrize("operator", OF_THREE)
def test_every_operator_of_three_composed_is_the_one_exported(
    tmp_path: Path, parts: Path, space: SearchSpace, operator: Operator
) -> None:
    """Each operator under one of the rewrites."""
    design = heard_seen_read(operator, audio_pooling="attention", text_pooling="mean")
    assert_same(space, design, tmp_path, parts, (NONE, ALL)[OF_THREE.index(operator) % 2])


EARS = {
    **OWN_EXTRACTOR,
    "vit of timm": from_timm(
        *("vit_tiny_patch16_224", 2),
        **{"img_size": (64, 200), "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4},
    ),
    "resnet of timm": from_timm("resnet10t"),
}


def hearing(name: str) -> SearchSpace:
    """`trimodal` with another encoder of sound."""
    spec, space = EARS[name], trimodal()
    kept = tuple(each for each in space.encoders if each.modality != "audio")
    return replace(
        space, encoders=(*kept, spec), shapes={**space.shapes, spec.name: describe(spec)}
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", EARS)
def test_any_audio_encoder_can_be_exported_cut_and_composed_whole(
    tmp_path: Path, parts: Path, name: str
) -> None:
    space, ear = hearing(name), EARS[name].name
    points = (FusionPoint(1, 0, "bottleneck", 16, 1), FusionPoint(1, 0, "sum", 16, 2))
    design = Genotype(TEXT, None, 16, points, audio_encoder=ear, audio_pooling="max")
    assert_same(space, canonical(design, space.shapes), tmp_path, parts, NONE)


@pytest.mark.parametrize("name", ["wavlm", "whisper", "audio-spectrogram-transformer"])
def test_an_exported_graph_hears_a_real_waveform_as_torch_does(tmp_path: Path, name: str) -> None:
    space, spec = hearing(name), EARS[name]
    design = Genotype(None, None, 0, (FusionPoint(0, 0, audio_tap=3),), audio_encoder=spec.name)
    encoders = {each.name: each for each in space.encoders}
    made = OnnxBuilder(encoders, space.shapes, CLASSES, tmp_path).build(design)
    rows = [(heard(spec, sound),) for sound in (tone(440), noise(7000), np.zeros(9, np.float32))]
    with torch.no_grad():
        expected = build(design, encoders, space.shapes, CLASSES)(torch.cat([r[0] for r in rows]))
    np.testing.assert_allclose(run_onnx(made.path, rows), expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-dynamic"])
def test_reduced_precision_takes_the_same_inputs(
    tmp_path: Path, space: SearchSpace, precision: Any
) -> None:
    encoders = {spec.name: spec for spec in space.encoders}
    builder = OnnxBuilder(encoders, space.shapes, CLASSES, tmp_path)
    made = builder.build(heard_seen_read("bottleneck", precision=precision))
    assert [spec.name for spec in made.inputs] == list(input_names(heard_seen_read()))
    assert np.isfinite(made.max_difference)


@cache
def trunk_work() -> TrunkWork:
    return TrunkWork(trimodal().encoders, trimodal().shapes)


def latency_features(rewrites: Rewrites = NONE) -> LatencyFeatures:
    return LatencyFeatures(trunk_work(), Rewriting(rewrites))


@pytest.mark.parametrize("rewrites", [NONE, ALL], ids=["none", "all"])
def test_latency_features_of_designs_with_sound_are_finite(rewrites: Rewrites) -> None:
    made = latency_features(rewrites)
    found = made.of(sampled())
    assert found.shape == (len(sampled()), made.columns)
    assert np.isfinite(found).all() and (found >= 0).all() and (found.sum(1) > 0).all()


@pytest.mark.parametrize("operator", OF_THREE)
def test_latency_features_grow_with_the_layers_that_hear(operator: Operator) -> None:
    designs = [fused(operator, audio_tap=tap) for tap in range(1, 7)]
    mute = replace(fused("sum", text_pooling="mean"), audio_encoder=None)
    mute = replace(mute, points=(FusionPoint(2, 3, "sum", 16),))
    found = latency_features().of([mute, *designs])
    assert (np.diff(found[1:].sum(1)) > 0).all(), "of every layer"
    assert found[1:].sum(1).min() > found[0].sum()
    assert (np.diff(found[1:], axis=0) >= -1e-12).all(), "and nothing gets cheaper"


# -- data of three modalities

EARED = (
    SPACE.replace('precision = ["fp32"]', 'precision = ["fp32"]\naudio_pooling = ["mean", "max"]')
    + f"""
[[audio_encoder]]
name = "tiny-ast"
library = "transformers"
source = "tiny-ast"
weights = "random"
model_type = "audio-spectrogram-transformer"
config = {{ {", ".join(f"{key} = {value}" for key, value in SPECTROGRAM.items())} }}
seconds = 1
"""
)
HZ = {"dark": 250.0, "light": 1500.0}
LEARNING = replace(QUICK, fusion=TrainingConfig(25, 25, 8, 3e-3, 0.0))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """The tiny data, with tones that tell the class, too: low ones in the dark."""
    folder = write_data(tmp_path_factory.mktemp("data") / "set")
    (folder / "sounds").mkdir()
    rng = np.random.default_rng(0)
    with open(folder / "label.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            seconds = rng.uniform(0.3, 1.4)
            sound = tone(HZ[row["label"]] * rng.uniform(0.8, 1.25), seconds, loud=0.4)
            sound = (sound + rng.normal(0, 0.1, len(sound))).clip(-1, 1)
            content = wav_bytes((sound * 32767).astype(np.int16))
            (folder / "sounds" / f"{row['id']}.wav").write_bytes(content)
    return load(folder, cache=folder.parent / "cache", modalities=MODALITIES)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    file = write_space(tmp_path_factory.mktemp("space") / "eared.toml", EARED)
    return load_space(str(file))


@pytest.fixture(scope="module")
def judge(
    data: DataSet, space: SearchSpace, tmp_path_factory: pytest.TempPathFactory
) -> QualityEvaluator:
    return quality(data, tmp_path_factory.mktemp("home"), LEARNING, space)


def heard_seen_read(operator: Operator = "concatenation", **changes: Any) -> Genotype:
    """A design of the tiny space of three modalities."""
    point = FusionPoint(2, 2, operator, 16, 2)
    made = Genotype(
        *("tiny-bert", "tiny-vit", 16, (point,)), text_pooling="mean", audio_encoder="tiny-ast"
    )
    return replace(made, **changes)


def percent(judge: QualityEvaluator, logits: Tensor | np.ndarray, split: Any) -> float:
    labels = np.array([sample.label for sample in judge.data.split(split)])
    return float(100 * (np.asarray(logits).argmax(1) == labels).mean())


def whole_logits(judge: QualityEvaluator, genotype: Genotype, split: Any = "valid") -> Tensor:
    """What the trained whole network says, sample by sample."""
    built = judge.trainer.trained(genotype)
    with torch.inference_mode():
        rows = judge.exporter.inputs(genotype, judge.data.split(split))
        return torch.cat([built(*row) for row in rows])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"operator": "bottleneck"},
        {"operator": "single-sequence"},
        {"operator": "low-rank-tensor", "audio_pooling": "attention"},
        {"attention_blocks": 2, "attention_over": "tokens", "audio_pooling": "max"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())) or "concatenation",
)
def test_kept_features_give_the_logits_of_the_whole_network(
    judge: QualityEvaluator, space: SearchSpace, changes: dict[str, Any]
) -> None:
    asked = canonical(heard_seen_read(**changes), space.shapes)
    found = judge.evaluate(asked)
    assert found.details["fidelity"] == ON_FROZEN
    expected = whole_logits(judge, asked)
    said = predict(judge.trainer.trained(asked).fusion, judge.trainer.inputs.kept(asked, "valid"))
    # Tokens are kept in half precision.
    halved = any(feature.form == "tokens" for feature in features_of(asked, space.shapes))
    torch.testing.assert_close(said, expected, rtol=0, atol=2e-2 if halved else 1e-4)
    assert found["accuracy"].value == pytest.approx(percent(judge, said, "valid"))
    raw = predict(judge.trainer.trained(asked), judge.trainer.inputs.raw(asked, "valid"))
    torch.testing.assert_close(raw, expected, rtol=0, atol=1e-4)


def test_a_design_of_three_modalities_learns(judge: QualityEvaluator) -> None:
    judge.evaluate(heard_seen_read())
    assert judge.test(heard_seen_read())["accuracy"].value >= 80
    assert percent(judge, whole_logits(judge, heard_seen_read(), "train"), "train") >= 90


def test_a_design_that_only_hears_learns(judge: QualityEvaluator, space: SearchSpace) -> None:
    alone = judge.trainer.plan.unimodal(space.encoder("tiny-ast"))
    assert alone.encoders == {"audio": "tiny-ast"} and space.violations(alone) == ()
    judge.evaluate(alone)
    assert judge.test(alone)["accuracy"].value >= 80


def test_its_trunks_are_tuned_one_by_one_and_it_can_be_trained_whole(
    data: DataSet, space: SearchSpace, tmp_path: Path
) -> None:
    done: list[str] = []
    tuned = quality(
        *(data, tmp_path, replace(QUICK, trunks="tuned"), space),
        progress=lambda what, *_: done.append(what),
    )
    assert tuned.evaluate(heard_seen_read()).details["fidelity"] == ON_FROZEN
    alone = {what.split()[1] for what in done if what.startswith("tuning")}
    assert alone == {"tiny-bert", "tiny-vit", "tiny-ast"}
    whole = quality(data, tmp_path, BY_STAGE, space)
    found = whole.evaluate(heard_seen_read())
    assert found.details["fidelity"] == WHOLE
    said = whole_logits(whole, heard_seen_read())
    assert found["accuracy"].value == pytest.approx(percent(whole, said, "valid"))


def test_other_sounds_are_another_key(judge: QualityEvaluator, data: DataSet) -> None:
    mute = heard_seen_read(audio_encoder=None, points=(FusionPoint(2, 2, "concatenation", 16),))
    assert judge.key(heard_seen_read()) != judge.key(mute)
    encoders = judge.trainer.plan.encoders.values()
    fingerprints = {judge.trainer.preprocessing.fingerprint(spec) for spec in encoders}
    assert len(fingerprints) == 3


# -- what it uses


def masked(
    judge: QualityEvaluator,
    genotype: Genotype,
    row: tuple[Tensor, ...],
    absent: AbstractSet[Modality],
) -> list[Tensor]:
    """A sample's inputs with some modalities saying nothing."""
    own = by_modality(genotype.encoders, row)
    nothing = by_modality(genotype.encoders, judge.trainer.inputs.nothing(genotype))
    return [part for m in genotype.encoders for part in (nothing if m in absent else own)[m]]


def test_where_nothing_is_said_shown_or_heard_there_is_silence(
    judge: QualityEvaluator, space: SearchSpace
) -> None:
    ids, mask, picture, sound = judge.trainer.inputs.nothing(heard_seen_read())
    silent = heard(space.encoder("tiny-ast"), np.zeros(16_000, np.float32))
    assert torch.equal(sound, silent) and not picture.any()
    assert ids.shape == mask.shape and mask.sum() == 2, "the start and the end of a text"


def correct_without(
    judge: QualityEvaluator, genotype: Genotype
) -> dict[frozenset[Modality], float]:
    """Percent of the test split that the whole network has right, by what is of other samples."""
    built, rows = (
        judge.trainer.trained(genotype),
        judge.exporter.inputs(genotype, judge.data.split("test")),
    )
    found = {}
    for size in range(len(MODALITIES) + 1):
        for absent in map(frozenset, combinations(MODALITIES, size)):
            taken = [
                name in {n for m in absent for n in INPUTS[m]} for name in input_names(genotype)
            ]
            right = []
            for k in range(SHUFFLES):
                order = torch.Generator().manual_seed(k)
                dealt = torch.randperm(len(rows), generator=order).tolist()
                both = [
                    zip(taken, rows[k], rows[other], strict=True) for k, other in enumerate(dealt)
                ]
                with torch.inference_mode():
                    said = [built(*(b if other else a for other, a, b in each)) for each in both]
                right.append(percent(judge, torch.cat(said), "test"))
            found[absent] = float(np.mean(right))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["concatenation", "low-rank-tensor"])
def test_three_shares_are_those_of_all_six_orders_and_add_up(
    judge: QualityEvaluator, operator: Operator
) -> None:
    asked = heard_seen_read(operator)
    found, right = (
        ModalityUseEvaluator(judge.trainer).evaluate(asked),
        correct_without(judge, asked),
    )
    built, rows = (
        judge.trainer.trained(asked),
        judge.exporter.inputs(asked, judge.data.split("test")),
    )
    everything = frozenset(MODALITIES)
    added: dict[Modality, list[float]] = {modality: [] for modality in MODALITIES}
    for order in permutations(MODALITIES):
        absent = everything
        for modality in order:
            added[modality].append(right[absent - {modality}] - right[absent])
            absent = absent - {modality}
    for modality, each in added.items():
        share = found[f"shapley_{modality}"]
        assert share.value == pytest.approx(np.mean(each)), modality
        assert share.low is not None and share.high is not None
        assert share.low <= share.value <= share.high
        with torch.inference_mode():
            said = [built(*masked(judge, asked, row, {modality})) for row in rows]
        without = percent(judge, torch.cat(said), "test")
        assert found[f"accuracy_without_{modality}"].value == pytest.approx(without)
        shuffled = found[f"accuracy_shuffled_{modality}"].value
        assert shuffled == pytest.approx(right[frozenset([modality])])
    full, chance = judge.test(asked)["accuracy"].value, found["accuracy_shuffled_all"].value
    assert chance == pytest.approx(right[everything])
    shares = sum(found[f"shapley_{modality}"].value for modality in MODALITIES)
    assert shares == pytest.approx(full - chance)


def without_weights_on(
    judge: QualityEvaluator, modality: Modality
) -> Callable[[Genotype], FusionNetwork]:
    """The trained network of the design that concatenates, with all weights on one modality 0."""
    whole, at = judge.trainer.trained, 16 * MODALITIES.index(modality)

    def trained(genotype: Genotype) -> FusionNetwork:
        built = whole(genotype)
        with torch.no_grad():
            built.fusion.branches[0].project_fused.weight[:, at : at + 16] = 0  # type: ignore[union-attr, operator]
        return built

    return trained


@pytest.mark.parametrize("ignored", MODALITIES)
def test_a_modality_without_weights_has_no_share(
    judge: QualityEvaluator, monkeypatch: pytest.MonkeyPatch, ignored: Modality
) -> None:
    monkeypatch.setattr(judge.trainer, "trained", without_weights_on(judge, ignored))
    found = ModalityUseEvaluator(judge.trainer).evaluate(heard_seen_read())
    for figure in (found[f"shapley_{ignored}"], found[f"drop_shuffled_{ignored}"]):
        assert (figure.value, figure.low, figure.high) == (0, 0, 0)
    others = [m for m in MODALITIES if m != ignored]
    rest = sum(found[f"shapley_{m}"].value for m in others)
    full = found["accuracy_shuffled_all"].value + rest
    assert found[f"accuracy_without_{ignored}"].value == pytest.approx(full)
    assert any(found[f"shapley_{m}"].value for m in others)


def test_shuffled_sounds_are_those_of_other_samples(judge: QualityEvaluator) -> None:
    asked, samples = heard_seen_read(), judge.data.split("test")
    built, right = judge.trainer.trained(asked), []
    rows = judge.exporter.inputs(asked, samples)
    for k in range(SHUFFLES):
        dealt = torch.randperm(len(rows), generator=torch.Generator().manual_seed(k)).tolist()
        with torch.inference_mode():
            said = [built(*row[:3], rows[other][3]) for row, other in zip(rows, dealt, strict=True)]
        right.append(percent(judge, torch.cat(said), "test"))
    found = ModalityUseEvaluator(judge.trainer).evaluate(asked)["accuracy_shuffled_audio"].value
    assert found == pytest.approx(np.mean(right))


@pytest.mark.parametrize(
    ("absent", "operator"),
    [("text", "bottleneck"), ("vision", "concatenation"), ("audio", "bottleneck")],
)
def test_its_graph_without_a_modality_answers_as_the_network_with_that_one_masked(
    judge: QualityEvaluator, operator: Operator, absent: Modality
) -> None:
    asked = heard_seen_read(operator)
    whole, artifact = judge.exporter.artifact(asked), judge.exporter.artifact_without(asked, absent)
    session = onnxruntime.InferenceSession(str(artifact.path))
    names = [entry.name for entry in session.get_inputs()]
    kept = [name for name in input_names(asked) if name not in INPUTS[absent]]
    assert [spec.name for spec in artifact.inputs] == kept and set(names) <= set(kept)
    assert [spec.name for spec in whole.inputs] == list(input_names(asked))
    assert artifact.path.stat().st_size < whole.path.stat().st_size
    built = judge.trainer.trained(asked)
    for row in judge.exporter.inputs(asked, judge.data.split("test")[:4]):
        by_name = dict(zip(input_names(asked), row, strict=True))
        (said,) = session.run(None, {name: by_name[name].numpy() for name in names})
        with torch.inference_mode():
            expected = built(*masked(judge, asked, row, {absent}))
        np.testing.assert_allclose(said, expected.numpy(), atol=1e-4)
    for each in (whole, artifact):
        each.discard()


@pytest.mark.parametrize("operator", ["concatenation", "bottleneck"])
def test_robustness_has_a_curve_of_each_modality_and_one_of_all(
    judge: QualityEvaluator, operator: Operator
) -> None:
    asked = heard_seen_read(operator)
    found = RobustnessEvaluator(judge.trainer, Noise()).evaluate(asked)
    curves = found.details["curves"]
    assert list(curves) == [*MODALITIES, "all"]
    areas = [found[f"robustness_{name}"].value for name in curves]
    assert found["robustness"].value == pytest.approx(np.mean(areas))
    clean = judge.evaluate(asked)["accuracy"].value
    assert all(curve[0] == pytest.approx(clean, abs=1e-3) for curve in curves.values())
    assert not any(measure.name == "robustness_both" for measure in found.measures)


def test_noise_on_a_sound_that_has_no_weights_does_no_harm(
    judge: QualityEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, loud = heard_seen_read(), Noise(50.0)
    harmed = RobustnessEvaluator(judge.trainer, loud).evaluate(asked).details["curves"]
    assert all(len(set(curve)) > 1 for curve in harmed.values())
    deaf = without_weights_on(judge, "audio")(asked).fusion
    monkeypatch.setattr(judge.trainer, "trained_fusion", lambda _: (deaf, None))
    curves = RobustnessEvaluator(judge.trainer, loud).evaluate(asked).details["curves"]
    assert len(set(curves["audio"])) == 1 and len(set(curves["all"])) > 1


def test_noise_on_all_is_on_the_sound_too() -> None:
    alone = {modality: (modality,) for modality in MODALITIES}
    assert _targets(heard_seen_read()) == {**alone, "all": MODALITIES}


def test_without_sound_its_curves_are_those_of_two(judge: QualityEvaluator) -> None:
    mute = heard_seen_read(audio_encoder=None, points=(FusionPoint(2, 2, "concatenation", 16),))
    found = RobustnessEvaluator(judge.trainer, Noise()).evaluate(mute)
    assert list(found.details["curves"]) == ["text", "vision", "both"]


@pytest.mark.parametrize("name", ["blur", "misspelt-words"])
def test_spoilt_pictures_and_texts_leave_the_sound_as_it_is(
    judge: QualityEvaluator, name: str
) -> None:
    asked = heard_seen_read()
    plain = StressEvaluator(judge.trainer, name, 0).evaluate(asked)["accuracy"].value
    assert plain == pytest.approx(judge.evaluate(asked)["accuracy"].value)
    corrupted = StressEvaluator(judge.trainer, name, 5)
    assert 0 <= corrupted.evaluate(asked)["accuracy"].value <= 100
    assert [s.sound for s in corrupted._data.samples] == [s.sound for s in judge.data.samples]
