"""Corruptions spoil what they are told to, the same sample alike, and more with severity."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import write_data

from evaluators.data import DataError, DataSet, load, read_image
from evaluators.data.folds import fold
from evaluators.features.corruptions import (
    CORRUPTIONS,
    MOST_SEVERE,
    corrupt_picture,
    corrupt_text,
    corrupted,
    generator,
    names,
    read_picture,
)

SEVERITIES = range(1, MOST_SEVERE + 1)
TEXT = "the quick brown fox jumps over the lazy dog while seven wizards mix a potion"


def picture(side: int = 64, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A smooth and a rough half: something to lose for every corruption."""
    rng = np.random.default_rng(seed)
    pixels = np.linspace(60, 250, side)[None, :, None] * np.ones((side, 1, 3))
    pixels[: side // 2] += rng.normal(0, 40, (side // 2, side, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def distance(a: str, b: str) -> int:
    """Levenshtein's, by letters."""
    row = list(range(len(b) + 1))
    for i, one in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (one != other))
    return row[-1]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    folder = tmp_path_factory.mktemp("corrupted")
    return load(write_data(folder / "data"), cache=folder / "cache")


def test_the_seven_corruptions_say_what_their_levels_mean() -> None:
    assert names("vision") == ("blur", "occlusion", "jpeg", "dark")
    assert names("text") == ("dropped-words", "swapped-words", "misspelt-words")
    assert all(found.means and len(found.levels) == MOST_SEVERE for found in CORRUPTIONS.values())


@pytest.mark.parametrize("name", names("vision"))
def test_pictures_change_more_with_every_severity(name: str) -> None:
    whole = picture()

    def change(severity: int, k: int) -> float:
        found = corrupt_picture(whole, name, severity, generator(str(k), name, 0))
        return float(np.abs(found.astype(int) - whole).mean())

    assert_growing([np.mean([change(s, k) for k in range(20)]) for s in (0, *SEVERITIES)])


@pytest.mark.parametrize("name", names("text"))
def test_texts_change_more_with_every_severity(name: str) -> None:
    def change(severity: int, k: int) -> int:
        return distance(TEXT, corrupt_text(TEXT, name, severity, generator(str(k), name, 0)))

    assert_growing([np.mean([change(s, k) for k in range(60)]) for s in (0, *SEVERITIES)])


def assert_growing(changes: Sequence[float]) -> None:
    assert changes[0] == 0
    assert all(more > less for less, more in pairwise(changes)), changes


def test_levels_are_what_is_done() -> None:
    grey = np.full((60, 80, 3), 200, np.uint8)
    words = [f"word{chr(97 + k % 26)}" for k in range(2000)]
    for s in SEVERITIES:
        hidden = corrupt_picture(grey, "occlusion", s, np.random.default_rng(s))
        share = (hidden != 200).any(2).mean()
        assert share == pytest.approx(CORRUPTIONS["occlusion"].levels[s - 1], abs=0.02)
        dark = corrupt_picture(grey, "dark", s, np.random.default_rng(0))
        assert (dark == round(200 * CORRUPTIONS["dark"].levels[s - 1])).all()
        left = corrupt_text(" ".join(words), "dropped-words", s, np.random.default_rng(s)).split()
        dropped = 1 - len(left) / len(words)
        assert dropped == pytest.approx(CORRUPTIONS["dropped-words"].levels[s - 1], abs=0.04)
        spelt = corrupt_text("letters" * 400, "misspelt-words", s, np.random.default_rng(s))
        changed = distance("letters" * 40, spelt[:280]) / 280
        assert changed == pytest.approx(CORRUPTIONS["misspelt-words"].levels[s - 1], abs=0.07)


def test_swapped_words_are_the_same_words() -> None:
    for s in SEVERITIES:
        found = corrupt_text(TEXT, "swapped-words", s, np.random.default_rng(s))
        assert sorted(found.split()) == sorted(TEXT.split())


def test_a_higher_severity_spoils_the_same_places() -> None:
    whole = picture()
    for k in range(20):
        hidden = [
            corrupt_picture(whole * 0, "occlusion", s, generator(str(k), "occlusion", 0))
            for s in SEVERITIES
        ]
        kept = [
            corrupt_text(TEXT, "dropped-words", s, generator(str(k), "dropped-words", 0)).split()
            for s in SEVERITIES
        ]
        for less, more in pairwise(hidden):
            assert (more >= less).all()
        for more, less in pairwise(kept):
            assert set(less) <= set(more)


