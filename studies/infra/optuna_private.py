"""What Optuna 5 can do and offers under private names alone; nothing else here uses those."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import optuna
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import StudyUserAttributeModel as Attribute
from optuna.storages._rdb.models import (
    TrialHeartbeatModel,
    TrialModel,
    TrialUserAttributeModel,
)
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import delete, exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from studies.infra.journal.file import held
from studies.infra.journal.storage import Journal
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


def set_system_attribute(
    study: optuna.Study, trial: optuna.Trial | FrozenTrial, key: str, value: Any
) -> None:
    """Write what a sampler keeps beside a trial, for samplers of other processes to read."""
    # Optuna's own samplers do so; a sampler is given a trial that has no public way to it.
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def record_heartbeat(study: optuna.Study, trial: optuna.Trial | FrozenTrial) -> None:
    """Write the database's time beside a running trial."""
    # `Study.optimize` does so in a thread of its own; with `ask` and `tell` nothing does.
    backend = _backend(study)
    if isinstance(study._storage, Journal):
        study._storage.beat(trial._trial_id)
    if backend is not None:
        with whole():
            backend.record_heartbeat(trial._trial_id)


def heartbeat_ages_s(study: optuna.Study) -> dict[int, float]:
    """Return how long ago each running trial showed a sign of life, by number, in seconds.

    By the clock of the database, or of a journal's file system. Trials that never did are left out.
    """
    # Optuna gives the stale ones alone, of a storage that is opened for `Study.optimize`.
    backend, journal = _backend(study), study._storage
    if isinstance(journal, Journal):
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        ages = {trial.number: journal.age_s(trial._trial_id) for trial in running}
        return {number: age for number, age in ages.items() if age is not None}
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
    backend, attribute, journal = _backend(study), TrialUserAttributeModel, study._storage
    if isinstance(journal, Journal):
        with held(journal.turn):
            now = journal.get_trial(trial._trial_id)
            if now.user_attrs.get(key) != old or now.state is not TrialState.RUNNING:
                return False
            journal.set_trial_user_attr(trial._trial_id, key, new)
            return True
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

    Who holds the turn is a user attribute of the study, which the storage has once. A holder that
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
    turn: _Turn
    if isinstance(study._storage, Journal):
        turn = _JournalTurn(study, study._storage, name, worker)
    elif (backend := _backend(study)) is not None:
        turn = _DatabaseTurn(study, backend, name, worker)
    else:
        yield
        return
    held_by, since = None, time.monotonic()
    while not patiently(partial(turn.take, None)):
        now = patiently(turn.holder)
        if now != held_by:
            held_by, since = now, time.monotonic()
        late = time.monotonic() - since > patience_s
        if (
            held_by is not None
            and (late or is_dead(held_by))
            and patiently(partial(turn.take, held_by))
        ):
            break
        time.sleep(pause_s)
    try:
        yield
    finally:
        patiently(turn.give_back)


class _Turn(Protocol):
    """A turn that one worker of a study holds at a time."""

    def take(self, held_by: str | None) -> bool:
        """Take it from a holder, None for none; whether that was the holder."""

    def holder(self) -> str | None:
        """Who holds it; None for nobody."""

    def give_back(self) -> None:
        """Let others take it, where this worker holds it."""


class _JournalTurn:
    """A user attribute of a study in a journal, changed while the journal's turn is held."""

    def __init__(self, study: optuna.Study, journal: Journal, name: str, worker: str) -> None:
        self._id, self._journal, self._name, self._worker = study._study_id, journal, name, worker

    def take(self, held_by: str | None) -> bool:
        return self._replace(held_by, self._worker)

    def holder(self) -> str | None:
        found: str | None = self._journal.get_study_user_attrs(self._id).get(self._name)
        return found

    def give_back(self) -> None:
        self._replace(self._worker, None)

    def _replace(self, old: str | None, new: str | None) -> bool:
        with held(self._journal.turn):
            if self.holder() != old:
                return False
            self._journal.set_study_user_attr(self._id, self._name, new)
            return True


class _DatabaseTurn:
    """A user attribute of a study, which a database holds once."""

    def __init__(self, study: optuna.Study, backend: RDBStorage, name: str, worker: str) -> None:
        self._name, self._mine, self._engine = name, json.dumps(worker), backend.engine
        self._id = study._study_id
        self._place = (Attribute.study_id == self._id, Attribute.key == name)

    def take(self, held_by: str | None) -> bool:
        try:
            with whole(), self._engine.begin() as connection:
                if held_by is None:
                    values = {"study_id": self._id, "key": self._name, "value_json": self._mine}
                    connection.execute(insert(Attribute).values(values))
                    return True
                same = Attribute.value_json == json.dumps(held_by)
                change = update(Attribute).where(*self._place, same)
                return connection.execute(change.values(value_json=self._mine)).rowcount == 1
        except IntegrityError:
            return False

    def holder(self) -> str | None:
        with self._engine.connect() as connection:
            found = connection.execute(select(Attribute.value_json).where(*self._place))
            text = found.scalar_one_or_none()
        return None if text is None else str(json.loads(text))

    def give_back(self) -> None:
        mine = Attribute.value_json == self._mine
        with whole(), self._engine.begin() as connection:
            connection.execute(delete(Attribute).where(*self._place, mine))


def _backend(study: optuna.Study) -> RDBStorage | None:
    """The database behind Optuna's cache of it; None for a storage in memory."""
    storage = study._storage
    backend = getattr(storage, "_backend", storage)
    return backend if isinstance(backend, RDBStorage) else None
