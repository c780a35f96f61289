"""A simulated schedule in words: how busy each part is, where it saturates, and what to do."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from studies.report.terminal import duration
from studies.results.text import counted
from studies.simulation.simulate import Part, Schedule, StationUse

SATURATED = 0.9
"""Share of the time from which a station that is held so long is called saturated."""
WORKING = 0.9
"""The same for workers: above it, more of them end the study sooner."""
WORDS = {"boards": "boards", "asking": "asking for trials", "database": "database"}


def bottleneck(part: Part) -> str:
    """The name of the station that is saturated, "workers" where they are, else "none"."""
    most = max(part.stations, key=lambda station: station.utilisation)
    if most.utilisation >= SATURATED:
        return most.name
    return "workers" if part.working >= WORKING else "none"


def own_seconds(schedule: Schedule, part: Part) -> float:
    """Mean seconds of a trial in which its worker waits for nobody."""
    return part.working * schedule.case.workers * part.seconds / part.trials


def in_words(schedule: Schedule) -> Iterator[str]:
    """Yield a schedule in lines."""
    case = schedule.case
    yield (
        f"{counted(case.workers, 'worker')} on {counted(case.hosts, 'host')}, "
        f"{counted(case.boards, 'board')}, {counted(case.trials, 'trial')}; seconds from "
        f"{case.source}"
    )
    for part in schedule.parts:
        if len(schedule.parts) > 1:
            yield f"after {counted(part.before, 'trial')}:"
        an_hour = f"{part.trials_a_second * 3600:,.0f} trials an hour"
        yield f"{an_hour}; workers busy {_percent(part.working)}"
        for station in part.stations:
            yield (
                f"{WORDS[station.name]}: busy {_percent(station.utilisation)} of the time; a trial "
                f"holds {_of(station)} for {station.held_s:.3g} s and waits {station.wait_s:.3g} s "
                "for it"
            )
        yield from _advice(schedule, part)
    yield f"the study takes about {duration(schedule.seconds)}"
    if len(schedule.parts) > 1:
        yield (
            f"{counted(schedule.simulated, 'trial')} were simulated, in {len(schedule.parts)} parts"
        )


def as_json(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule as plain JSON values."""
    case = asdict(schedule.case)
    del case["seconds"]
    parts = [
        asdict(part)
        | {"bottleneck": bottleneck(part), "trials_an_hour": part.trials_a_second * 3600}
        for part in schedule.parts
    ]
    return {
        "case": case,
        "parts": parts,
        "seconds": schedule.seconds,
        "simulated": schedule.simulated,
    }


def _advice(schedule: Schedule, part: Part) -> Iterator[str]:
    """What limits a part, and what to change."""
    case, limit = schedule.case, bottleneck(part)
    own_s = own_seconds(schedule, part)
    if limit == "workers":
        yield "the workers are the limit: more of them end the study sooner"
        return
    if limit == "none":
        yield (
            "nothing is saturated: workers wait for each other now and then, or for the last trials"
        )
        return
    station = next(each for each in part.stations if each.name == limit)
    needed = math.ceil(case.workers / own_s * station.held_s / SATURATED)
    enough = max(1, math.ceil(part.trials_a_second * own_s))
    fewer = f"about {counted(enough, 'worker')} would do the same work"
    if limit == "boards":
        yield (
            f"saturated: boards. {counted(needed, 'board')} would keep pace with "
            f"{counted(case.workers, 'worker')}; with {counted(case.boards, 'board')}, {fewer}. "
            "--deferred-timing times only what may improve the front"
        )
    elif limit == "asking":
        yield (
            "saturated: asking for trials, one worker of a host at a time. Spread the workers over "
            f"{counted(needed, 'host')}, or take a sampler that is quicker, as --sampler random; "
            f"else {fewer}"
        )
    else:
        yield (
            f"saturated: database. It needs {counted(needed, 'core')}, since each worker reads "
            f"each trial; else {fewer}"
        )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _of(station: StationUse) -> str:
    return {"boards": "a board", "asking": "its host's turn", "database": "a core"}[station.name]
