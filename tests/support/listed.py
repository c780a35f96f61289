"""Outcomes of fixed lists as studies leave them, with figures from a seed."""

import random
from dataclasses import asdict, replace

import numpy as np
from sample_outcome import _share, empty

from search_space.space.space import SearchSpace
from studies.ablations.designs import grid_in
from studies.results.ablation import grid_outcome
from studies.results.outcome import DesignResult, Outcome, Value
from studies.results.pareto import pareto_front

SAMPLES = 686


def listed_outcome(kind: str, space: SearchSpace, complete: int | None = None) -> Outcome:
    """A study of this list on a space, its first `complete` designs run, all where None."""
    wide, grid = grid_in(kind, space)
    rng = random.Random(kind)
    draws = np.random.default_rng(3)
    skill = draws.random(SAMPLES)
    rows, right = [], {}
    for number, design in enumerate(grid.designs[:complete]):
        g = design.genotype
        depth = sum(g.deepest_tap(m) / wide.shapes[name].depth for m, name in g.encoders.items())
        gain = 0.015 * g.attention_blocks * (g.attention_over == "tokens") + g.text_tokens / 500
        hits = skill + draws.normal(0, 0.08, SAMPLES) < 0.4 + 0.18 * depth + gain
        right[number] = hits[None].astype(float)
        ms = 0.4 + depth * (0.5 + g.text_tokens / 60) + 0.12 * g.attention_blocks
        ms *= rng.uniform(0.97, 1.03)
        percent = 100 * float(hits.mean())
        rows.append(
            DesignResult(
                number, "complete", g.describe(), name=design.name,
                adapted=design.adapted,
                accuracy=_share(percent - 1, 229), test_accuracy=_share(percent, SAMPLES),
                latency=Value(ms, ms * 0.98, ms * 1.03), fidelity="fusion on frozen trunks",
                published_accuracy=84.25 if "late" in design.adapted else None,
                published_latency_ms=21.6 if "late" in design.adapted else None,
            )
        )  # fmt: skip
    said = {
        "kind": kind,
        "about": "What is compared.",
        "points": [asdict(point) for point in grid.points],
        "notes": list(grid.notes),
    }
    references = tuple(
        DesignResult(None, "complete", "one encoder", name=name, accuracy=_share(p, 229),
            test_accuracy=_share(p, SAMPLES), latency=Value(0.8, 0.7, 0.9))
        for name, p in (("text-only", 71.0), ("vision-only-small-xcit", 54.0))
    )  # fmt: skip
    return replace(
        empty(),
        study=kind,
        title=f"The list {kind}",
        rows=tuple(rows),
        references=references,
        front=pareto_front(rows),
        majority=(52.4, 51.7),
        grid=grid_outcome(said, rows, right),
    )
