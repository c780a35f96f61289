"""Studies replayed on a table: how soon a sampler finds the front, and what it costs to ask."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import optuna

from search_space.space.space import SearchSpace
from studies.results.objectives import Goals
from studies.samplers.registry import distributions
from studies.study.identity import directions_of
from studies.table.table import Table

Maker = Callable[[int], optuna.samplers.BaseSampler]
"""Makes a trial's sampler from the trial's number, as `sampler_maker` does."""


class Proposer(Protocol):
    """What proposes designs in turn: Optuna's samplers, and those of other toolkits."""

    @property
    def started(self) -> int:
        """Designs begun so far, with those that it stopped itself before they were trained."""
        ...

    def ask(self) -> Mapping[str, Any]:
        """The next design to train, as a trial's answers. Raises SpaceExhausted."""
        ...

    def tell(self, accuracy: float, latency: float) -> None:
        """What the design that was asked last has come to: percent and ms."""
        ...


class OptunaProposer:
    """A study of Optuna's in memory, whose sampler `make` gives for every trial."""

    def __init__(self, make: Maker, space: SearchSpace) -> None:
        self._make, self._asked = make, distributions(space)
        self._study = optuna.create_study(directions=directions_of(Goals()), sampler=make(0))
        self.started = 0

    def ask(self) -> Mapping[str, Any]:
        """As the Protocol has it."""
        self._study.sampler = self._make(self.started)
        params = self._study.ask(self._asked).params
        self.started += 1
        return params

    def tell(self, accuracy: float, latency: float) -> None:
        """As the Protocol has it."""
        self._study.tell(self.started - 1, [accuracy, latency])


@dataclass(frozen=True)
class Replay:
    """One study of a table.

    hypervolume: of the designs tried so far over that of the whole table, at each of `at` trials,
    from the published reference point (0 %, 1.1 times the slowest). above_lowest: the same from
    the table's lowest accuracy up, where samplers stand further apart. started: designs begun by
    then, also those that the sampler stopped before training. different: designs tried.
    seconds_a_trial: of asking and telling, in memory, the first trial left out; slowest_s of those.
    """

    sampler: str
    seed: int
    noise: bool
    at: tuple[int, ...]
    hypervolume: tuple[float, ...]
    above_lowest: tuple[float, ...]
    started: tuple[int, ...]
    different: int
    seconds_a_trial: float
    slowest_s: float
    first_s: float

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def replay(
    table: Table, name: str, proposer: Proposer, seed: int, noise: bool, at: tuple[int, ...]
) -> Replay:
    """Replays one study of `at[-1]` trials, at least 2, with a proposer that is new.

    With noise the proposer is told one training seed's accuracy, drawn by `seed` and the same for a
    design whenever it comes; without, the mean over seeds. Hypervolume is that of the means. A
    design that comes again is a trial like any other, as in a study that pays for it with a place
    in its total; one that has no untried design left ends the study, and its last
    hypervolume stands from there on.
    """
    from studies.samplers.ehvi import SpaceExhausted

    rng = np.random.default_rng(seed)
    count, seeds = table.accuracy.shape
    told = table.accuracy[np.arange(count), rng.integers(seeds, size=count)]
    told = told if noise else table.mean
    rows: list[int] = []
    started: list[int] = []
    seconds: list[float] = []
    for _ in range(at[-1]):
        begun = time.perf_counter()
        try:
            params = proposer.ask()
        except SpaceExhausted:
            break
        asking = time.perf_counter() - begun
        row = table.row(params)
        begun = time.perf_counter()
        proposer.tell(float(told[row]), float(table.latency[row]))
        seconds.append(asking + time.perf_counter() - begun)
        rows.append(row)
        started.append(proposer.started)
    lowest = float(table.mean.min())
    return Replay(
        name,
        seed,
        noise,
        at,
        tuple(round(table.volume(rows[:n]), 5) for n in at),
        tuple(round(table.volume(rows[:n], lowest), 5) for n in at),
        tuple(started[min(n, len(started)) - 1] for n in at),
        len(set(rows)),
        round(float(np.mean(seconds[1:])), 4),
        round(max(seconds[1:]), 4),
        round(seconds[0], 4),
    )


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """(lower quartile, median, upper quartile)."""
    low, middle, high = (round(float(q), 4) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    return low, middle, high


def summary(runs: Sequence[Replay]) -> list[dict[str, Any]]:
    """An entry a sampler, with and without noise; quartiles over its seeds."""
    found = []
    for noise in (True, False):
        for name in dict.fromkeys(run.sampler for run in runs):
            same = [run for run in runs if (run.sampler, run.noise) == (name, noise)]
            if not same:
                continue
            found.append(
                {
                    "sampler": name,
                    "noise": noise,
                    "seeds": len(same),
                    "hypervolume": _at(same, "hypervolume"),
                    "above_lowest": _at(same, "above_lowest"),
                    "started": _at(same, "started"),
                    "different": quartiles([run.different for run in same]),
                    "seconds_a_trial": quartiles([run.seconds_a_trial for run in same]),
                }
            )
    return found


def _at(runs: Sequence[Replay], what: str) -> dict[str, tuple[float, float, float]]:
    at = runs[0].at
    return {str(n): quartiles([getattr(run, what)[k] for run in runs]) for k, n in enumerate(at)}


def as_text(entries: Sequence[Mapping[str, Any]]) -> str:
    """The summary in lines of at most 80 columns: median (lower to upper quartile)."""
    lines = []
    for what, words in (("hypervolume", "from 0 %"), ("above_lowest", "above the lowest %")):
        for noise in (True, False):
            held = [entry for entry in entries if entry["noise"] is noise]
            if not held:
                continue
            accuracy = "accuracy of one seed" if noise else "mean accuracy"
            lines.append(f"share of the front's hypervolume {words}, {accuracy}")
            at = held[0][what]
            lines.append("sampler     " + "".join(f"{n + ' trials':>19} " for n in at) + " s/trial")
            for entry in held:
                cells = "".join(
                    f"{middle:.3f} ({low:.3f}-{high:.3f})".rjust(20)
                    for low, middle, high in entry[what].values()
                )
                lines.append(f"{entry['sampler']:<12}{cells}{entry['seconds_a_trial'][1]:8.3f}")
                if any(middle > int(n) for n, (_, middle, _) in entry["started"].items()):
                    begun = ", ".join(f"{middle:.0f}" for _, middle, _ in entry["started"].values())
                    lines.append(f"  of {begun} started: others were stopped before training")
    return "\n".join(lines)
