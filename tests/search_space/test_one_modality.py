"""Search spaces over encoders of one modality alone."""

import random
from pathlib import Path

import pytest
import torch
from tiny import SPACE, tiny_space

from search_space.network.network import build
from search_space.space.named import SpaceError, load_space
from search_space.space.paper import seeded_designs
from search_space.space.space import SearchSpace

TEXT = SPACE[: SPACE.index("[[vision_encoder]]")]
VISION = SPACE[: SPACE.index("[[text_encoder]]")] + SPACE[SPACE.index("[[vision_encoder]]") :]


def without(folder: Path, modality: str) -> SearchSpace:
    text = TEXT if modality == "vision" else VISION
    return tiny_space(folder, text.replace("\n", f"\n{modality}_encoder = []\n", 1))


@pytest.mark.parametrize("absent", ["text", "vision"])
def test_nothing_is_asked_about_the_other_modality_or_about_fusing(
    tmp_path: Path, absent: str
) -> None:
    asked = [decision.name for decision in without(tmp_path, absent).decisions]
    present = {"text": "vision", "vision": "text"}[absent]
    assert f"{present}_encoder" in asked and f"{present}_tap_2" in asked and "width_1" in asked
    assert not [name for name in asked if name.startswith((absent, "operator", "attention_over"))]


@pytest.mark.parametrize("absent", ["text", "vision"])
def test_every_draw_can_be_built_and_reads_back(tmp_path: Path, absent: str) -> None:
    space = without(tmp_path, absent)
    rng = random.Random(0)
    for _ in range(200):
        vector = [rng.choice(decision.choices) for decision in space.decisions]
        design = space.decode(vector)
        assert not space.violations(design) and space.holds(design)
        assert space.decode(space.encode(design)) == design


def test_a_draw_runs(tmp_path: Path) -> None:
    space = without(tmp_path, "vision")
    rng = random.Random(1)
    encoders = {spec.name: spec for spec in space.encoders}
    ids = torch.randint(1, 60, (2, 16))
    for _ in range(10):
        network = build(space.sample(rng), encoders, space.shapes, 2)
        assert network(ids, torch.ones_like(ids)).shape == (2, 2)


def test_fused_designs_do_not_belong_and_text_only_is_the_one_that_does(tmp_path: Path) -> None:
    fused = tiny_space(tmp_path)
    texts = load_space(str(tmp_path / "tiny-space.toml"), modalities=("text",))
    assert texts.vision_encoders == () and texts.text_encoders == fused.text_encoders
    assert [seeded.name for seeded in seeded_designs(texts)] == ["text-only"]
    assert texts.holds(seeded_designs(texts)[0].genotype)
    design = fused.sample(random.Random(0))
    assert fused.holds(design) and not texts.holds(design)
    with pytest.raises(ValueError, match="is a reference, not a point of space tiny"):
        texts.encode(design)


def test_a_space_needs_an_encoder(tmp_path: Path) -> None:
    neither = 'name = "none"\ntext_encoder = []\nvision_encoder = []\n'
    empty = neither + TEXT[TEXT.index("text_tokens") : TEXT.index("[[text_encoder]]")]
    with pytest.raises(SpaceError, match="all empty: give at least one encoder"):
        tiny_space(tmp_path, empty)
    without(tmp_path, "text")
    with pytest.raises(SpaceError, match="has no text encoder"):
        load_space(str(tmp_path / "tiny-space.toml"), modalities=("text",))
