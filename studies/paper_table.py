"""The published designs, timed here at full size, beside the published figures."""

import json
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from evaluators.device_client import open_local_device
from evaluators.evaluation import Evaluation
from evaluators.latency import LatencyEvaluator, Runs
from evaluators.onnx_builder import OnnxBuilder
from evaluators.store import EvaluationStore, known_or_new
from search_space.genotype import MAX_TEXT_TOKENS, MIN_TEXT_TOKENS
from search_space.named import load_space
from search_space.paper import SOURCE, SeededDesign, seeded_designs
from studies import screen
from studies.settings import WEIGHTS, UsageError, check_choice, home

Timed = dict[tuple[str, int], Evaluation]


def time_paper(
    space_name: str, weights: str, tokens: tuple[int, ...], threads: int, as_json: bool
) -> None:
    """Times the designs at each text length and prints latency and ratio to the late design.

    Every evaluation is kept, so an interrupted table goes on where it was.
    """
    check_choice("--weights", weights, WEIGHTS)
    for length in tokens:
        if not MIN_TEXT_TOKENS <= length <= MAX_TEXT_TOKENS:
            raise UsageError(f"--tokens {length}: give {MIN_TEXT_TOKENS} to {MAX_TEXT_TOKENS}")
    if threads < 0:
        raise UsageError(f"--threads {threads}: give 0 (the runtime's choice) or more")
    space = load_space(space_name, weights=weights)  # type: ignore[arg-type]
    encoders = {spec.name: spec for spec in space.encoders}
    where = home()
    store = EvaluationStore(where / "evaluations.jsonl")
    builder = OnnxBuilder(encoders, space.shapes, 2, where / "artifacts")
    latency = LatencyEvaluator(
        builder, lambda: open_local_device(where / "device"), Runs(threads=threads)
    )
    designs = [
        s for s in seeded_designs(space) if s.genotype.vision_encoder and s.genotype.text_encoder
    ]
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
    if as_json:
        print(json.dumps(_as_json(designs, tokens, timed), allow_nan=False))
    else:
        _print(designs, tokens, timed, console)


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


def _print(
    designs: list[SeededDesign], tokens: tuple[int, ...], timed: Timed, console: Console
) -> None:
    table = Table(title=f"Latency of the designs of {SOURCE}", title_justify="left")
    table.add_column("design")
    for length in tokens:
        table.add_column(f"{length} tokens\nms", justify="right")
        table.add_column("of\nlate", justify="right")
    table.add_column("paper\nms", justify="right")
    table.add_column("of\nlate", justify="right")
    for seeded in designs:
        cells = [seeded.name]
        for length in tokens:
            evaluation = timed[seeded.name, length]
            ratio = _ratio(seeded, designs, length, timed)
            cells.append(
                "infeasible" if evaluation.infeasible else f"{evaluation['latency_ms'].value:.1f}"
            )
            cells.append("-" if ratio is None else f"{ratio:.3f}")
        own, ratio = seeded.design.latency_ms, _published_ratio(seeded, designs)
        cells += ["-" if own is None else f"{own:g}", "-" if ratio is None else f"{ratio:.3f}"]
        table.add_row(*cells)
    console.print(table)
    console.print(
        "Random weights: latency depends on the graph alone. Timed by the local agent with ONNX "
        "Runtime on this machine's CPU, batch 1; the paper's figures are of a Jetson Orin AGX at "
        "512 tokens. Ratios are to the late design with the same vision encoder.",
        highlight=False,
    )


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
                    "measures": {m.name: [m.value, m.low, m.high] for m in evaluation.measures},
                    "ratio_to_late": _ratio(seeded, designs, length, timed),
                    "published_latency_ms": seeded.design.latency_ms,
                    "published_ratio_to_late": _published_ratio(seeded, designs),
                }
            )
    return {"source": SOURCE, "rows": rows}
