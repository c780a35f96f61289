"""The shapes set: what it says of its pictures is right, and neither alone tells what is true."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from evaluators.data import (
    BUILT_IN,
    FACES,
    SPLITS,
    DataSet,
    Split,
    faces_folder,
    load,
    shapes_data,
    shapes_folder,
)
from evaluators.data.folds import fold
from evaluators.data.generative.statements import SIDE, TOPICS, ceilings, draw, outcomes
from evaluators.data.synthetic.shape_set import shapes as shapes_module
from evaluators.data.synthetic.shape_set.pictures import PAINTS, SIZE
from studies.config.options import DataOptions, Preset
from studies.config.settings import Settings
from studies.config.usage import UsageError

SMALL: Mapping[Split, int] = {"train": 200, "valid": 40, "test": 60}
COUNTED = {"circle", "square", "triangle"}

Thing = tuple[str, str, int, int]
"""Colour, shape, column, row, as `scenes.csv` has them."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds a small set."""
    cache = tmp_path_factory.mktemp("shapes")
    with pytest.MonkeyPatch.context() as patched:
        small(cache, patched)
    return cache


@pytest.fixture(scope="module")
def data(cache: Path) -> DataSet:
    return shapes_data(cache)


def small(cache: Path, monkeypatch: pytest.MonkeyPatch, seed: int = 0) -> DataSet:
    monkeypatch.setattr(shapes_module, "PICTURES", SMALL)
    return shapes_data(cache, seed)


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def is_true(text: str, things: Sequence[Thing]) -> bool:
    """Whether a statement holds, read word by word and looked up in the scene."""
    colours = [thing[0] for thing in things]
    match text.split():
        case ["something", colour]:
            return colour in colours
        case ["a", shape] if shape in COUNTED:
            return shape in [thing[1] for thing in things]
        case ["a", colour, shape]:
            return (colour, shape) in [thing[:2] for thing in things]
        case ["two", colour, "shapes"]:
            return colours.count(colour) == 2
        case [first, *way, second]:
            assert colours.count(first) == colours.count(second) == 1
            (_, _, x, y), (_, _, to_x, to_y) = (things[colours.index(c)] for c in (first, second))
            return {
                "left of": x < to_x,
                "right of": x > to_x,
                "above": y < to_y,
                "below": y > to_y,
            }[" ".join(way)]
    raise AssertionError(text)


def test_every_statement_is_right_about_its_scene(cache: Path, data: DataSet) -> None:
    scenes: dict[str, list[Thing]] = defaultdict(list)
    for row in table(shapes_folder(cache), "scenes.csv"):
        place = int(row["column"]), int(row["row"])
        scenes[row["image"]].append((row["colour"], row["shape"], *place))
    assert data.classes == ("false", "true") and len(scenes) == 300
    for sample in data.samples:
        assert is_true(sample.text, scenes[sample.group]) == bool(sample.label), sample


def test_every_picture_shows_its_scene(cache: Path, data: DataSet) -> None:
    shown = defaultdict(dict)
    for row in table(shapes_folder(cache), "scenes.csv"):
        shown[row["image"]][int(row["column"]), int(row["row"])] = row["colour"]
    cell = SIZE // SIDE
    for sample in data.samples[:200:2]:
        pixels = load_picture(sample.picture)
        for column in range(SIDE):
            for down in range(SIDE):
                y, x = down * cell + cell // 2, column * cell + cell // 2
                middle = np.median(pixels[y - 3 : y + 4, x - 3 : x + 4], axis=(0, 1))
                colour = shown[sample.group].get((column, down))
                if colour is None:
                    assert np.ptp(middle) < 40
                else:
                    assert nearest_paint(middle) == colour


def load_picture(path: Path) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB")).astype(float)


def nearest_paint(pixel: np.ndarray) -> str:
    """By direction in RGB, as light makes colours darker or brighter."""
    unit = pixel / np.linalg.norm(pixel)
    paints = {name: np.array(paint) / np.linalg.norm(paint) for name, paint in PAINTS.items()}
    return max(paints, key=lambda name: unit @ paints[name])


def test_every_picture_has_one_true_and_one_false_statement_of_one_topic(
    cache: Path, data: DataSet
) -> None:
    told = defaultdict(list)
    for row in table(shapes_folder(cache), "label.csv"):
        told[row["image"], row["mode"], row["topic"]].append(row["label"])
    assert all(sorted(labels) == ["false", "true"] for labels in told.values())
    assert len(told) == 300
    for split in SPLITS:
        assert data.counts(split) == (SMALL[split], SMALL[split])


@pytest.mark.parametrize("split", SPLITS)
def test_every_statement_is_true_as_often_as_false_give_or_take_one(
    data: DataSet, split: Split
) -> None:
    lead: Counter[str] = Counter()
    for sample in data.split(split):
        lead[sample.text] += 2 * sample.label - 1
    assert max(map(abs, lead.values())) <= 1


