"""Faces for the faces set: a speaker, an expression, 96x96 pixels.

The face is drawn in its own coordinates (x, y from -1 to 1 over the head, y down), mapped to
pixels by the speaker's head and a small movement per clip, at three times the size and then
reduced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evaluators.data.generative.scenes import Face

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

SIZE = 96
_ZOOM = 3

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]

SKINS: tuple[Colour, ...] = (
    (248, 219, 196),
    (236, 194, 160),
    (219, 168, 128),
    (190, 137, 98),
    (150, 103, 72),
    (112, 76, 54),
)
HAIRS: tuple[Colour, ...] = (
    (24, 20, 20),
    (58, 38, 26),
    (104, 66, 36),
    (176, 128, 66),
    (148, 60, 30),
    (150, 148, 146),
)
STYLES = ("short", "long", "fringe", "bun", "bald")
_LIPS: Colour = (120, 24, 36)
_WHITE: Colour = (250, 248, 244)
_DARK: Colour = (28, 20, 20)


@dataclass(frozen=True)
class Speaker:
    """What stays the same over the clips of one video. Lengths in pixels of the 96."""

    skin: Colour
    hair: Colour
    style: str
    background: Colour
    shirt: Colour
    centre: tuple[float, float]
    half_width: float
    half_height: float
    glasses: bool
    gain: float
    """Brightness of the light, 1 as painted."""
    slant: float
    """How much brighter the right edge is than the left one, as a part of the gain."""
    noise: float
    """Standard deviation of the camera's noise, in grey levels of 255."""


def speaker(rng: np.random.Generator) -> Speaker:
    """A new speaker."""
    half_width = rng.uniform(41, 46)
    return Speaker(
        skin=_near(SKINS[int(rng.integers(len(SKINS)))], 8, rng),
        hair=_near(HAIRS[int(rng.integers(len(HAIRS)))], 8, rng),
        style=STYLES[int(rng.integers(len(STYLES)))],
        background=_near(_any(90, 190, rng), 10, rng),
        shirt=_any(30, 200, rng),
        centre=(48 + rng.uniform(-3, 3), 43 + rng.uniform(-3, 3)),
        half_width=half_width,
        half_height=half_width * rng.uniform(1.12, 1.22),
        glasses=bool(rng.random() < 0.3),
        gain=rng.uniform(0.8, 1.12),
        slant=rng.uniform(-0.2, 0.2),
        noise=rng.uniform(2, 8),
    )


def draw_face(person: Speaker, face: Face, rng: np.random.Generator) -> Image:
    """One RGB picture of 96x96 pixels."""
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (SIZE * _ZOOM, SIZE * _ZOOM), person.background)
    pen = _Pen(ImageDraw.Draw(canvas), person, rng)
    _paint_person(pen, person)
    _paint_eyes(pen, person, rng)
    _paint_expression(pen, person, face, rng)
    return Image.fromarray(_lit(np.asarray(canvas.reduce(_ZOOM)), person, rng))


def _near(colour: Colour, reach: int, rng: np.random.Generator) -> Colour:
    red, green, blue = (
        int(np.clip(part + rng.integers(-reach, reach + 1), 0, 255)) for part in colour
    )
    return red, green, blue


def _any(low: int, high: int, rng: np.random.Generator) -> Colour:
    red, green, blue = (int(part) for part in rng.integers(low, high, 3))
    return red, green, blue


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, int(part * factor)) for part in colour)
    return red, green, blue


