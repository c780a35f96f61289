"""What the shapes set says: scenes of three coloured shapes, and statements about them.

Every picture comes with one statement that is true of it and one that is false, of one topic:

- colour: a colour is there;
- shape: a shape is there;
- thing: a shape of a colour is there;
- count: exactly two shapes are of a colour, and one or three of it are there in any case;
- relation: the one shape of a colour lies left of, right of, above or below that of another.

Scenes are uniform among those of which the topic has both a true and a false statement, and so are
statements among those that fit. So no picture alone tells what is true, and no statement alone
does, as colours, shapes and directions can be exchanged for each other: `ceilings` adds that up
over the whole table, in exact fractions.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import combinations, permutations, product
from typing import Literal, get_args

import numpy as np

Colour = Literal["red", "green", "blue", "yellow"]
Shape = Literal["circle", "square", "triangle"]
Topic = Literal["colour", "shape", "thing", "count", "relation"]
COLOURS: tuple[Colour, ...] = get_args(Colour)
SHAPES: tuple[Shape, ...] = get_args(Shape)
THINGS, SIDE = 3, 3
"""Shapes in a picture; cells in a row, and in a column, of the grid that they lie in."""

TOPICS: Mapping[Topic, int] = {"colour": 40, "shape": 20, "thing": 20, "count": 8, "relation": 12}
"""Share of the pictures that statements of a topic are about, in percent."""
WORDINGS: Mapping[Topic, str] = {
    "colour": "something {0}",
    "shape": "a {0}",
    "thing": "a {0} {1}",
    "count": "two {0} shapes",
    "relation": "{0} {1} {2}",
}
"""Short: of a long sentence the small trunks learn next to nothing in minutes."""
DIRECTIONS: Mapping[str, tuple[int, int]] = {
    "left of": (-1, 0),
    "right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}
"""The way from the second shape to the first: across and down."""
_CELLS = tuple((k % SIDE, k // SIDE) for k in range(SIDE * SIDE))


@dataclass(frozen=True)
class Thing:
    """One shape and its cell: column and row, counted from 0 at the upper left."""

    colour: Colour
    shape: Shape
    column: int
    row: int


Scene = tuple[Thing, ...]
Names = tuple[str, ...]
"""What a statement names, in the order of its wording."""


@dataclass(frozen=True)
class Shown:
    """A scene, and what is said of it: by whether it is true."""

    topic: Topic
    scene: Scene
    said: Mapping[bool, str]


def facts(topic: Topic, scene: Scene) -> list[tuple[Names, bool]]:
    """All that statements of a topic can name of a scene, and whether each is true."""
    colours = [thing.colour for thing in scene]
    shapes = [thing.shape for thing in scene]
    if topic == "colour":
        return [((colour,), colour in colours) for colour in COLOURS]
    if topic == "shape":
        return [((shape,), shape in shapes) for shape in SHAPES]
    if topic == "thing":
        there = set(zip(colours, shapes, strict=True))
        return [(pair, pair in there) for pair in product(COLOURS, SHAPES)]
    if topic == "count":
        return [((c,), colours.count(c) == 2) for c in COLOURS if c in colours]
    return _relations([thing for thing in scene if colours.count(thing.colour) == 1])


def _relations(things: Sequence[Thing]) -> list[tuple[Names, bool]]:
    """Of two things in one row neither is said to lie above or below the other; columns alike."""
    found: list[tuple[Names, bool]] = []
    for one, other in permutations(things, 2):
        for direction, (across, down) in DIRECTIONS.items():
            way = across * (one.column - other.column) + down * (one.row - other.row)
            if way:
                found.append(((one.colour, direction, other.colour), way > 0))
    return found


def _fitting(topic: Topic, scene: Scene, true: bool) -> list[Names]:
    return [names for names, holds in facts(topic, scene) if holds == true]


def _tells(topic: Topic, scene: Scene) -> bool:
    """Whether the topic has a true and a false statement of the scene."""
    return len({holds for _, holds in facts(topic, scene)}) == 2


def draw(rng: np.random.Generator, count: int) -> list[Shown]:
    """`count` scenes with their statements; topics come by their shares, up to rounding.

    Each statement is true as often as false, give or take one: of those that fit a scene the one
    that lags most is taken, and a scene that only others fit is drawn again.
    """
    edges = np.cumsum(list(TOPICS.values())) / 100
    picked = np.searchsorted(edges, (np.arange(count) + rng.random()) / count, side="right")
    topics, lead = list(TOPICS), Counter[str]()
    return [_shown(topics[index], lead, rng) for index in rng.permutation(picked)]


def _shown(topic: Topic, lead: Counter[str], rng: np.random.Generator) -> Shown:
    """`lead` counts how much more often each statement was true than false."""
    while True:
        scene = _scene(rng)
        if not _tells(topic, scene):
            continue
        said = {True: _lagging(topic, scene, 1, lead, rng)}
        said[False] = _lagging(topic, scene, -1, lead, rng)
        if lead[said[True]] <= 0 <= lead[said[False]]:
            lead[said[True]] += 1
            lead[said[False]] -= 1
            return Shown(topic, scene, said)


def _lagging(
    topic: Topic, scene: Scene, sign: int, lead: Counter[str], rng: np.random.Generator
) -> str:
    """Of the true statements (sign 1) or the false ones (-1) the one that is furthest behind."""
    texts = [WORDINGS[topic].format(*names) for names in _fitting(topic, scene, sign > 0)]
    order: list[int] = rng.permutation(len(texts)).tolist()
    return texts[min(order, key=lambda k: sign * lead[texts[k]])]


def _scene(rng: np.random.Generator) -> Scene:
    cells = rng.choice(len(_CELLS), THINGS, replace=False)
    colours = rng.integers(len(COLOURS), size=THINGS)
    shapes = rng.integers(len(SHAPES), size=THINGS)
    return tuple(
        Thing(COLOURS[colour], SHAPES[shape], *_CELLS[cell])
        for cell, colour, shape in zip(cells, colours, shapes, strict=True)
    )


@dataclass(frozen=True)
class Outcome:
    """One statement about one scene, with its probability."""

    chance: Fraction
    statement: tuple[Topic, Names]
    scene: tuple[Topic, int]
    """The scene's number among those of its topic."""
    true: bool


