"""The loop: ask, decode, time, train, tell. One trial in one direction, resumable at any point."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState

from search_space.design.genotype import Genotype
from studies.infra.leases import LEASE_S, LeaseLost
from studies.infra.optuna_private import (
    heartbeat_ages_s,
    next_waiting,
    record_heartbeat,
    replace_attribute,
    stored_attribute,
    trial_of,
    turn_of_all_homes,
)
from studies.infra.patience import patiently
from studies.infra.workers import RELEASED, Workers
from studies.report.progress import Reporter
from studies.results.objectives import Goals
from studies.results.study_outcome import duplicate_of
from studies.results.text import counted
from studies.results.trial_record import (
    WORKER,
    TrialRecord,
    TrialResult,
    again_of,
    worker_of,
)
from studies.samplers.ehvi import EnumeratedEhviSampler, SpaceExhausted
from studies.search.early_stopping import trained_and_not_timed
from studies.search.stopping import STOPPED, StoppingRules
from studies.search.trial_index import TrialIndex
from studies.search.trial_runner import FOR_A_PERSON, TrialRunner, search_stopped

MAX_ATTEMPTS = 3
"""A trial whose worker ends in the middle of it is taken up again, up to this often."""
ASKING_AT_MOST = timedelta(minutes=5)
"""A worker of another home that has not signed its trial by then has ended."""
SEEDING = "seeding"
"""User attribute of a study while a worker queues seeded designs: who does."""
LOOK_EVERY_S = 1.0
"""So often the trials of other live workers are looked at when nothing else is left to do."""


class Seed(Protocol):
    """A design to be tried under a name of its own."""

    @property
    def name(self) -> str:
        """What the trial is called."""
        ...

    @property
    def genotype(self) -> Genotype:
        """The design."""
        ...

    @property
    def adapted(self) -> str:
        """How a published design was brought into the space; else empty."""
        ...


class Search:
    """Drives one Optuna study to a number of finished trials.

    A study of a fixed list (`fixed`) tries the seeded designs alone: nothing is ever sampled.
    """

    def __init__(
        self,
        runner: TrialRunner,
        workers: Workers,
        reporter: Reporter,
        sampler: Callable[[int], optuna.samplers.BaseSampler],
        fixed: bool = False,
        stopping: StoppingRules | None = None,
        after_trial: Callable[[], object] = lambda: None,
        index: TrialIndex | None = None,
    ) -> None:
        """`sampler` makes the sampler of a trial from the trial's number.

        `index` is shared by searches that read one storage in one process; by default each has one.
        """
        self._stopping, self._stopped = stopping or StoppingRules(), ""
        self._runner, self._study, self._space = runner, runner.study, runner.space
        self._workers, self._reporter = workers, reporter
        self._sampler, self._fixed, self._after_trial = sampler, fixed, after_trial
        self._ledger, self._exhausted = index or TrialIndex(), False
        runner.worker = workers.name
        self.left_to_others: list[str] = []
        """In words, the trials that were in the hands of others when `run` ended short."""

    def seed(self, designs: Sequence[Seed]) -> None:
        """Queues designs as named trials, each once however often it is called.

        One whose trial failed or was unstable is queued again; one that the space does not offer
        is left out. Workers of one home take turns by a lock, those of several in the storage.
        """
        workers = self._workers
        turn = turn_of_all_homes(self._study, SEEDING, workers.name, workers.is_dead, LEASE_S)
        with workers.turn, turn:
            trials = self._study.get_trials(deepcopy=False)
            begun = [TrialRecord.of(t) for t in trials if t.state is not TrialState.FAIL]
            names = {record.name for record in begun if not record.result.unstable}
            for seeded in designs:
                if seeded.name in names:
                    continue
                try:
                    vector = self._space.encode(seeded.genotype)
                except ValueError as error:
                    self._reporter.line(f"{seeded.name} is left out: {error}")
                    continue
                params = {d.name: c for d, c in zip(self._space.decisions, vector, strict=True)}
                record = TrialRecord(name=seeded.name, adapted=seeded.adapted)
                self._study.enqueue_trial(params, user_attrs=record.to_attributes())

    def begin(self, total: int) -> None:
        """Report how many of `total` trials are finished before the first of this run."""
        self._read()
        self._reporter.trial(self._count(running=False), total, "")

    def run(self, total: int) -> None:
        """Goes on until the study has `total` finished trials, first with those cut off.

        Trials that other live workers run are waited for, and taken over where the worker
        dies. Ends before the total, and says so, when the sampler has no untried design left, or
        trials belong to workers that show no sign of life (`left_to_others`). At the end
        those of the designs that were trained and not timed are timed that may add to the front.
        Raises StoreError, and SearchStopped when several trials in a row fail, many are unstable,
        or the device needs a person.
        """
        told = False
        while True:
            try:
                trial = self._next_or_end(total) or self._next_to_time()
            except optuna.exceptions.UpdateFinishedTrialError:
                continue  # this worker was suspended as it took over; another one ended the trial
            if trial:
                self._take(trial, total)
                continue
            alive, unknown = self._run_by_others(total)
            if not alive:
                break
            if not told:
                self._reporter.line(f"waiting for {' and '.join(alive)}")
                told = True
            self._reporter.step("waiting for other workers", 0, 1)
            self._workers.pause(LOOK_EVERY_S)
        self.left_to_others = unknown
        self._tell_of_waiting()

    def _run_by_others(self, total: int) -> tuple[list[str], list[str]]:
        """In words, the trials that others run of a study that is short: leased, and not known."""
        self._read()
        if self._count(running=False) >= total or not self._ledger.running:
            return [], []
        ages = heartbeat_ages_s(self._study)
        found: tuple[list[str], list[str]] = [], []
        dead = {trial.number for trial in self._cut_off()} if self._stopped else set()
        for trial in self._ledger.running:
            worker = worker_of(trial)
            if trial.number in dead:
                continue  # nothing takes it over after a stopping rule; the next run does
            if not worker:  # it is signed soon, or taken over after ASKING_AT_MOST
                found[0].append(f"trial {trial.number}, which no worker has begun yet")
            elif worker != self._workers.name:  # workers of 0.1.0 sign and have no heartbeat
                found[trial.number not in ages].append(f"trial {trial.number} of worker {worker}")
        return found

    def _next_or_end(self, total: int) -> optuna.Trial | None:
        """As `_next`; None, which is said, also where the sampler has no untried design left, or
        a stopping rule ends the search."""
        self.check_stopping(total)
        if self._stopped:
            return None
        try:
            return self._next(total)
        except SpaceExhausted as end:
            if not self._exhausted:
                self._reporter.line(f"{end}: no more trials")
            self._exhausted = True
            return None

    def check_stopping(self, total: int) -> None:
        """End the search where a stopping rule asks for it, and say so."""
        if self._stopped or not self._stopping.are_given:
            return
        self._stopped = self._stopping.reached(self._read(), self._runner.goals)
        if self._stopped and self._stopping.are_own:  # workers of other hosts begin nothing more
            self._study.set_user_attr(STOPPED, self._stopped)
        if self._stopped and self._count() < total:
            self._reporter.line(
                f"stopped at {self._count()} of {counted(total, 'trial')}: {self._stopped}"
            )

    def _take(self, trial: optuna.Trial, total: int) -> None:
        """Sees a trial to its end and tells of it."""
        try:
            with self._workers.leased(trial):
                self._runner.finish(trial, partial(self._reporter.step, done=0, total=1))
        except KeyboardInterrupt:
            self._leave(trial)
            raise
        except FOR_A_PERSON as error:
            self._leave(trial)
            raise search_stopped("the device needs a person", error) from error
        except (LeaseLost, optuna.exceptions.UpdateFinishedTrialError):
            self._reporter.line(
                f"trial {trial.number} was taken over by another worker: this one was suspended "
                f"for over {LEASE_S:g} s"
            )
            return
        except BaseException:
            self._release(trial)
            raise
        trials, goals = self._read(), self._runner.goals
        told = _told(trials[trial.number], self._ledger.first, goals)
        reached = self._ledger.hypervolume(goals)
        said = "" if reached is None else f"; hypervolume {reached:.4g}"
        self._reporter.trial(self._count(running=False), total, told + said)
        self._after_trial()

    def _next_to_time(self) -> optuna.Trial | None:
        """A trial for the trained design that is to be timed next, signed; None for none."""
        with self._workers.turn:
            found = self._runner.early.next_to_time(self._read())
            if found is None:
                return None
            key = TrialRecord.of(found).result.key
            # Released from the start: whoever finds it may take it should this worker die here.
            worker = f"{RELEASED}{self._workers.name}"
            record = TrialRecord(again=key, worker=worker, attempts=0)
            made = optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=found.params,
                distributions=found.distributions,
                user_attrs=record.to_attributes(),
            )
            # Not queued: a design that waits for a greater total would come first.
            self._study.add_trial(made)
            self._read()
            mine = [t for t in self._ledger.running if TrialRecord.of(t) == record]
            return self._take_over(mine[-1]) if mine else None

    def _read(self) -> list[FrozenTrial]:
        """All trials as they stand now, in order of number, also those of other workers."""
        trials = self._study.get_trials(deepcopy=False)
        self._ledger.update(trials)
        return trials

    def _leave(self, trial: optuna.Trial) -> None:
        """Leaves a trial to the next run: being interrupted is no fault of the trial."""
        with suppress(Exception):
            TrialRecord(attempts=0).store(trial)
        self._release(trial)

    def _release(self, trial: optuna.Trial) -> None:
        """Gives a trial free: whoever comes next takes it over at once."""
        with suppress(Exception):
            if stored_attribute(trial, WORKER) == self._workers.name:
                TrialRecord(worker=f"{RELEASED}{self._workers.name}").store(trial)

    def _tell_of_waiting(self) -> None:
        """Says what is left to do: seeded designs beyond the total, trained ones not timed."""
        trials = self._read()
        deferred = self._ledger.stopped and self._runner.early.latency is None
        untimed = trained_and_not_timed(trials)[0] if deferred else {}
        if untimed:
            self._reporter.line(
                f"{counted(len(untimed), 'design')} trained earlier and never timed: the same "
                "command with --deferred-timing times those that may stand on the front"
            )
        waiting = self._ledger.waiting
        if waiting:
            seeded = len({TrialRecord.of(trial).name for trial in trials} - {""})
            still = "still waits" if len(waiting) == 1 else "still wait"
            what = "listed design" if self._fixed else "seeded design"
            self._reporter.line(
                f"{len(waiting)} of {counted(seeded, what)} {still}: "
                f"--trials {self._count() + len(waiting)} or more"
            )

    def _next(self, total: int) -> optuna.Trial | None:
        """A trial that was cut off, else a new one, signed; None once there are enough.

        Workers of one home take turns, so they neither take the same trial nor ask too many.
        Raises SpaceExhausted, before a trial is made for it.
        """
        with self._workers.turn:
            while True:
                trials = self._read()
                for frozen in self._cut_off():
                    trial = self._take_over(frozen)
                    if trial is not None:
                        return trial
                    trials = self._read()
                if self._count() >= total:
                    return None
                self._study.sampler = self._sampler(len(trials))
                waits = bool(self._ledger.waiting)
                if isinstance(self._study.sampler, EnumeratedEhviSampler) and not waits:
                    self._study.sampler.check_untried(trials, self._study.directions)
                self._workers.asking.write_text(self._study.study_name, encoding="utf-8")
                try:
                    # Of a list `ask` would draw one after the last, and workers of several homes
                    # take no turns: looking first and asking then is not enough.
                    trial = next_waiting(self._study) if self._fixed else self._study.ask()
                    signed = trial is None or self._sign(trial)
                    if trial is not None and signed:
                        self._decide(trial)
                except optuna.exceptions.UpdateFinishedTrialError:
                    signed = False  # suspended within `ask`: another worker has ended the trial
                self._workers.asking.unlink(missing_ok=True)
                if signed:
                    return trial

    def _sign(self, trial: optuna.Trial) -> bool:
        """Whether a trial that was asked for is this worker's.

        It is not where the worker was suspended before it signed, and another one took it over.
        The sampler is asked before: what follows writes choices, and must not take long.
        """
        _ = trial.relative_params
        # Before the name: see `_run_by_others`.
        patiently(partial(record_heartbeat, self._study, trial))
        return replace_attribute(self._study, trial, WORKER, None, self._workers.name)

    def _decide(self, trial: optuna.Trial) -> None:
        """Makes every decision of the trial that is not made yet."""
        for decision in self._space.decisions:
            if decision.kind == "integer":
                low, high = int(decision.choices[0]), int(decision.choices[-1])
                trial.suggest_int(decision.name, low, high)
            else:
                trial.suggest_categorical(decision.name, decision.choices)

    def _count(self, *, running: bool = True) -> int:
        """Trials that are finished, or in the hands of another live worker.

        Of one reading: a trial that ends between two would be in neither. A design that was
        trained and is timed at the end is counted once. Of a fixed list designs are counted: one
        that is timed again after an unstable reading is not two.
        """
        in_hand = self._ledger.running if running else []
        if not self._fixed:
            return self._ledger.finished + sum(not again_of(trial) for trial in in_hand)
        begun = [TrialRecord.of(trial) for trial in in_hand]
        names = {record.name for record in begun if not record.result.unstable}
        return len(self._ledger.names | names)

    def _cut_off(self) -> list[FrozenTrial]:
        """Trials whose worker died in the middle, also in the middle of asking for it."""
        died_asking = self._workers.is_asking(self._study.study_name)
        ages = heartbeat_ages_s(self._study) if self._ledger.running else {}
        found = []
        for trial in self._ledger.running:
            worker = worker_of(trial)
            if worker:
                dead = self._workers.is_dead(worker, ages.get(trial.number))
            else:
                begun = trial.datetime_start or datetime.min
                dead = died_asking or datetime.now() - begun > ASKING_AT_MOST
            if dead:
                found.append(trial)
        return found

    def _take_over(self, frozen: FrozenTrial) -> optuna.Trial | None:
        """The trial, decided where it was not yet; None, told as failed, after too many attempts
        and where no design is left for it, or where another worker was first."""
        known_worker = frozen.user_attrs.get(WORKER)
        own = self._workers.name
        patiently(partial(record_heartbeat, self._study, frozen))
        if not replace_attribute(self._study, frozen, WORKER, known_worker, own):
            return None
        self._study.sampler = self._sampler(frozen.number)
        trial = trial_of(self._study, frozen)
        known = TrialRecord.of(frozen).attempts
        attempts = 1 if known is None else known
        if attempts >= MAX_ATTEMPTS:
            self._give_up(trial, f"its worker ended in the middle of it {attempts} times")
            return None
        TrialRecord(attempts=attempts + 1).store(trial)
        try:
            self._decide(trial)
        except SpaceExhausted as end:
            self._give_up(trial, str(end))
            return None
        return trial

    def _give_up(self, trial: optuna.Trial, reason: str) -> None:
        TrialRecord(result=TrialResult(reason=reason)).store(trial)
        self._study.tell(trial, state=TrialState.FAIL)


def _told(trial: FrozenTrial, first: Mapping[str, int], goals: Goals) -> str:
    """What a trial came to, in a line; `first` as `first_of_each` gives it."""
    record = TrialRecord.of(trial)
    who = f"{record.name}: " if record.name else ""
    if trial.state is TrialState.COMPLETE:
        accuracy, latency, *values = trial.values
        more = "".join(
            f", {each.name} {value:.4g}" for each, value in zip(goals.more, values, strict=True)
        )
        same = duplicate_of(trial, record, first)
        again = "" if same is None else f" (as trial {same})"
        timing = record.result.timing
        load = f"; timing disturbed: {timing.crowded}" if timing and timing.crowded else ""
        return f"{who}{accuracy:.1f} %, {latency:.3g} ms{more}{again}{load}"
    return f"{who}{record.result.reason or 'failed'}"
