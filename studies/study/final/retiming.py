"""Latencies that are read again when the search is over, in turns, before designs are compared."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import optuna

from evaluators.latency.turns import read_in_turns
from search_space.design.genotype import Genotype
from studies.results.outcome import DesignResult, Outcome
from studies.results.study_outcome import (
    CONDITIONS,
    TURNS,
    outcome_of,
    turns_json,
)
from studies.results.trial_record import genotype_of
from studies.study.context import StudyContext

MOST_SESSIONS = 3
"""A design that was read too fast in its trial may leave the front when it is read again, and
others take its place, which are then read too. The front may settle slowly; this bounds it."""


def retime(
    context: StudyContext,
    study: optuna.Study,
    references: Mapping[str, Genotype],
) -> None:
    """Read the front, named designs and references again, in turns, until the front stays.

    Named designs of a fixed list are not read again unless they are on its front: there may be
    hundreds. With `retime`, designs that were timed under load are read again too. Stored as an
    attribute of the study; nothing is done where all of these were read in one session already.

    Raises:
        ParityError, MeasureError, DeviceError: As `LatencyEvaluator.evaluate`.
    """
    rounds = context.settings.device.rounds
    for time in range(MOST_SESSIONS if rounds else 0):
        wanted = _wanted(context, study, references)
        stored = study.user_attrs.get(TURNS, {})
        if len(wanted) < 2 or _in_one_session(stored, wanted):
            return
        again = f" again, as the front changed ({time + 1} of at most {MOST_SESSIONS})"
        what = f"timing {len(wanted)} designs in turns{again if time else ''}"
        step = partial(context.step, what)
        session = 1 + max((found["session"] for found in stored.values()), default=0)
        found = read_in_turns(context.latency, list(wanted.values()), rounds, step)
        read = {
            who: turns_json(session, found[context.latency.key(design)])
            for who, design in wanted.items()
        }
        study.set_user_attr(TURNS, {**stored, **read})
        said = f"front and named designs read {rounds} times at the end, in turns"
        study.set_user_attr(CONDITIONS, {**study.user_attrs[CONDITIONS], "final latency": said})


def _wanted(
    context: StudyContext, study: optuna.Study, references: Mapping[str, Genotype]
) -> dict[str, Genotype]:
    """The designs to read, by trial number or reference's name."""
    outcome = outcome_of(study)
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    rows = _rows(outcome, fixed=context.grid is not None)
    if context.settings.device.retime:
        rows += [row for row in outcome.rows if row.crowded and row.state == "complete"]
    wanted = {
        str(row.number): genotype_of(trials[row.number]) for row in rows if row.number is not None
    }
    shown = {row.name for row in outcome.references if row.latency and row.state == "complete"}
    return wanted | {name: design for name, design in references.items() if name in shown}


def _rows(outcome: Outcome, fixed: bool) -> list[DesignResult]:
    named = [] if fixed else [standing.row for standing in outcome.standings]
    return [*outcome.front, *named]


def _in_one_session(stored: Mapping[str, Any], wanted: Mapping[str, Genotype]) -> bool:
    sessions = {stored[who]["session"] if who in stored else None for who in wanted}
    return len(sessions) == 1 and None not in sessions
