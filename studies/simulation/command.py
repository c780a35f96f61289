"""`fusion-nas plan`: a study's schedule, simulated."""

import json
from collections.abc import Sequence

from studies.infra.storage import quiet_optuna
from studies.report import terminal
from studies.report.paragraphs import say
from studies.results.text import counted
from studies.simulation.case import (
    Case,
    SimulationError,
    TrialSeconds,
    given_database,
    given_seconds,
    seconds_of,
)
from studies.simulation.simulate import simulate
from studies.simulation.words import as_json, in_words
from studies.study.lookup import find_study


def show_schedule(
    storage: str | None,
    name: str | None,
    seconds: Sequence[str],
    database: Sequence[str],
    size: dict[str, int],
    asking_growth_s: float,
    seed: int,
    json_only: bool,
) -> None:
    """Print a simulated schedule.

    `size` holds trials, workers, hosts and boards. Durations are those of a stored study, unless
    `seconds` gives them as NAME=S. `database` gives cores and costs alike.

    Raises SimulationError, and StorageError where there is no such study.
    """
    quiet_optuna()
    found, source = _durations(storage, name, seconds)
    cores, costs = given_database(_by_name("--database", database))
    case = Case(
        trials=size["trials"],
        workers=size["workers"],
        seconds=found,
        source=source,
        hosts=size["hosts"],
        boards=size["boards"],
        database_cores=cores,
        costs=costs,
        asking_growth_s=asking_growth_s,
    )
    schedule = simulate(case, seed)
    if json_only:
        print(json.dumps(as_json(schedule), allow_nan=False))
        return
    console = terminal.open_console()
    for line in in_words(schedule):
        say(console, line, hang=4)


def _durations(
    storage: str | None, name: str | None, seconds: Sequence[str]
) -> tuple[Sequence[TrialSeconds], str]:
    if not seconds:
        study = find_study(storage, name)
        found = seconds_of(study)
        return found, f"{counted(len(found), 'trial')} of study {study.study_name}"
    if name is not None:
        raise SimulationError(f"--seconds and --name {name}: give one of the two")
    return (given_seconds(_by_name("--seconds", seconds)),), "--seconds"


def _by_name(flag: str, texts: Sequence[str]) -> dict[str, float]:
    given = {}
    for text in texts:
        key, _, value = text.partition("=")
        try:
            given[key] = float(value)
        except ValueError as error:
            raise SimulationError(
                f"{flag} {text}: not NAME=NUMBER", "write --seconds timing=10 or --database cores=4"
            ) from error
    return given
