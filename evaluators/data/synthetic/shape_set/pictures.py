"""Pictures of the shapes set: coloured shapes over a grey ground with lines, 96x96 pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from evaluators.data.generative.statements import SIDE, Colour, Scene, Shape, Thing

if TYPE_CHECKING:
    from PIL.Image import Image

SIZE = 96
_ZOOM = 2
_CELL = SIZE / SIDE

PAINTS: Mapping[Colour, tuple[int, int, int]] = {
    "red": (205, 40, 40),
    "green": (40, 155, 65),
    "blue": (50, 85, 210),
    "yellow": (230, 200, 45),
}
_CORNERS: Mapping[Shape, int] = {"circle": 40, "square": 4, "triangle": 3}
_REACH: Mapping[Shape, float] = {"circle": 1.0, "square": 1.2, "triangle": 1.35}
"""From the middle to a corner, by which shapes of one size cover about as much."""
_TILT = 0.25
"""Largest turn, in radians."""


def draw_picture(scene: Scene, rng: np.random.Generator) -> Image:
    """One RGB picture of 96x96 pixels."""
    from PIL import Image, ImageDraw

    side = SIZE * _ZOOM
    grey = int(rng.integers(60, 200))
    canvas = Image.new("RGB", (side, side), _near((grey, grey, grey), 6, rng))
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(2, 6))):
        ends = [float(end) for end in rng.uniform(0, side, 4)]
        level = int(rng.integers(40, 220))
        pen.line(ends, fill=(level, level, level), width=int(rng.integers(1, 4)))
    for thing in scene:
        pen.polygon(_outline(thing, rng), fill=_near(PAINTS[thing.colour], 20, rng))
    return Image.fromarray(_lit(np.asarray(canvas.reduce(_ZOOM)), rng))


def _near(
    colour: tuple[int, int, int], reach: int, rng: np.random.Generator
) -> tuple[int, int, int]:
    red, green, blue = (
        int(np.clip(part + rng.integers(-reach, reach + 1), 0, 255)) for part in colour
    )
    return red, green, blue


def _outline(thing: Thing, rng: np.random.Generator) -> Sequence[tuple[float, float]]:
    """Corners on the canvas, about the middle of the thing's cell."""
    x, y = ((at + 0.5) * _CELL + rng.uniform(-3, 3) for at in (thing.column, thing.row))
    reach = rng.uniform(10.5, 13.5) * _REACH[thing.shape]
    corners = _CORNERS[thing.shape]
    start = rng.uniform(-_TILT, _TILT) - math.pi / 2
    if thing.shape == "square":
        start += math.pi / 4
    turns = [start + 2 * math.pi * k / corners for k in range(corners)]
    return [
        ((x + reach * math.cos(turn)) * _ZOOM, (y + reach * math.sin(turn)) * _ZOOM)
        for turn in turns
    ]


def _lit(
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], rng: np.random.Generator
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Brighter or darker light and camera noise on (96, 96, 3)."""
    noise = rng.normal(0, rng.uniform(2, 8), pixels.shape)
    return np.clip(pixels * rng.uniform(0.85, 1.1) + noise, 0, 255).astype(np.uint8)