def _lit(
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    person: Speaker,
    rng: np.random.Generator,
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Light from one side and camera noise on (96, 96, 3)."""
    slope = 1 + person.slant * np.linspace(-0.5, 0.5, SIZE)[None, :, None]
    light = pixels * (person.gain * rng.uniform(0.95, 1.05) * slope)
    return np.clip(light + rng.normal(0, person.noise, pixels.shape), 0, 255).astype(np.uint8)


class _Pen:
    """Draws in the coordinates of the head."""

    def __init__(self, draw: ImageDraw, person: Speaker, rng: np.random.Generator) -> None:
        self._draw = draw
        self._x = person.centre[0] + rng.uniform(-2, 2)
        self._y = person.centre[1] + rng.uniform(-2, 2)
        scale = rng.uniform(0.96, 1.04)
        self._width, self._height = person.half_width * scale, person.half_height * scale
        tilt = math.radians(rng.uniform(-7, 7))
        self._cos, self._sin = math.cos(tilt), math.sin(tilt)

    def shape(self, points: Points, colour: Colour) -> None:
        self._draw.polygon(self._pixels(points), fill=colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        self.shape(_ellipse(x, y, rx, ry), colour)

    def line(self, points: Points, colour: Colour, width: float) -> None:
        """A line with round ends; width in pixels of the 96."""
        placed, thick = self._pixels(points), round(width * _ZOOM)
        self._draw.line(placed, fill=colour, width=thick, joint="curve")
        for x, y in (placed[0], placed[-1]):
            reach = thick / 2
            self._draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)

    def _pixels(self, points: Points) -> list[tuple[float, float]]:
        placed = []
        for x, y in points:
            across, down = x * self._width, y * self._height
            turned_x = self._x + across * self._cos - down * self._sin
            turned_y = self._y + across * self._sin + down * self._cos
            placed.append((turned_x * _ZOOM, turned_y * _ZOOM))
        return placed


def _ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    turns = [2 * math.pi * step / 48 for step in range(48)]
    return [(x + rx * math.cos(turn), y + ry * math.sin(turn)) for turn in turns]


def _arc(left: float, right: float, y: float, bend: float, lean: float = 0.0) -> Points:
    """A parabola from left to right: ends `bend` above the middle (below if negative).

    `lean` lifts the right end by as much again, in a curve.
    """
    middle, half = (left + right) / 2, (right - left) / 2
    steps = [step / 12 - 1 for step in range(25)]
    return [(middle + half * s, y - bend * s * s - lean * max(0.0, s) ** 1.5) for s in steps]


def _paint_person(pen: _Pen, person: Speaker) -> None:
    if person.style == "long":
        pen.shape([*_ellipse(0, -0.15, 1.16, 1.08)], person.hair)
        pen.shape([(-1.14, -0.2), (1.14, -0.2), (1.2, 1.15), (-1.2, 1.15)], person.hair)
    if person.style == "bun":
        pen.ellipse(0, -1.12, 0.36, 0.26, person.hair)
    pen.ellipse(0, 1.75, 1.9, 0.75, person.shirt)
    pen.shape([(-0.38, 0.7), (0.38, 0.7), (0.42, 1.25), (-0.42, 1.25)], _shade(person.skin, 0.85))
    if person.style != "bald":
        pen.ellipse(0, -0.16, 1.08, 0.98, person.hair)
    for side in (-1, 1):
        pen.ellipse(side * 0.98, 0.02, 0.12, 0.18, _shade(person.skin, 0.9))
    pen.ellipse(0, 0.06 if person.style != "bald" else 0, 0.96, 0.95, person.skin)
    if person.style == "fringe":
        top = [(x, y) for x, y in _ellipse(0, -0.1, 0.98, 0.92) if y < -0.7]
        pen.shape(top, person.hair)


def _paint_eyes(pen: _Pen, person: Speaker, rng: np.random.Generator) -> None:
    glance = rng.uniform(-0.05, 0.05)
    for side in (-1, 1):
        pen.ellipse(side * 0.4, -0.1, 0.18, 0.1, _WHITE)
        pen.ellipse(side * 0.4 + glance, -0.1, 0.085, 0.09, _DARK)
        if person.glasses:
            ring = _ellipse(side * 0.4, -0.08, 0.3, 0.2)
            pen.line([*ring, ring[0]], _DARK, 1.2)
    if person.glasses:
        pen.line([(-0.1, -0.1), (0.1, -0.1)], _DARK, 1.2)
    nose = _shade(person.skin, 0.72)
    pen.line([(0.02, -0.02), (0.1, 0.24), (-0.06, 0.26)], nose, 1.3)


def _paint_expression(pen: _Pen, person: Speaker, face: Face, rng: np.random.Generator) -> None:
    side = 1 if rng.random() < 0.5 else -1
    wobble = rng.uniform(0.92, 1.08)
    brow = _DARK if person.style == "bald" else _shade(person.hair, 0.35)
    _paint_brows(pen, face, brow, side)
    if face.expression == "smile":
        _paint_smile(pen, face.strength, wobble)
    elif face.expression == "frown":
        bend = (0.15, 0.22)[face.strength - 1] * wobble
        pen.line(_arc(-0.42, 0.42, 0.5, -bend), _LIPS, 3)
    elif face.expression == "smirk":
        mouth = _arc(-0.34, 0.52, 0.6, 0.02, lean=0.3 * wobble)
        pen.line([(x * side, y) for x, y in mouth], _LIPS, 3)
    else:
        pen.line(_arc(-0.36, 0.36, 0.58, 0), _LIPS, 3)


def _paint_smile(pen: _Pen, strength: int, wobble: float) -> None:
    bend = (0.17, 0.22)[strength - 1] * wobble
    upper = _arc(-0.46, 0.46, 0.64, bend)
    if strength == 2:
        lower = _arc(-0.46, 0.46, 0.64 + 0.14, bend + 0.14)
        pen.shape([*upper, *reversed(lower)], _WHITE)
        pen.line(lower, _LIPS, 2)
    pen.line(upper, _LIPS, 3 if strength == 1 else 2)


def _paint_brows(pen: _Pen, face: Face, colour: Colour, side: int) -> None:
    for eye in (-1, 1):
        height, inner = -0.34, 0.0
        if face.expression == "frown":
            inner = 0.08 + 0.05 * face.strength
        elif face.expression == "smile":
            height -= 0.04
        elif face.expression == "smirk":
            height = -0.56 if eye == side else -0.28
        bow = 0.1 if face.expression == "smirk" and eye == side else 0.03
        points = _arc(0.18, 0.64, height - bow, -bow)
        raised = [(x * eye, y + inner * (0.64 - x) / 0.46) for x, y in points]
        pen.line(raised, colour, 2.6)