def test_whatever_is_named_is_true_as_often_as_false() -> None:
    true, false = (Counter[str](), Counter[str]())
    for one in draw(np.random.default_rng(0), 3000):
        for answer, text in one.said.items():
            named = [one.topic, *(f"{one.topic} {word}" for word in text.split())]
            (true if answer else false).update(named)
    assert {"colour red", "shape circle", "thing blue", "count green", "relation left"} <= set(true)
    for name, count in true.items():
        assert abs(count - false[name]) <= 0.05 * count + 2, name
    assert all(true[topic] == false[topic] for topic in TOPICS)


def test_topics_come_by_their_shares() -> None:
    shown = draw(np.random.default_rng(0), 1000)
    found = Counter(one.topic for one in shown)
    assert all(abs(found[topic] - 10 * share) <= 1 for topic, share in TOPICS.items())
    assert sum(TOPICS.values()) == 100


def test_the_table_adds_up_to_one_and_gives_the_ceilings(data: DataSet) -> None:
    assert sum((outcome.chance for outcome in outcomes()), Fraction(0)) == 1
    assert ceilings() == data.ceilings == {"text": 0.5, "vision": 0.5, "both": 1.0}


def test_a_simulation_reaches_the_ceilings_and_no_more() -> None:
    """Whoever has seen 16,000 statements guesses 8,000 others no better than a coin."""
    seen, new = draw(np.random.default_rng(1), 8000), draw(np.random.default_rng(2), 4000)
    lead: Counter[str] = Counter()
    for one in seen:
        lead[one.said[True]] += 1
        lead[one.said[False]] -= 1
    right = [true == (lead[text] > 0) for one in new for true, text in one.said.items()]
    assert abs(np.mean(right) - ceilings()["text"]) < 0.02
    # A picture's two statements get one answer from whoever sees the picture alone.
    assert {sum(true for true in one.said) for one in new} == {1}
    things = [[(t.colour, t.shape, t.column, t.row) for t in one.scene] for one in new]
    assert all(
        is_true(text, scene) == true
        for one, scene in zip(new, things, strict=True)
        for true, text in one.said.items()
    )


def test_scenes_are_as_varied_as_the_table_has_them() -> None:
    """Cells, shapes and the number of colours of scenes come as if all were equally likely."""
    shown = [one.scene for one in draw(np.random.default_rng(3), 6000)]
    cells = Counter((t.column, t.row) for scene in shown for t in scene)
    forms = Counter(t.shape for scene in shown for t in scene)
    assert len(cells) == SIDE * SIDE
    assert all(abs(n / 18000 - 1 / 9) < 0.01 for n in cells.values())
    assert all(abs(n / 18000 - 1 / 3) < 0.015 for n in forms.values())
    assert all(len({(t.column, t.row) for t in scene}) == 3 for scene in shown)


def test_it_says_that_it_is_drawn_and_what_it_is_not(data: DataSet, cache: Path) -> None:
    assert data.kind == "shapes"
    assert "Synthetic data" in data.note and "say nothing about real data" in data.note
    assert load(shapes_folder(cache), cache=cache) == data


def test_no_picture_is_in_two_splits_or_two_parts_of_a_cut(data: DataSet) -> None:
    assert sum(len(data.groups(split)) for split in SPLITS) == 300
    cut = fold(data, 0, 5)
    assert sum(len(cut.groups(split)) for split in SPLITS) == 240
    assert all(len(cut.split(split)) == 2 * len(cut.groups(split)) for split in SPLITS)


def test_the_same_seed_draws_the_same_set(
    tmp_path: Path, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert small(tmp_path, monkeypatch).fingerprint == data.fingerprint
    assert small(tmp_path, monkeypatch, seed=1).fingerprint != data.fingerprint
    with pytest.raises(ValueError, match="seed -1 is negative"):
        shapes_data(tmp_path, -1)


def test_a_set_that_lost_a_picture_is_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = small(tmp_path, monkeypatch)
    data.samples[0].picture.unlink()
    assert shapes_data(tmp_path) == data


def test_an_interrupted_drawing_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shapes_module, "draw_picture", interrupted)
        with pytest.raises(KeyboardInterrupt):
            small(tmp_path, monkeypatch)
    assert not [path for path in (tmp_path / "shapes").iterdir() if path.is_dir()]


def settings(data: str | None) -> Settings:
    return Settings(Preset("pareto"), data=DataOptions(data))


def test_built_in_sets_have_names_and_the_faces_are_the_default(tmp_path: Path) -> None:
    assert tuple(BUILT_IN) == ("built-in:faces", "built-in:shapes")
    assert (
        settings(None).data.built_in is settings(FACES).data.built_in is BUILT_IN["built-in:faces"]
    )
    assert settings("built-in:shapes").data.built_in is BUILT_IN["built-in:shapes"]
    assert settings(str(tmp_path)).data.built_in is None
    assert BUILT_IN[FACES].folder(tmp_path) == faces_folder(tmp_path)


@pytest.mark.parametrize("name", ["built-in:houses", "built-in:", "shapes"])
def test_other_names_are_refused_in_one_line_that_names_those_there_are(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        settings(name)
    said = str(refused.value)
    assert name in said and "built-in:faces, built-in:shapes" in said and "\n" not in said
