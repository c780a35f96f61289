"""The published designs, timed here at full size, beside the published figures."""

import json
from dataclasses import replace

from rich import box
from rich.console import Console
from rich.table import Table

from evaluators.evaluation import Evaluation
from evaluators.latency import LatencyEvaluator, Runs
from evaluators.onnx_builder import OnnxBuilder
from evaluators.store import EvaluationStore, known_or_new
from search_space.genotype import MAX_TEXT_TOKENS, MIN_TEXT_TOKENS
from search_space.named import load_space
from search_space.paper import SOURCE, SeededDesign, seeded_designs
from search_space.space import SearchSpace
from studies import screen
from studies.lab import local_device
from studies.settings import (
    WEIGHTS,
    UsageError,
    check_choice,
    check_range,
    check_threads,
    home,
)
from studies.wording import clean

TOKENS = (512, 64)
"""The paper's text length, and one that its sentences fit into."""

Timed = dict[tuple[str, int], Evaluation]


def time_paper(
    space_name: str, weights: str, tokens: tuple[int, ...], threads: int, as_json: bool
) -> None:
    """Times the designs at each text length and prints latency and ratio to the late design.

    No length stands for TOKENS, as far as the encoders go. Every evaluation is kept, so an
    interrupted table goes on where it was. Raises UsageError.
    """
    check_choice("--weights", weights, WEIGHTS)
    for length in tokens:
        check_range("--tokens", length, MIN_TEXT_TOKENS, MAX_TEXT_TOKENS)
    check_threads(threads)
    space = load_space(space_name, weights=weights)  # type: ignore[arg-type]
    encoders = {spec.name: spec for spec in space.encoders}
    designs = [
        s for s in seeded_designs(space) if s.genotype.vision_encoder and s.genotype.text_encoder
    ]
    tokens = _lengths(tokens, designs, space)
    where = home()
    store = EvaluationStore(where / "evaluations.jsonl")
    builder = OnnxBuilder(encoders, space.shapes, 2, where / "artifacts")
    device, held = local_device(where)
    latency = LatencyEvaluator(builder, device, Runs(threads=threads))
    timed: Timed = {}
    console = Console(stderr=as_json)
    with screen.progress(console) as reporter:
        try:
            for length in tokens:
                for k, seeded in enumerate(designs, start=1):
                    genotype = replace(seeded.genotype, text_tokens=length)
                    reporter.step(f"timing at {length} tokens", k - 1, len(designs))
                    evaluation, _ = known_or_new(store, latency, genotype)
                    timed[seeded.name, length] = evaluation
        finally:
            latency.close()
            held.release()
    if as_json:
        print(json.dumps(_as_json(designs, tokens, timed), allow_nan=False))
    else:
        _print(designs, tokens, timed, console)


def _lengths(
    given: tuple[int, ...], designs: list[SeededDesign], space: SearchSpace
) -> tuple[int, ...]:
    """The text lengths to time at, which every design's text encoder takes. Raises UsageError."""
    longest = {name: space.shapes[name].max_tokens for name in space.text_encoders}
    used = {seeded.genotype.text_encoder for seeded in designs}
    most, name = min((longest[name], name) for name in used if name)
    for length in given:
        if length > most:
            raise UsageError(f"--tokens {length}: {name} takes {MIN_TEXT_TOKENS} to {most}")
    return given or tuple(dict.fromkeys(min(length, most) for length in TOKENS))


def _ratio(
    seeded: SeededDesign, designs: list[SeededDesign], length: int, timed: Timed
) -> float | None:
    """This design's latency over that of late fusion with the same vision encoder."""
    late = _late_of(seeded, designs)
    if late is None or timed[late.name, length].infeasible or timed[seeded.name, length].infeasible:
        return None
    return (
        timed[seeded.name, length]["latency_ms"].value
        / timed[late.name, length]["latency_ms"].value
    )


def _late_of(seeded: SeededDesign, designs: list[SeededDesign]) -> SeededDesign | None:
    same = seeded.genotype.vision_encoder
    return next(
        (d for d in designs if d.design.stage == "late" and d.genotype.vision_encoder == same), None
    )


def _published_ratio(seeded: SeededDesign, designs: list[SeededDesign]) -> float | None:
    late = _late_of(seeded, designs)
    own = seeded.design.latency_ms
    if late is None or own is None or late.design.latency_ms is None:
        return None
    return own / late.design.latency_ms


def table_of(designs: list[SeededDesign], tokens: tuple[int, ...], timed: Timed) -> Table:
    """A row a design: latency and ratio to the late design at each length, then the paper's."""
    table = Table(
        title=f"Latency of the designs of {SOURCE}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 0, 0, 1),
        pad_edge=False,
    )
    table.add_column("design", overflow="fold")  # a name may take two lines, and is never cut
    for heading in (*(f"{length} tokens\nms" for length in tokens), "paper\nms"):
        table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("of\nlate", justify="right", no_wrap=True)
    for seeded in designs:
        cells = [seeded.name]
        for length in tokens:
            evaluation = timed[seeded.name, length]
            ratio = _ratio(seeded, designs, length, timed)
            cells.append(_milliseconds(evaluation))
            cells.append("-" if ratio is None else f"{ratio:.2f}")
        own, ratio = seeded.design.latency_ms, _published_ratio(seeded, designs)
        cells += ["-" if own is None else f"{own:g}", "-" if ratio is None else f"{ratio:.2f}"]
        table.add_row(*cells)
    return table


def _print(
    designs: list[SeededDesign], tokens: tuple[int, ...], timed: Timed, console: Console
) -> None:
    console.print(table_of(designs, tokens, timed))
    console.print(
        "Random weights: latency depends on the graph alone. Timed by the local agent with ONNX "
        "Runtime on this machine's CPU, batch 1; the paper's figures are of a Jetson Orin AGX at "
        "512 tokens. Ratios are to the late design with the same vision encoder.",
        highlight=False,
    )
    doubted = [evaluation.unstable for evaluation in timed.values() if evaluation.unstable]
    if doubted:
        console.print(
            f"? marks a latency that was not stable ({clean(doubted[0])}); the same command times "
            "it again.",
            highlight=False,
            markup=False,
        )


def _milliseconds(evaluation: Evaluation) -> str:
    if evaluation.infeasible:
        return "infeasible"
    return f"{evaluation['latency_ms'].value:.1f}{'?' if evaluation.unstable else ''}"


def _as_json(
    designs: list[SeededDesign], tokens: tuple[int, ...], timed: Timed
) -> dict[str, object]:
    rows = []
    for seeded in designs:
        for length in tokens:
            evaluation = timed[seeded.name, length]
            rows.append(
                {
                    "design": seeded.name,
                    "text_tokens": length,
                    "infeasible": evaluation.infeasible,
                    "unstable": evaluation.unstable,
                    "measures": {m.name: [m.value, m.low, m.high] for m in evaluation.measures},
                    "ratio_to_late": _ratio(seeded, designs, length, timed),
                    "published_latency_ms": seeded.design.latency_ms,
                    "published_ratio_to_late": _published_ratio(seeded, designs),
                }
            )
    return {"source": SOURCE, "rows": rows}
