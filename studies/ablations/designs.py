"""Studies of a fixed list of designs: what each one compares, on any search space.

Designs are those of arXiv 2511.21889, brought onto the encoders of the space in proportion (see
`search_space.space.paper`), with one thing changed at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from search_space.design.encoder import EncoderShape
from search_space.design.genotype import AttentionOver, FusionPoint, Genotype
from search_space.design.rules import canonical
from search_space.modality import MODALITIES, Modality
from search_space.space.named import SpaceError
from search_space.space.paper import SeededDesign, seeded_designs
from search_space.space.space import SearchSpace
from studies.results.ablation import TRIMODAL, cell
from studies.results.outcome import GridPoint

BLOCKS = (2, 4, 6, 8)
TOKENS = (16, 32, 64, 128, 256, 512)
STAGES = ("late", "intermediate", "early")
READ: tuple[tuple[Modality, ...], ...] = (
    ("text", "vision"),
    ("text", "vision", "audio"),
    ("text", "audio"),
    ("vision", "audio"),
)
"""What the designs of `trimodal` read, that of the paper first."""

T = TypeVar("T")


@dataclass(frozen=True)
class GridDesign:
    """One design of the list. `adapted` as in `SeededDesign`, for the paper's own designs."""

    name: str
    genotype: Genotype
    adapted: str = ""


