"""The latency to expect of a split design where a share of its inputs was encoded before.

It loads nothing, so that flags can be checked and reports made without PyTorch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np

from evaluators.evaluation import Evaluation, Measure
from search_space.design.genotype import Genotype
from search_space.modality import CALLED, Modality

DRAWN_REQUESTS = 4096
"""Requests that the percentiles are estimated from, drawn from the samples of all parts."""
NOTHING_RUNS = "it has no latency: all of its inputs are cached, and nothing else runs"
OF_REQUESTS = {"p95": 95, "p99": 99}


@dataclass(frozen=True)
class Reuse:
    """Which share of the inputs of each modality is not encoded again; empty for none."""

    shares: tuple[tuple[Modality, float], ...] = ()

    def of(self, genotype: Genotype) -> dict[Modality, float]:
        """The shares of the modalities that a design reads."""
        return {m: share for m, share in self.shares if m in genotype.encoders}

    def key(self, genotype: Genotype) -> dict[str, object]:
        """What the content key of a design's latency holds besides; nothing where none counts."""
        return {"reuse": self.of(genotype)} if self.of(genotype) else {}

    def words(self) -> str:
        """What the latency is, for people: `expected latency with 80 % of images cached`."""
        if not self.shares:
            return ""
        parts = [f"{100 * share:g} % of {CALLED[m]}s" for m, share in self.shares]
        return f"expected latency with {' and '.join(parts)} cached"


def reuse_of(given: Sequence[str]) -> Reuse:
    """Read what --reuse takes, as `image=0.8`. Raises ValueError, in words."""
    modalities = {called: modality for modality, called in CALLED.items()}
    found: dict[Modality, float] = {}
    for text in given:
        name, _, number = text.partition("=")
        if name not in modalities:
            raise ValueError(f"--reuse {text!r}: give image, text or sound, as image=0.8")
        try:
            share = float(number)
        except ValueError:
            share = math.nan
        if not 0 <= share <= 1:
            raise ValueError(
                f"--reuse {text!r}: give the share of repeated {name}s from 0 to 1, as {name}=0.8"
            )
        if modalities[name] in found:
            raise ValueError(f"--reuse {text!r}: {name} is given twice; leave one out")
        found[modalities[name]] = share
    return Reuse(tuple(found.items()))


def expected(
    parts: Mapping[str, Evaluation], shares: Mapping[str, float], costs: tuple[Measure, ...]
) -> Evaluation:
    """Return the expected latency of a design from readings of its parts.

    The mean over requests of the sum of the parts that run: each encoder runs for the share of
    requests whose input was not encoded before. Bounds are the same sum of the parts' bounds, which
    is as wide as if all parts erred alike. Percentiles and jitter are of requests drawn from the
    parts' samples. The peak memory is left out: parts share a process, and were timed in several. A
    design none of whose parts ever runs is infeasible: 0 ms have no ratio to another latency.

    Args:
        parts: readings by the part's name; of one key.
        shares: of requests that do without a part, by its name; 0 for any other.
        costs: static costs of the whole design.
    """
    weights = {name: 1 - shares.get(name, 0.0) for name in parts}
    for name, one in parts.items():
        if one.infeasible:
            return replace(one, measures=costs, infeasible=f"its {name} part: {one.infeasible}")
    first = next(iter(parts.values()))

    def total(measure: str) -> tuple[float, float, float]:
        found = [(weights[name], one[measure]) for name, one in parts.items()]
        values = [
            (w * m.value, w * (m.value if m.low is None else m.low), w * _high(m)) for w, m in found
        ]
        value, low, high = (sum(each) for each in zip(*values, strict=True))
        return value, low, high

    value, low, high = total("latency_ms")
    if not value:
        return replace(first, measures=costs, infeasible=NOTHING_RUNS)
    requests = _requests(parts, shares)
    measures = [Measure("latency_ms", value, "ms", "lower", low, high)]
    measures += [
        Measure(f"latency_{name}_ms", float(np.percentile(requests, percent)), "ms", "lower")
        for name, percent in OF_REQUESTS.items()
    ]
    jitter = fmean(abs(b - a) for a, b in pairwise(requests.tolist()))
    measures.append(Measure("latency_jitter_ms", jitter, "ms", "lower"))
    compiling = sum(one["compile_s"].value for one in parts.values())
    measures.append(Measure("compile_s", compiling, "s", "lower"))
    measures += costs
    told = [{m.name: m for m in one.measures} for one in parts.values()]
    for name in ("energy_mj", "energy_above_idle_mj"):
        if all(name in each for each in told):
            measures.append(Measure(name, total(name)[0], "mJ", "lower"))
    unstable = "; ".join(
        f"its {name} part: {one.unstable}" for name, one in parts.items() if one.unstable
    )
    details = {name: value for name, value in first.details.items() if name not in _OF_ONE_PART}
    return Evaluation(
        first.key,
        "latency",
        tuple(measures),
        {**details, **_details(parts, shares, weights)},
        unstable=unstable,
    )


_OF_ONE_PART = (
    "samples_ms",
    "block_medians_ms",
    "anchor_ms",
    "others_cores",
    "earlier_rounds",
    "mad_ms",
    "percentiles_ms",
    "jitter_ms",
    "device_ms",
    "energy",
    "sent_sha256",
)
"""Details of a reading that say nothing of the whole."""
_KEPT_OF_A_PART = (*_OF_ONE_PART[:3], "cpu_ms", "crowded", "sent_sha256")


def _high(measure: Measure) -> float:
    return measure.value if measure.high is None else measure.high


def _requests(parts: Mapping[str, Evaluation], shares: Mapping[str, float]) -> Any:
    """Milliseconds of requests, (DRAWN_REQUESTS,), always the same for the same samples."""
    rng = np.random.default_rng(0)
    spent = np.zeros(DRAWN_REQUESTS)
    for name, one in parts.items():
        drawn = rng.choice(np.asarray(one.details["samples_ms"]), DRAWN_REQUESTS)
        spent += np.where(rng.random(DRAWN_REQUESTS) < shares.get(name, 0.0), 0.0, drawn)
    return spent


def _details(
    parts: Mapping[str, Evaluation], shares: Mapping[str, float], weights: Mapping[str, float]
) -> dict[str, Any]:
    cpu = [(weights[name], one.details["cpu_ms"]) for name, one in parts.items()]
    known = [w * ms for w, ms in cpu if ms is not None]
    crowded = [one.details["crowded"] for one in parts.values() if one.details["crowded"]]
    return {
        "cpu_ms": sum(known) if len(known) == len(cpu) else None,
        "crowded": crowded[0] if crowded else "",
        "steady": all(one.details["steady"] for one in parts.values()),
        "interruptions": [each for one in parts.values() for each in one.details["interruptions"]],
        "parts": {
            name: {
                "share_cached": shares.get(name, 0.0),
                "ms": one["latency_ms"].value,
                "low_ms": one["latency_ms"].low,
                "high_ms": one["latency_ms"].high,
                **{each: one.details[each] for each in _KEPT_OF_A_PART},
            }
            for name, one in parts.items()
        },
    }
