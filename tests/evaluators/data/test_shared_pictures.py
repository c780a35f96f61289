"""Texts that share a picture: it is kept once, stays with them in a batch, and is read once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from quick_evaluators import BY_STAGE, Line, demo, design, image_folder, quality
from torch import Tensor, nn
from torch.nn import functional as F

from evaluators.data import DataSet, load
from evaluators.features.examples import LEAST_PICTURES, RawInputs, by_length, shuffled_batches
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.training.loop import predict
from search_space.design.genotype import Genotype
from search_space.network.network import FusionNetwork

TEXTS = ("red", "is it the blue one or the red one", "blue")
PICTURES = {"train": 8, "valid": 4, "test": 4}
DESIGNS = [
    design("concatenation"),
    design("cross-attention"),
    design("single-sequence"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """Three texts to a picture, of which the first and the last have the same label."""
    root = tmp_path_factory.mktemp("data") / "set"
    (root / "images").mkdir(parents=True)
    rng, rows = np.random.default_rng(0), ["id,text,label,mode,image"]
    for split, count in PICTURES.items():
        for k in range(count):
            pixels = rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / f"{split}{k}.png")
            for n, text in enumerate(TEXTS):
                rows.append(f"{split}{k}-{n},{text},{'ny'[(k + n) % 2]},{split},{split}{k}")
    (root / "label.csv").write_text("\n".join(rows))
    return load(root, cache=root.parent / "cache")


@pytest.fixture(scope="module")
def trial_runner(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> QualityEvaluator:
    return quality(data, tmp_path_factory.mktemp("home"), BY_STAGE)


def raw(trial_runner: QualityEvaluator, genotype: Genotype) -> RawInputs:
    return trial_runner.trainer.inputs.raw(genotype, "train")


def one_by_one(network: FusionNetwork, examples: RawInputs) -> Tensor:
    """Logits of samples that come alone, so that none is shared."""
    found = [examples.batch(torch.tensor([k])).logits(network) for k in range(24)]
    return torch.cat(found)


def test_data_say_whether_texts_share_pictures(data: DataSet, tmp_path: Path) -> None:
    assert data.shares_pictures
    assert not image_folder(tmp_path / "set").shares_pictures


def test_a_shared_picture_is_kept_once(data: DataSet, trial_runner: QualityEvaluator) -> None:
    preprocessing = trial_runner.trainer.preprocessing
    pixels = preprocessing.values(demo().encoder("small-xcit"), data.split("train"))
    assert pixels.places.tolist() == [k for k in range(8) for _ in TEXTS]
    assert len(pixels.kept(torch.arange(8))) == 8
    with pytest.raises(IndexError):
        pixels.kept(torch.tensor([8]))
    streamed = torch.cat(list(pixels.stream(5)))
    assert torch.equal(streamed, pixels.normalised(pixels.kept(pixels.places)))


@pytest.mark.parametrize("genotype", DESIGNS, ids=Genotype.describe)
def test_sharing_changes_no_logit_and_no_gradient(
    trial_runner: QualityEvaluator, genotype: Genotype
) -> None:
    network, examples = trial_runner.trainer.untrained(genotype).eval(), raw(trial_runner, genotype)
    whole = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    logits = examples.batch(whole).logits(network)
    alone = one_by_one(network, examples)[whole]
    torch.testing.assert_close(logits, alone, atol=1e-5, rtol=1e-4)
    found = []
    for each in (logits, alone):
        loss = F.cross_entropy(each, examples.labels[whole])
        found.append(torch.autograd.grad(loss, list(network.parameters()), allow_unused=True))
    for shared, own in zip(*found, strict=True):
        if shared is not None or own is not None:
            torch.testing.assert_close(shared, own, atol=1e-5, rtol=1e-3)


def test_the_trunk_reads_each_picture_of_a_batch_once(trial_runner: QualityEvaluator) -> None:
    network, seen = trial_runner.trainer.untrained(design()).eval(), []
    network.trunks["vision"].register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    examples = raw(trial_runner, design())
    examples.batch(torch.arange(12)).logits(network)
    examples.batch(torch.tensor([0, 3, 6, 9])).logits(network)
    predict(network, examples)
    assert seen == [4, 4, 8]
    examples.batch(torch.tensor([0, 1, 2])).logits(network)
    assert seen[3:] == [3], "BatchNorm cannot take one picture alone"


def test_what_the_fusion_reads_of_each_sample_is_its_own(trial_runner: QualityEvaluator) -> None:
    network, examples = trial_runner.trainer.untrained(design()).eval(), raw(trial_runner, design())
    in_order = predict(network, examples)
    torch.testing.assert_close(in_order, one_by_one(network, examples), atol=1e-5, rtol=1e-4)


class Grouped(Line):
    """Samples of which some share a picture."""

    def __init__(self, groups: list[int], lengths: list[int] | None) -> None:
        super().__init__(len(groups))
        self.groups = torch.tensor(groups)
        self.lengths = None if lengths is None else torch.tensor(lengths)


@st.composite
def grouped(draw: st.DrawFn) -> Grouped:
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=40))
    groups = draw(st.permutations([g for g, size in enumerate(sizes) for _ in range(size)]))
    lengths = st.lists(st.integers(1, 9), min_size=len(groups), max_size=len(groups))
    return Grouped(groups, draw(st.none() | lengths))


def runs(order: Tensor, groups: Tensor) -> int:
    """How many stretches of one group follow each other."""
    return len(torch.unique_consecutive(groups[order]))


@given(grouped(), st.integers(2, 40), st.integers(0, 99))
def test_batches_hold_every_sample_once_and_those_of_a_picture_together(
    examples: Grouped, size: int, seed: int
) -> None:
    assert examples.groups is not None
    batches = list(shuffled_batches(examples, size, torch.Generator().manual_seed(seed)))
    held = [k for batch in batches for k in batch.tolist()]
    assert len(held) == len(set(held)) >= len(examples.labels) - 1
    assert all(2 <= len(batch) <= size for batch in batches)
    if size >= LEAST_PICTURES * int(examples.groups.bincount().max()):
        pictures = [set(examples.groups[batch].tolist()) for batch in batches]
        cut = sum(map(len, pictures)) - len(set().union(*pictures))
        assert cut <= len(batches), "a picture is cut at most where a batch ends"


@given(grouped())
def test_a_look_at_all_keeps_pictures_together(examples: Grouped) -> None:
    assert examples.groups is not None
    order = by_length(examples)
    assert sorted(order.tolist()) == list(range(len(examples.labels)))
    assert runs(order, examples.groups) == len(set(examples.groups.tolist()))


def test_training_whole_on_shared_pictures_gives_the_same_again(
    data: DataSet, tmp_path: Path
) -> None:
    asked = design("cross-attention")
    first, again = (quality(data, tmp_path / name, BY_STAGE) for name in ("a", "b"))
    assert first.trainer.plan.fidelity(asked) == "whole network"
    assert first.evaluate(asked).measures == again.evaluate(asked).measures
    ours, theirs = (nn.Module.state_dict(each.trainer.trained(asked)) for each in (first, again))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
