"""What Optuna 5 can do and offers under private names alone; nothing else here uses those."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import (
    TrialHeartbeatModel,
    TrialModel,
    TrialUserAttributeModel,
)
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import exists, func, insert, select, update
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


def record_heartbeat(trial: optuna.Trial) -> None:
    """Write the database's time beside a running trial."""
    # `Study.optimize` does so in a thread of its own; with `ask` and `tell` nothing does.
    backend = _backend(trial.study)
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
    study: optuna.Study, stored: FrozenTrial, key: str, old: str | None, new: str
) -> bool:
    """Set a user attribute of a running trial where it is still `old`, None for not set.

    Of several workers that try so at once, one gets True.
    """
    # Optuna's own setters do not compare.
    backend, attribute = _backend(study), TrialUserAttributeModel
    if backend is None:
        trial_of(study, stored).set_user_attr(key, new)
        return True
    runs = exists().where(
        TrialModel.trial_id == stored._trial_id, TrialModel.state == TrialState.RUNNING
    )
    of_trial = (attribute.trial_id == stored._trial_id, attribute.key == key)
    engine = backend.engine

    def replace() -> bool:
        try:
            with whole(), engine.begin() as connection:
                if old is None:
                    values = {
                        "trial_id": stored._trial_id,
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


def _backend(study: optuna.Study) -> RDBStorage | None:
    """The database behind Optuna's cache of it; None for a storage in memory."""
    storage = study._storage
    backend = getattr(storage, "_backend", storage)
    return backend if isinstance(backend, RDBStorage) else None