@dataclass(frozen=True)
class Grid:
    """The whole list. Points that spell the same network share one design, which runs once.

    notes: in words, what was left out and why, and what was scaled.
    """

    kind: str
    designs: tuple[GridDesign, ...]
    points: tuple[GridPoint, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Wanted:
    """A point before it is known whether its design can be built, or is another point's too."""

    series: str
    at: int | str
    name: str
    genotype: Genotype
    against: str = ""


def kinds() -> tuple[str, ...]:
    """The lists that there are, by what a preset's `grid` takes."""
    return tuple(_makers())


def grid_on(kind: str, space: SearchSpace) -> Grid:
    """The list of this kind on a space, in the space's first precision.

    Designs that cannot be built are left out and named. Raises KeyError for an unknown kind.
    """
    published = _on(space, space.vision_encoders[0])
    own = {s.genotype.key: s for s in _all_published(space)}
    designs: dict[str, GridDesign] = {}
    names: dict[str, str] = {}
    points, left_out = [], []
    for wanted in _makers()[kind](space, published):
        genotype = replace(wanted.genotype, precision=space.precisions[0])
        genotype = canonical(genotype, space.shapes)
        why = space.violations(genotype)
        if why:
            left_out.append(f"{wanted.name} is left out: {'; '.join(why)}")
            continue
        seeded = own.get(replace(genotype, precision="fp32").key)
        words = seeded.adapted if seeded else ""
        kept = designs.setdefault(genotype.key, GridDesign(wanted.name, genotype, words))
        names[wanted.name] = kept.name
        points.append(GridPoint(wanted.series, wanted.at, kept.name, wanted.against))
    notes = [
        *left_out,
        *_notes(kind, space),
        *(d.adapted for d in designs.values() if d.adapted),
    ]
    resolved = tuple(replace(p, against=_other(names.get(p.against, ""), p)) for p in points)
    return Grid(kind, tuple(designs.values()), resolved, tuple(dict.fromkeys(notes)))


def grid_in(kind: str, space: SearchSpace) -> tuple[SearchSpace, Grid]:
    """The space, widened where the list needs it, and the list.

    Raises KeyError for an unknown list, SpaceError for a space without a modality that it reads.
    """
    needed = MODALITIES if kind == TRIMODAL else MODALITIES[:2]
    for lacking in (m for m in needed if m not in space.modalities):
        raise SpaceError(
            f"search space {space.name} has no {lacking} encoder: study {kind} compares designs of "
            f"{'both' if len(needed) == 2 else 'three'} modalities; give --{lacking}-encoder"
        )
    wide = widened(space, grid_on(kind, space))
    grid = grid_on(kind, wide)  # the paper's text length is the space's longest, which may be new
    added = widening(space, wide)
    said = (f"The search space was {added}.",) if added else ()
    return wide, replace(grid, notes=(*grid.notes, *said))


def widened(space: SearchSpace, grid: Grid) -> SearchSpace:
    """The space with every choice that the list's designs need beside its own."""
    designs = [design.genotype for design in grid.designs]
    points = [point for design in designs for point in design.points]
    blocks = [design.attention_blocks for design in designs]
    least, most = space.attention_blocks
    fewest, greatest = space.fusion_points
    tokens = {design.text_tokens for design in designs if not _offers(space, design)}
    return replace(
        space,
        text_tokens=tuple(sorted({*space.text_tokens, *tokens})),
        fusion_points=(fewest, max(greatest, *(len(d.points) for d in designs))),
        operators=_joined(space.operators, (p.operator for p in points)),
        widths=tuple(sorted({*space.widths, *(p.width for p in points)})),
        attention_blocks=(min(least, *blocks), max(most, *blocks)),
        attention_over=_joined(
            space.attention_over, (d.attention_over for d in designs if d.attention_blocks)
        ),
        text_poolings=_joined(space.text_poolings, (d.text_pooling for d in designs)),
        vision_poolings=_joined(space.vision_poolings, (d.vision_pooling for d in designs)),
        audio_poolings=_joined(space.audio_poolings, (d.audio_pooling for d in designs)),
        image_tokens=tuple(sorted({*space.image_tokens, *(d.image_tokens for d in designs)}))
        if space.image_tokens
        else (),
        lora_ranks=tuple(sorted({*space.lora_ranks, *(d.lora_rank for d in designs)}))
        if space.lora_ranks
        else (),
        optional=tuple(
            m
            for m in space.modalities
            if m in space.optional or any(m not in design.encoders for design in designs)
        ),
    )


def widening(before: SearchSpace, after: SearchSpace) -> str:
    """In words what `widened` added; empty where nothing was missing."""
    known = {decision.name: decision.choices for decision in before.decisions}
    added = []
    for decision in after.decisions:
        new = [str(c) for c in decision.choices if c not in known.get(decision.name, ())]
        if new and decision.name in known:
            added.append(f"{decision.name.replace('_', ' ')} {', '.join(new)}")
    if len(after.decisions) > len(before.decisions):
        added.append(f"up to {after.fusion_points[1]} fusion points")
    return f"widened for this study by {'; '.join(added)}" if added else ""


def _other(against: str, point: GridPoint) -> str:
    return "" if against == point.design else against


def _offers(space: SearchSpace, design: Genotype) -> bool:
    if design.text_encoder is None:
        return True
    longest = space.shapes[design.text_encoder].max_tokens
    return any(min(choice, longest) == design.text_tokens for choice in space.text_tokens)


def _joined(own: tuple[T, ...], needed: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys((*own, *needed)))


# -- the paper's designs on one vision encoder

_Published = Mapping[str, SeededDesign]


def _on(space: SearchSpace, vision: str) -> _Published:
    """The paper's fused designs by stage, on this vision encoder and the space's first text one."""
    kept = (e for e in space.encoders if e.modality != "vision" or e.name == vision)
    narrow = replace(space, encoders=tuple(kept))
    return {s.design.stage: s for s in seeded_designs(narrow) if s.design.stage in STAGES}


def _all_published(space: SearchSpace) -> list[SeededDesign]:
    return [s for vision in space.vision_encoders for s in _on(space, vision).values()]


def _text_shape(space: SearchSpace, published: _Published) -> EncoderShape:
    return space.shapes[str(published["late"].genotype.text_encoder)]


def _notes(kind: str, space: SearchSpace) -> Iterator[str]:
    if kind == "tokens":
        shape = _text_shape(space, _on(space, space.vision_encoders[0]))
        longer = [str(n) for n in TOKENS if n > shape.max_tokens]
        if longer:
            yield (
                f"{', '.join(longer)} tokens are left out: "
                f"{shape.name} takes at most {shape.max_tokens}"
            )
    if kind not in ("stage-sweep", "stages") and len(space.vision_encoders) > 1:
        yield (
            f"The designs stand on {space.vision_encoders[0]}, the first vision encoder of the "
            "space; name another with --vision-encoder."
        )
    if kind == TRIMODAL and len(space.audio_encoders) > 1:
        yield (
            f"Sound is read by {space.audio_encoders[0]}, the first audio encoder of the space; "
            "name another with --audio-encoder."
        )
    if len(space.precisions) > 1:
        yield f"All run in {space.precisions[0]}; --precision names another."


# -- the lists

_Maker = Callable[[SearchSpace, _Published], Iterator[_Wanted]]


def _makers() -> dict[str, _Maker]:
    return {
        "ablation-attention": _ablation,
        "stage-sweep": _stage_sweep,
        "tokens": _tokens,
        "depth-or-merge": _depth_or_merge,
        "tap-marginals": _tap_marginals,
        "stages": _stages,
        TRIMODAL: _trimodal,
    }


def _stages(space: SearchSpace, published: _Published) -> Iterator[_Wanted]:
    """The paper's three stages on every vision encoder, each compared with its late one."""
    for vision in space.vision_encoders:
        base = f"{vision} late"
        for stage, seeded in _on(space, vision).items():
            name = f"{vision} {stage}"
            yield _Wanted(vision, stage, name, seeded.genotype, "" if name == base else base)


def _trimodal(space: SearchSpace, published: _Published) -> Iterator[_Wanted]:
    """The paper's three stages with a sound as deep in its trunk as the text, and in its place."""
    sound, depth = space.audio_encoders[0], space.shapes[space.audio_encoders[0]].depth
    for stage in STAGES:
        design = published[stage].genotype
        text = space.shapes[design.encoders["text"]].depth
        points = tuple(
            replace(p, audio_tap=max(1, p.text_tap * depth // text)) for p in design.points
        )
        whole = replace(design, points=points, audio_encoder=sound)
        base = f"{stage}, {_reading(READ[0])}"
        for read in READ:
            name = f"{stage}, {_reading(read)}"
            against = "" if name == base else base
            yield _Wanted(stage, _reading(read), name, _without(whole, read), against)


def _reading(modalities: Iterable[Modality]) -> str:
    return " + ".join(modalities)


def _without(whole: Genotype, read: tuple[Modality, ...]) -> Genotype:
    """The design cut to what it is to read."""
    absent: dict[str, Any] = {f"{m}_encoder": None for m in MODALITIES if m not in read}
    taps: dict[str, Any] = {f"{m}_tap": 0 for m in MODALITIES if m not in read}
    points = tuple(replace(point, **taps) for point in whole.points)
    tokens = whole.text_tokens if "text" in read else 0
    return replace(whole, points=points, text_tokens=tokens, **absent)


def _ablation(space: SearchSpace, published: _Published) -> Iterator[_Wanted]:
    """The early design with other numbers of blocks, over the fused vector and over tokens."""
    early = published["early"].genotype
    overs: tuple[tuple[AttentionOver, str], ...] = (
        ("pooled", "over the vector"),
        ("tokens", "over tokens"),
    )
    base = "4 blocks over the vector"
    for over, series in overs:
        yield _Wanted(series, 0, "no blocks", replace(early, attention_blocks=0), base)
        for blocks in BLOCKS:
            design = replace(early, attention_blocks=blocks, attention_over=over)
            name = f"{blocks} blocks {series}"
            yield _Wanted(series, blocks, name, design, "" if name == base else base)


def _stage_sweep(space: SearchSpace, published: _Published) -> Iterator[_Wanted]:
    """One concatenation after ever more of both trunks; the last is the late design."""
    for vision in space.vision_encoders:
        late = _on(space, vision)["late"].genotype
        text_depth, vision_depth = late.deepest_tap("text"), late.deepest_tap("vision")
        base = f"{vision} {text_depth}x{vision_depth}"
        for tap in range(1, text_depth + 1):
            point = FusionPoint(tap, max(1, tap * vision_depth // text_depth))
            name = f"{vision} {point.text_tap}x{point.vision_tap}"
            design = replace(late, points=(point,))
            yield _Wanted(vision, tap, name, design, "" if name == base else base)


def _tokens(space: SearchSpace, published: _Published) -> Iterator[_Wanted]:
    """The late and the early design at every text length that the encoder takes."""
    lengths = [n for n in TOKENS if n <= _text_shape(space, published).max_tokens]
    for stage in ("late", "early"):
        base = f"{stage} at {lengths[-1]} tokens"
        for length in lengths:
            name = f"{stage} at {length} tokens"
            design = replace(published[stage].genotype, text_tokens=length)
            yield _Wanted(stage, length, name, design, "" if name == base else base)


def _depth_or_merge(space: SearchSpace, published: _Published) -> Iterator[_Wanted]:
    """Every depth of the paper with every merging of the paper."""
    base = cell("late", "late")
    for depth in STAGES:
        deepest = published[depth].genotype
        for merging in STAGES:
            merged = published[merging].genotype
            points = tuple(_deepened(point, merged, deepest) for point in merged.points)
            name = cell(depth, merging)
            design = replace(merged, points=points)
            yield _Wanted(merging, depth, name, design, "" if name == base else base)


def _deepened(point: FusionPoint, merged: Genotype, deepest: Genotype) -> FusionPoint:
    """The point in proportion to trunks as deep as those of `deepest`."""
    text = point.text_tap * deepest.deepest_tap("text") // merged.deepest_tap("text")
    vision = point.vision_tap * deepest.deepest_tap("vision") // merged.deepest_tap("vision")
    return replace(point, text_tap=max(1, text), vision_tap=max(1, vision))


def _tap_marginals(space: SearchSpace, published: _Published) -> Iterator[_Wanted]:
    """One trunk at its full depth, the other at each of its layers, and the reverse."""
    late = published["late"].genotype
    (end,) = late.points
    for side, depth in (("text", end.text_tap), ("vision", end.vision_tap)):
        before = ""
        for tap in range(1, depth + 1):
            point = replace(end, **{f"{side}_tap": tap})  # type: ignore[arg-type]
            name = "both in full" if tap == depth else f"{side} tap {tap}"
            yield _Wanted(side, tap, name, replace(late, points=(point,)), before)
            before = name