@given(st.text(max_size=40), st.sampled_from(names("text")), st.integers(0, 5), st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_no_text_is_too_odd_or_loses_all_its_words(
    text: str, name: str, severity: int, seed: int
) -> None:
    found = corrupt_text(text, name, severity, np.random.default_rng(seed))
    assert bool(found.split()) == bool(text.split())
    if severity == 0:
        assert found == text


def test_one_word_is_neither_dropped_nor_swapped() -> None:
    for name in ("dropped-words", "swapped-words"):
        assert corrupt_text("alone", name, MOST_SEVERE, np.random.default_rng(0)) == "alone"
    assert corrupt_text("", "misspelt-words", 5, np.random.default_rng(0)) == ""


@pytest.mark.parametrize("name", names("vision"))
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 3), (300, 2, 3)])
def test_no_picture_is_too_small(name: str, shape: tuple[int, int, int]) -> None:
    whole = np.full(shape, 90, np.uint8)
    for severity in (0, *SEVERITIES):
        found = corrupt_picture(whole, name, severity, np.random.default_rng(severity))
        assert found.shape == shape and found.dtype == np.uint8
    assert (whole == 90).all()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_sample_is_spoilt_alike_everywhere(data: DataSet, name: str) -> None:
    first, second = (corrupted(data, name, 3) for _ in range(2))
    other = corrupted(data, name, 3, seed=1)
    assert first == second and first.fingerprint != other.fingerprint
    for a, b in zip(first.split("test"), second.split("test"), strict=True):
        assert a.text == b.text
        assert (read_picture(a, 24) == read_picture(b, 24)).all()


def test_only_the_split_that_is_named_is_spoilt(data: DataSet) -> None:
    for name, found in CORRUPTIONS.items():
        changed = corrupted(data, name, MOST_SEVERE, split="valid")
        assert changed.split("train") == data.split("train")
        assert changed.split("test") == data.split("test")
        assert changed.split("valid") != data.split("valid")
        assert [s.id for s in changed.samples] == [s.id for s in data.samples]
        assert [s.label for s in changed.samples] == [s.label for s in data.samples]
        assert name in changed.note and "severity 5" in changed.note
        differs = [
            (read_picture(a, 32) != read_picture(b, 32)).any()
            for a, b in zip(changed.split("valid"), data.split("valid"), strict=True)
        ]
        assert all(differs) if found.modality == "vision" else not any(differs)


def test_fingerprints_tell_corruption_severity_seed_and_split(data: DataSet) -> None:
    found = {
        corrupted(data, name, severity, seed, split).contents  # type: ignore[arg-type]
        for name in CORRUPTIONS
        for severity in SEVERITIES
        for seed in (0, 1)
        for split in ("valid", "test")
    }
    assert len(found) == 7 * 5 * 2 * 2 and data.contents not in found
    assert corrupted(data, "blur", 0) == data
    both = [corrupted(corrupted(data, a, 2), b, 2) for a, b in (("blur", "dark"), ("dark", "blur"))]
    assert both[0].contents != both[1].contents
    assert len(both[0].split("test")[0].damages) == 2


def test_what_is_spoilt_of_a_fold_is_not_another_folds(data: DataSet) -> None:
    parts = [corrupted(fold(data, k, 4), "blur", 2) for k in range(2)]
    assert parts[0].cut_from and parts[0].contents != parts[1].contents
    assert fold(data, 0, 4).contents == fold(data, 1, 4).contents == data.contents


def test_pictures_are_spoilt_before_they_are_resized(data: DataSet) -> None:
    (sample, *_) = corrupted(data, "dark", 5).split("test")
    whole = read_image(sample.picture, 32)
    assert read_picture(sample, 32) == pytest.approx(whole * 0.08, abs=1)
    assert read_picture(replace(sample, damages=()), 32) == pytest.approx(whole)


def test_jpeg_is_what_pillow_makes_of_it() -> None:
    whole, packed = picture(), io.BytesIO()
    Image.fromarray(whole).save(packed, "JPEG", quality=10)
    found = corrupt_picture(whole, "jpeg", 3, np.random.default_rng(0))
    assert (found == np.asarray(Image.open(packed))).all()


def test_unknown_names_and_severities_are_refused_in_one_line(
    data: DataSet, tmp_path: Path
) -> None:
    for call, said in (
        (lambda: corrupted(data, "fog", 1), "corruption 'fog': choose one of blur, occlusion"),
        (lambda: corrupted(data, "blur", 6), "severity 6 of blur: give 0 to 5"),
        (lambda: corrupt_text("a", "blur", 1, np.random.default_rng(0)), "choose one of dropped-"),
        (lambda: corrupt_picture(picture(), "dropped-words", 1, np.random.default_rng(0)), "blur"),
    ):
        with pytest.raises(ValueError, match=said) as raised:
            call()
        assert "\n" not in str(raised.value)
    texts = load(write_data(tmp_path / "data"), cache=tmp_path, modalities=("text",))
    assert corrupted(texts, "dropped-words", 1).fingerprint != texts.fingerprint
    with pytest.raises(DataError, match="blur spoils pictures, and the data were read without"):
        corrupted(texts, "blur", 1)