def outcomes() -> Iterator[Outcome]:
    """All that can be shown and said, once; the probabilities add up to 1.

    Of a scene there stands what its topic looks at, so that the table stays short. That tells more
    than a picture does, which leaves the topic open.
    """
    for topic, share in TOPICS.items():
        scenes = [scene for scene in _scenes(topic) if _tells(topic, scene)]
        for number, scene in enumerate(scenes):
            for true in (False, True):
                fitting = _fitting(topic, scene, true)
                chance = Fraction(share, 100 * 2 * len(scenes) * len(fitting))
                for names in fitting:
                    yield Outcome(chance, (topic, names), (topic, number), true)


def _scenes(topic: Topic) -> Iterator[Scene]:
    """All scenes, all equally likely, alike in what the topic does not look at.

    Things may change places with each other, so each set of cells stands once.
    """
    cells = combinations(_CELLS, THINGS) if topic == "relation" else [_CELLS[:THINGS]]
    colours = [COLOURS[:1]] * THINGS if topic == "shape" else [COLOURS] * THINGS
    shapes = [SHAPES if topic in ("shape", "thing") else SHAPES[:1]] * THINGS
    for places, paints, forms in product(cells, product(*colours), product(*shapes)):
        yield tuple(map(lambda c, s, cell: Thing(c, s, *cell), paints, forms, places))


@cache
def ceilings() -> Mapping[str, float]:
    """The best accuracy that statement, picture, and both allow: "text", "vision", "both"."""
    views: dict[str, dict[Hashable, list[Fraction]]] = {
        name: defaultdict(lambda: [Fraction(0), Fraction(0)]) for name in ("text", "vision", "both")
    }
    for outcome in outcomes():
        for name, seen in (
            ("text", outcome.statement),
            ("vision", outcome.scene),
            ("both", (outcome.statement, outcome.scene)),
        ):
            views[name][seen][outcome.true] += outcome.chance
    return {name: float(sum(map(max, table.values()))) for name, table in views.items()}
