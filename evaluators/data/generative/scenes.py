"""What the faces set means: one small probability table, and what can be known from it.

Every clip is a scene: what is meant, what the words seem to say, what the face shows. Five kinds:

- agree: words and face both tell;
- words: only the words tell, the face is still;
- face: only the face tells, the words say nothing either way;
- irony: a smirk under one raised brow turns the words into their opposite;
- nothing: neither tells; the score is 0.

In one scene of twenty the label is the opposite of what is meant (label noise). Words and face
show a scene's `Words` and `Face` in full, so the best possible accuracy from either, and from
both, follows from the table alone, by adding over all of its outcomes in exact fractions.

Where the scenes are heard too, a voice adds a `Tone`. It is drawn given the label after noise, and
given the label it is independent of words and face: by `TONES` it fits the label in 64 % of the
scenes, contradicts it in 16 % and is neutral in the others. So it also tells what neither words
nor face can, that a label is noise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import numpy as np

Expression = Literal["smile", "frown", "still", "smirk"]

NEGATIVE, NON_NEGATIVE = 0, 1
_PERCENT = Fraction(1, 100)


@dataclass(frozen=True)
class Words:
    """What the words seem to say: polarity -1, 0 or 1; strength 1..3, and 0 with polarity 0."""

    polarity: int
    strength: int


@dataclass(frozen=True)
class Face:
    """What the face shows; strength 1..2 for smile and frown, 0 for the others."""

    expression: Expression
    strength: int


@dataclass(frozen=True)
class Tone:
    """How the voice sounds: polarity -1, 0 or 1; strength 1..2, and 0 with polarity 0."""

    polarity: int
    strength: int


@dataclass(frozen=True)
class Scene:
    """One outcome of the table; `label` is the class index after label noise.

    tone: None where the scene is not heard.
    """

    kind: str
    words: Words
    face: Face
    flipped: bool
    label: int
    tone: Tone | None = None


KINDS: Mapping[str, tuple[int, int]] = {
    # kind: (share in percent, percent of it that is meant negatively)
    "agree": (31, 50),
    "words": (43, 50),
    "face": (11, 50),
    "irony": (12, 60),
    "nothing": (3, 0),
}
WORD_STRENGTHS: Mapping[int, int] = {1: 30, 2: 45, 3: 25}
FACE_STRENGTHS: Mapping[int, int] = {1: 50, 2: 50}
FLIPPED_PERCENT = 5
TONES: Mapping[tuple[int, int], int] = {
    # (1 as the label says, -1 against it; strength): percent of the scenes of a label
    (1, 2): 45,
    (1, 1): 19,
    (0, 0): 20,
    (-1, 1): 15,
    (-1, 2): 1,
}

View = Callable[[Scene], Hashable]
VIEWS: Mapping[str, View] = {
    "text": lambda scene: scene.words,
    "vision": lambda scene: scene.face,
    "both": lambda scene: (scene.words, scene.face),
}
HEARD_VIEWS: Mapping[str, View] = {
    **VIEWS,
    "audio": lambda scene: scene.tone,
    "all": lambda scene: (scene.words, scene.face, scene.tone),
}


def outcomes() -> Iterator[tuple[Fraction, Scene]]:
    """Every scene there can be, once, with its probability; these add up to 1."""
    for kind, (share, negative) in KINDS.items():
        for meaning, part in ((-1, negative), (1, 100 - negative)):
            for words, words_part in _words(kind, meaning):
                for face, face_part in _faces(kind, meaning):
                    for flipped in (False, True):
                        noise = FLIPPED_PERCENT if flipped else 100 - FLIPPED_PERCENT
                        chance = share * part * words_part * face_part * noise * _PERCENT**5
                        label = NEGATIVE if (meaning < 0) != flipped else NON_NEGATIVE
                        if chance:
                            yield chance, Scene(kind, words, face, flipped, label)


def heard_outcomes() -> Iterator[tuple[Fraction, Scene]]:
    """Every scene with every tone there can be, once, with its probability; they add up to 1."""
    for chance, scene in outcomes():
        for tone, percent in _tones(scene.label):
            yield chance * percent * _PERCENT, replace(scene, tone=tone)


def _tones(label: int) -> list[tuple[Tone, int]]:
    said = -1 if label == NEGATIVE else 1
    return [(Tone(said * fits, strength), part) for (fits, strength), part in TONES.items()]


def _words(kind: str, meaning: int) -> list[tuple[Words, int]]:
    if kind in ("face", "nothing"):
        return [(Words(0, 0), 100)]
    polarity = -meaning if kind == "irony" else meaning
    return [(Words(polarity, strength), part) for strength, part in WORD_STRENGTHS.items()]


def _faces(kind: str, meaning: int) -> list[tuple[Face, int]]:
    if kind == "irony":
        return [(Face("smirk", 0), 100)]
    if kind in ("words", "nothing"):
        return [(Face("still", 0), 100)]
    expression: Expression = "smile" if meaning > 0 else "frown"
    return [(Face(expression, strength), part) for strength, part in FACE_STRENGTHS.items()]


def views(audio: bool) -> Mapping[str, View]:
    """What can be known of a scene, by name; with `audio` also from its voice."""
    return HEARD_VIEWS if audio else VIEWS


def decisions(view: View, audio: bool = False) -> dict[Hashable, int]:
    """The Bayes-optimal class for everything that can be seen, or heard, through `view`."""
    return {
        seen: max(chances, key=lambda label: chances[label])
        for seen, chances in _by_sight(view, audio).items()
    }


def ceilings(audio: bool = False) -> dict[str, float]:
    """The best accuracy that words, face, and both allow: "text", "vision", "both"; exact.

    With `audio` also what the voice allows, "audio", and all three, "all".
    """
    return {
        name: float(sum(max(chances.values()) for chances in _by_sight(view, audio).values()))
        for name, view in views(audio).items()
    }


def _by_sight(view: View, audio: bool) -> dict[Hashable, dict[int, Fraction]]:
    sights: dict[Hashable, dict[int, Fraction]] = defaultdict(
        lambda: {NEGATIVE: Fraction(0), NON_NEGATIVE: Fraction(0)}
    )
    for chance, scene in heard_outcomes() if audio else outcomes():
        sights[view(scene)][scene.label] += chance
    return dict(sights)


def draw(rng: np.random.Generator, count: int) -> list[Scene]:
    """`count` scenes in random order, as near to the table's probabilities as `count` allows.

    One random start, then equal steps through the table (systematic sampling): each scene comes
    as often as expected, up to rounding, so that a split keeps to the stated ceilings.
    """
    table = sorted(outcomes(), key=lambda outcome: outcome[1].flipped)
    edges = np.cumsum([float(chance) for chance, _ in table])
    steps = (np.arange(count) + rng.random()) / count
    picked = np.searchsorted(edges, steps * edges[-1], side="right")
    return [table[index][1] for index in rng.permutation(picked)]


def draw_tones(rng: np.random.Generator, scenes: Sequence[Scene]) -> list[Tone]:
    """A tone for each scene, given its label, in the order of the scenes.

    By systematic sampling among the scenes alike in label and noise, as `draw` does it.
    """
    tones: dict[int, Tone] = {}
    alike: dict[tuple[int, bool], list[int]] = defaultdict(list)
    for index, scene in enumerate(scenes):
        alike[scene.label, scene.flipped].append(index)
    for (label, _), indices in sorted(alike.items()):
        table = _tones(label)
        edges = np.cumsum([percent for _, percent in table]) / 100
        steps = (np.arange(len(indices)) + rng.random()) / len(indices)
        picked = np.searchsorted(edges, steps, side="right")
        tones |= zip(rng.permutation(indices).tolist(), (table[k][0] for k in picked), strict=True)
    return [tones[index] for index in range(len(scenes))]


def score(scene: Scene, rng: np.random.Generator) -> float:
    """A score in -3..3 in steps of 0.2, of the sign of the label, 0 where nothing is told.

    Its size follows the stronger of words and face, give or take 0.4.
    """
    if scene.kind == "nothing":
        return -0.2 * int(rng.integers(1, 4)) if scene.flipped else 0.0
    told = max(scene.words.strength, scene.face.strength)
    fifths = {1: 4, 2: 9, 3: 13}[told] + int(rng.integers(-2, 3))
    size = min(15, max(1, fifths)) / 5
    return -size if scene.label == NEGATIVE else size
