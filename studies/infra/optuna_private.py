"""What Optuna 5 can do and offers under private names alone; nothing else here uses those."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import (
    StudyUserAttributeModel,
    TrialHeartbeatModel,
    TrialModel,
    TrialUserAttributeModel,
)
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import delete, exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from studies.infra.patience import patiently
from studies.infra.signals import whole


def trial_of(study: optuna.Study, stored: FrozenTrial) -> optuna.Trial:
    """Return a handle on a stored trial, to go on with it or to write beside it."""
    # Optuna gives a handle to whoever asked for the trial; `Study.tell` takes a number instead, but
    # nothing public suggests or sets attributes by one, nor tells a trial's id in the storage.
    return optuna.Trial(study, stored._trial_id)


def next_waiting(study: optuna.Study) -> optuna.Trial | None:
    """Take the first trial that waits in the queue; None where none does."""
    # `Study.ask` takes it too, but makes a new trial where none waits: whoever looks first and asks
    # then may lose the last one to a worker of another home in between.
    trial_id = study._pop_waiting_trial_id()
    return None if trial_id is None else optuna.Trial(study, trial_id)


def stored_attribute(trial: optuna.Trial, key: str) -> object:
    """Return a user attribute as the storage has it now, also where another worker set it."""
    # `Trial.user_attrs` gives what this process wrote or read when it began the trial.
    return trial.study._storage.get_trial(trial._trial_id).user_attrs.get(key)


def record_heartbeat(study: optuna.Study, trial: optuna.Trial | FrozenTrial) -> None:
    """Write the database's time beside a running trial."""
    # `Study.optimize` does so in a thread of its own; with `ask` and `tell` nothing does.
    backend = _backend(study)
    if backend is not None:
        with whole():
            backend.record_heartbeat(trial._trial_id)


def heartbeat_ages_s(study: optuna.Study) -> dict[int, float]:
    """Return how long ago each running trial showed a sign of life, by number, in seconds.

    By the clock of the database. Trials that never did are left out.
    """
    # Optuna gives the stale ones alone, of a storage that is opened for `Study.optimize`.
    backend = _backend(study)
    if backend is None:
        return {}
    found = (
        select(TrialModel.number, TrialHeartbeatModel.heartbeat)
        .join(TrialHeartbeatModel, TrialHeartbeatModel.trial_id == TrialModel.trial_id)
        .where(TrialModel.study_id == study._study_id, TrialModel.state == TrialState.RUNNING)
    )
    engine = backend.engine

    def read() -> tuple[Sequence[Any], datetime]:
        with whole(), engine.begin() as connection:
            rows = connection.execute(found).all()
            return rows, connection.execute(select(func.now())).scalar_one().replace(tzinfo=None)

    rows, now = patiently(read)
    return {row.number: (now - row.heartbeat).total_seconds() for row in rows}


def replace_attribute(
    study: optuna.Study,
    trial: optuna.Trial | FrozenTrial,
    key: str,
    old: str | None,
    new: str,
) -> bool:
    """Set a user attribute of a running trial where it is still `old`, None for not set.

    Of several workers that try so at once, one gets True.
    """
    # Optuna's own setters do not compare.
    backend, attribute = _backend(study), TrialUserAttributeModel
    if backend is None:
        optuna.Trial(study, trial._trial_id).set_user_attr(key, new)
        return True
    runs = exists().where(
        TrialModel.trial_id == trial._trial_id, TrialModel.state == TrialState.RUNNING
    )
    of_trial = (attribute.trial_id == trial._trial_id, attribute.key == key)
    engine = backend.engine

    def replace() -> bool:
        try:
            with whole(), engine.begin() as connection:
                if old is None:
                    values = {
                        "trial_id": trial._trial_id,
                        "key": key,
                        "value_json": json.dumps(new),
                    }
                    connection.execute(insert(attribute).values(values))
                    return True
                same = attribute.value_json == json.dumps(old)
                change = update(attribute).where(*of_trial, same, runs)
                done = connection.execute(change.values(value_json=json.dumps(new)))
                return bool(done.rowcount == 1)
        except IntegrityError:
            return False

    return patiently(replace)


@contextmanager
def turn_of_all_homes(
    study: optuna.Study,
    name: str,
    worker: str,
    is_dead: Callable[[str], bool],
    patience_s: float,
    pause_s: float = 0.1,
) -> Iterator[None]:
    """Let one process at a time go on, of all that work on a study, whatever their home and host.

    Who holds the turn is a user attribute of the study, which the database has once. A holder that
    ended without giving it back is passed over: at once where it is known to be dead, else once it
    has been the same for `patience_s` by the clock of who waits. A storage in memory belongs to one
    process, and has no turns.

    Args:
        study: the study.
        name: of the attribute.
        worker: the name of this worker, which no other has.
        is_dead: whether a worker is known to have ended.
        patience_s: how long any other holder may take.
        pause_s: how long to wait before looking again.
    """
    backend, attribute = _backend(study), StudyUserAttributeModel
    if backend is None:
        yield
        return
    mine, engine = json.dumps(worker), backend.engine
    place = (attribute.study_id == study._study_id, attribute.key == name)

    def taken(held: str | None) -> bool:
        try:
            with whole(), engine.begin() as connection:
                if held is None:
                    values = {"study_id": study._study_id, "key": name, "value_json": mine}
                    connection.execute(insert(attribute).values(values))
                    return True
                change = update(attribute).where(*place, attribute.value_json == held)
                return connection.execute(change.values(value_json=mine)).rowcount == 1
        except IntegrityError:
            return False

    def holder() -> str | None:
        with engine.connect() as connection:
            found = connection.execute(select(attribute.value_json).where(*place))
            return found.scalar_one_or_none()

    def give_back() -> None:
        with whole(), engine.begin() as connection:
            connection.execute(delete(attribute).where(*place, attribute.value_json == mine))

    held, since = None, time.monotonic()
    while not patiently(partial(taken, None)):
        now = patiently(holder)
        if now != held:
            held, since = now, time.monotonic()
        late = time.monotonic() - since > patience_s
        if (
            held is not None
            and (late or is_dead(json.loads(held)))
            and patiently(partial(taken, held))
        ):
            break
        time.sleep(pause_s)
    try:
        yield
    finally:
        patiently(give_back)


def _backend(study: optuna.Study) -> RDBStorage | None:
    """The database behind Optuna's cache of it; None for a storage in memory."""
    storage = study._storage
    backend = getattr(storage, "_backend", storage)
    return backend if isinstance(backend, RDBStorage) else None
