"""A design as a drawing: its trunks, what is fused of them, and what follows.

The layout is found here once; the page's script and `svg` draw the same shapes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Literal

from search_space.design.genotype import FusionPoint, Genotype
from search_space.design.reading import fuses_tokens, given, pools
from search_space.design.rules import projects_inputs, projects_result
from search_space.modality import MODALITIES, Modality
from studies.results.text import clean, ms

WIDTH = 420
_MARGIN, _LANE, _BUS, _GAP = 8, 9, 8, 12
_HEAD = 50
"""Height of a column's heading."""
_BOX = 17
"""Height of a box's line of words."""
_CHARACTER = 6.1
"""Width of a character of the drawing's font."""
_READS: dict[Modality, str] = {"vision": "picture", "audio": "sound"}


@dataclass(frozen=True)
class Shape:
    """A box (x, y, width, height), a line along a path, or words at a point (x, y).

    style: a class of the style sheet.
    """

    kind: Literal["box", "line", "text"]
    style: str
    at: tuple[float, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Drawing:
    """Shapes in the order to draw them, WIDTH wide; `summary` is for those who cannot see it."""

    shapes: tuple[Shape, ...]
    height: int
    summary: str


class Svg(str):
    """SVG that notebooks show as a picture."""

    def _repr_svg_(self) -> str:
        return str(self)


def draw(genotype: Genotype, parts: Mapping[str, float] | None = None) -> Drawing:
    """Draw a design: trunks from above, fused layers marked, down to the classes.

    `parts`: ms by encoder and of the fusion with the head (`fusion`), where they are known. The
    drawing of a design without an encoder, which is infeasible, is empty.
    """
    if not genotype.encoders:
        return Drawing((), 0, genotype.describe())
    known = {} if parts is None else {owner: f"{ms(each)} ms" for owner, each in parts.items()}
    lanes = dict[tuple[Modality, FusionPoint], tuple[float, float]]()
    shapes: list[Shape] = []
    column = (WIDTH - 2 * _MARGIN) / len(genotype.encoders)
    bottom = 0.0
    for k, modality in enumerate(genotype.encoders):
        left = _MARGIN + k * column
        found, ends, lowest = _trunk(genotype, modality, left, column, known)
        shapes += found
        lanes |= ends
        bottom = max(bottom, lowest)
    shapes += _poolings(genotype, lanes, bottom)
    found, low = _branches(genotype, lanes, bottom + _BOX + 6, known)
    return Drawing((*shapes, *found), round(low), genotype.describe())


def svg(drawing: Drawing, sheet: str = "") -> str:
    """The drawing as an SVG document; `sheet` is its style sheet."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {drawing.height}" '
        f'width="{WIDTH}" height="{drawing.height}" class="drawing" role="img">'
        f"<title>{escape(clean(drawing.summary))}</title>"
    ]
    parts += [f"<style>{sheet}</style>"] if sheet else []
    for shape in drawing.shapes:
        if shape.kind == "box":
            x, y, wide, high = shape.at
            parts.append(
                f'<rect class="{shape.style}" x="{x:g}" y="{y:g}" width="{wide:g}" '
                f'height="{high:g}" rx="2"/>'
            )
        elif shape.kind == "line":
            parts.append(f'<path class="{shape.style}" d="{shape.text}"/>')
        else:
            x, y = shape.at
            parts.append(
                f'<text class="{shape.style}" x="{x:g}" y="{y:g}">{escape(shape.text)}</text>'
            )
    return "".join([*parts, "</svg>"])


def _trunk(
    genotype: Genotype, modality: Modality, left: float, wide: float, known: Mapping[str, str]
) -> tuple[list[Shape], dict[tuple[Modality, FusionPoint], tuple[float, float]], float]:
    """A trunk's layers, where each of its fused layers leaves it, and its lower end."""
    deepest, cells = genotype.deepest_tap(modality), wide - 3 * _LANE - 22
    high = 15 if deepest <= 12 else 13
    reads = f"{genotype.text_tokens} tokens" if modality == "text" else _READS[modality]
    name = _fitting(genotype.encoders[modality], wide - 4)
    shapes = [
        _words("dl", left, 14, name),
        _words("dm", left, 29, _fitting(f"{reads}, {deepest} layers", wide)),
    ]
    if encoder := known.get(genotype.encoders[modality]):
        shapes.append(_words("dm", left, 43, encoder))
    tops = [_HEAD + (high + 2) * k for k in range(deepest)]
    cell = f"h{cells:g}v{high}h-{cells:g}z"
    path = "".join(f"M{left:g} {top}{cell}" for top in tops)
    shapes.append(Shape("line", f"dc d-{modality}", text=path))
    ends = {}
    tapped = sorted({point.tap(modality) for point in genotype.points})
    for tap in tapped:
        top = tops[tap - 1]
        shapes.append(Shape("box", f"dt d-{modality}", (left, top, round(cells, 1), high)))
        shapes.append(_words("dw", left + 5, top + high - 3.5, f"layer {tap}"))
    for k, point in enumerate(genotype.points):
        y = tops[point.tap(modality) - 1] + high * (k + 1) / (len(genotype.points) + 1)
        lane = left + cells + 8 + _LANE * (len(genotype.points) - 1 - k)
        ends[modality, point] = (round(left + cells, 1), round(y, 1))
        lanes = f"M{left + cells:g} {y:.1f}H{lane:g}"
        shapes.append(Shape("line", _style(genotype, point, modality), text=lanes))
        ends[modality, point] = (round(lane, 1), round(y, 1))
    return shapes, ends, tops[-1] + high + 8


def _poolings(
    genotype: Genotype,
    lanes: dict[tuple[Modality, FusionPoint], tuple[float, float]],
    top: float,
) -> Iterator[Shape]:
    """Down to the fusion, and through a pooling what is fused as one vector."""
    for modality in genotype.encoders:
        pooled = []
        for point in genotype.points:
            x, y = lanes[modality, point]
            style = _style(genotype, point, modality)
            tokens = fuses_tokens(genotype, point, modality)
            yield Shape("line", style, text=f"M{x:g} {y:g}V{top + (_BOX + 6 if tokens else 0):g}")
            if not tokens:
                pooled.append(x)
                yield Shape("line", style, text=f"M{x:g} {top + _BOX:g}V{top + _BOX + 6:g}")
        if pooled:
            words = genotype.pooling(modality)
            wide = max(len(words) * _CHARACTER + 10, max(pooled) - min(pooled) + 12)
            right = max(pooled) + 6
            yield Shape(
                "box", f"db d-{modality}", (round(right - wide, 1), top, round(wide, 1), _BOX)
            )
            yield _words("dk", right - wide / 2, top + 12.5, words)


def _branches(
    genotype: Genotype,
    lanes: dict[tuple[Modality, FusionPoint], tuple[float, float]],
    top: float,
    known: Mapping[str, str],
) -> tuple[list[Shape], float]:
    """The fusion points side by side, their concatenation and the head; and the lower end."""
    points, modalities = genotype.points, tuple(genotype.encoders)
    wide = (WIDTH - 2 * _MARGIN - _GAP * (len(points) - 1)) / len(points)
    wide = min(wide, 200)
    first = (WIDTH - wide * len(points) - _GAP * (len(points) - 1)) / 2
    # One row for each line, so that no two lie on each other; those on the left turn first.
    turning = sorted(lanes, key=lambda end: lanes[end][0])
    rows = {end: top + 6 + _BUS * k for k, end in enumerate(turning)}
    start = top + 6 + _BUS * len(rows) + 4
    shapes: list[Shape] = []
    lowest = []
    for k, point in enumerate(points):
        left = first + k * (wide + _GAP)
        for j, modality in enumerate(modalities):
            port = left + wide * (j + 1) / (len(modalities) + 1)
            x, _ = lanes[modality, point]
            y = rows[modality, point]
            path = f"M{x:g} {top:g}V{y:g}H{port:.1f}V{start:g}"
            shapes.append(Shape("line", _style(genotype, point, modality), text=path))
        y = start
        for style, words in _steps(genotype, point):
            at = (round(left, 1), round(y, 1), round(wide, 1), _BOX + 2)
            shapes.append(Shape("box", style, at))
            shapes.append(_words("dk", left + wide / 2, y + 13.5, _fitting(words, wide)))
            y += _BOX + 4
        lowest.append((left + wide / 2, y - 2))
    joined = max(y for _, y in lowest) + 14
    for x, y in lowest:
        shapes.append(Shape("line", "dn", text=f"M{x:.1f} {y:g}V{joined:g}"))
    ending = ["concatenation of the points"] if len(points) > 1 else []
    ending += ["head: 512, 256, classes"]
    for words in ending:
        at = (_MARGIN, round(joined, 1), WIDTH - 2 * _MARGIN, _BOX + 2)
        shapes.append(Shape("box", "db", at))
        shapes.append(_words("dk", WIDTH / 2, joined + 13.5, words))
        joined += _BOX + 4
    said = f", fusion and head {known['fusion']}" if "fusion" in known else ""
    said += f", LoRA rank {genotype.lora_rank}" if genotype.lora_rank else ""
    shapes.append(_words("dk dm", WIDTH / 2, joined + 14, f"runs in {genotype.precision}{said}"))
    return shapes, joined + 22


def _steps(genotype: Genotype, point: FusionPoint) -> Iterator[tuple[str, str]]:
    """What happens at a fusion point in its order: a style and words for each step."""
    blocks = genotype.attention_blocks if point == genotype.points[-1] else 0
    attention = f"attention ×{blocks}"
    if genotype.image_tokens and fuses_tokens(genotype, point, "vision"):
        yield "db", f"{genotype.image_tokens} image token{'s' * (genotype.image_tokens > 1)}"
    if projects_inputs(genotype, point):
        yield "db", f"each to width {point.width}"
    if genotype.attends_over_tokens(point):
        yield "da", f"{attention}, tokens"
        late = [m for m in genotype.encoders if m not in _taken(genotype, point)]
        if late:
            yield "db", "pool " + ", ".join(f"{m} {genotype.pooling(m)}" for m in late)
    if genotype.is_fused:
        yield "do", point.operator
    for modality in given(genotype, point) if genotype.is_fused else ():
        if pools(point, modality):
            yield "db", f"pool {modality} {genotype.pooling(modality)}"
    if projects_result(genotype, point):
        yield "db", f"to width {point.width}"
    if blocks and not genotype.attends_over_tokens(point):
        yield "da", attention


def _taken(genotype: Genotype, point: FusionPoint) -> set[Modality]:
    """Which modalities the operator takes as tokens here."""
    from search_space.operators.registry import operator_of

    return set(operator_of(point.operator).signature.tokens)


def _style(genotype: Genotype, point: FusionPoint, modality: Modality) -> str:
    """A line is dashed where it carries tokens."""
    tokens = " dd" if fuses_tokens(genotype, point, modality) else ""
    return f"dn d-{modality}{tokens}"


def _words(style: str, x: float, y: float, text: str) -> Shape:
    return Shape("text", f"dx {style}", (round(x, 1), round(y, 1)), clean(text))


def _fitting(text: str, wide: float) -> str:
    """The text's beginning and end, where it is too long."""
    most, text = int(wide / _CHARACTER), clean(text)
    return text if len(text) <= most else f"{text[: most - 6]}…{text[-5:]}"


assert set(_READS) == set(MODALITIES) - {"text"}
