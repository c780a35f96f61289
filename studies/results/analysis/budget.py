"""Where the time of a study went, and its hypervolume over time."""

from collections.abc import Sequence
from dataclasses import dataclass

from studies.results.outcome import DesignResult, Outcome

STAGES = {
    "building": "building (ONNX export and its check)",
    "compiling": "compiling on the device",
    "queueing": "waiting for this machine's turn to time",
    "timing": "timing, with the link and the wait for a device",
    "probe": "linear probes",
    "training": "training",
    "robustness": "robustness",
    "waiting": "waiting for training batches",
}
"""Stages in the order in which a trial goes through them, and words for them."""
REST = "the rest: sampling, storage, cached results"


@dataclass(frozen=True)
class Budget:
    """Seconds by stage in words, of all trials; active_s: from start to end without pauses.

    The stages of several workers overlap, so that their sum may exceed `active_s`. recorded: trials
    of which stages are known; the others count to the rest.
    """

    seconds: dict[str, float]
    active_s: float
    trials: int
    recorded: int


def budget(rows: Sequence[DesignResult]) -> Budget | None:
    """Where the time of these trials went; None where no trial has its times."""
    times = [row.times for row in rows if row.times is not None]
    if not times:
        return None
    seconds = dict.fromkeys(STAGES, 0.0)
    for each in times:
        for stage, spent in each.stages.items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
    found = {STAGES.get(stage, stage): spent for stage, spent in seconds.items() if spent > 0}
    rest = sum(each.took_s for each in times) - sum(found.values())
    recorded = sum(bool(each.stages) for each in times)
    return Budget(
        {**found, REST: max(0.0, rest)}, max(each.ended_s for each in times), len(times), recorded
    )


def over_time(outcome: Outcome) -> list[tuple[float, float, int]]:
    """(seconds since the start, hypervolume, trial) after each trial that has its time."""
    ended = {row.number: row.times.ended_s for row in outcome.rows if row.times}
    found = [(ended[n], value, n) for n, value in outcome.hypervolume if n in ended]
    # Trials of several workers end in another order than they begin.
    best, rising = 0.0, []
    for seconds, value, number in sorted(found):
        best = max(best, value)
        rising.append((seconds, best, number))
    return rising
