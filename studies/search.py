"""The loop: ask, decode, time, train, tell. One trial in one direction, resumable at any point."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState

from evaluators.device_client import DeviceError
from evaluators.device_pool import DeviceAway, DevicesDiffer, WrongAgent
from evaluators.evaluation import Evaluation, Evaluator, NotFiniteError
from evaluators.latency import LatencyEvaluator, MeasureError
from evaluators.onnx_builder import ParityError
from evaluators.ssh_connect import HostKeyChanged, HostKeyUnknown
from evaluators.ssh_keys import LogInFailed
from evaluators.store import EvaluationStore, known_or_new
from search_space.genotype import Genotype
from search_space.paper import SeededDesign
from search_space.space import SearchSpace
from studies.ehvi import EnumeratedEhviSampler, SpaceExhausted
from studies.ledger import Ledger
from studies.records import (
    CARRIED_OVER,
    DESIGN,
    NAME,
    RECORD,
    UNSTABLE,
    WORKER,
    duplicate_of,
    is_unstable,
    record_of,
)
from studies.samplers import distributions
from studies.wording import counted
from studies.workers import Workers

FAILURES_IN_A_ROW = 3
UNSTABLE_IN_A_ROW = 20
"""A device that is unsteady for an hour may be steady later; one that is so for longer is not."""
MAX_ATTEMPTS = 3
"""A trial whose worker ends in the middle of it is taken up again, up to this often."""
ATTEMPTS = "attempts"
FOR_A_PERSON = (
    HostKeyChanged,
    HostKeyUnknown,
    LogInFailed,
    WrongAgent,
    DevicesDiffer,
    DeviceAway,
)
"""No next trial mends these, and no trial is to blame: it waits for whoever mends them."""
ASKING_AT_MOST = timedelta(minutes=5)
"""A worker of another home that has not signed its trial by then has ended."""


class SearchStopped(Exception):
    """It makes no sense to go on before somebody mends something; the text says what."""


class Reporter(Protocol):
    """Where the search says what it is doing."""

    def trial(self, done: int, total: int, text: str) -> None:
        """One trial has ended."""
        ...

    def line(self, text: str) -> None:
        """Something that must stay readable afterwards."""
        ...


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
    def carried_over(self) -> str:
        """How a published design was brought into the space; else empty."""
        ...


class Search:
    """Drives one Optuna study to a number of finished trials.

    A study of a fixed list (`fixed`) tries the seeded designs alone: nothing is ever sampled.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        latency: LatencyEvaluator,
        quality: Evaluator,
        store: EvaluationStore,
        workers: Workers,
        latency_limit_ms: float | None,
        reporter: Reporter,
        sampler: Callable[[int], optuna.samplers.BaseSampler],
        seeded: Sequence[SeededDesign] = (),
        fixed: bool = False,
    ) -> None:
        self._fixed = fixed
        self._study, self._space, self._sampler = study, space, sampler
        self._latency, self._quality, self._store = latency, quality, store
        self._workers, self._limit, self._reporter = workers, latency_limit_ms, reporter
        self._published = {s.genotype.key: s.design for s in seeded}
        self._distributions = distributions(space)
        self._failed_in_a_row = self._unstable_in_a_row = 0
        self._ledger = Ledger()

    def seed(self, designs: Sequence[Seed]) -> None:
        """Queues designs as named trials, each once however often it is called.

        One whose trial failed or was unstable is queued again; one that the space does not offer
        is left out.
        """
        with self._workers.turn:
            names = {
                trial.user_attrs.get(NAME)
                for trial in self._study.get_trials(deepcopy=False)
                if trial.state is not TrialState.FAIL and not is_unstable(trial)
            }
            for seeded in designs:
                if seeded.name in names:
                    continue
                try:
                    vector = self._space.encode(seeded.genotype)
                except ValueError as error:
                    self._reporter.line(f"{seeded.name} is left out: {error}")
                    continue
                params = {d.name: c for d, c in zip(self._space.decisions, vector, strict=True)}
                said = {NAME: seeded.name}
                if seeded.carried_over:
                    said[CARRIED_OVER] = seeded.carried_over
                self._study.enqueue_trial(params, user_attrs=said)

    def run(self, total: int) -> None:
        """Goes on until the study has `total` finished trials, first with those cut off.

        Ends before the total, and says so, when the sampler has no untried design left.
        Raises StoreError, and SearchStopped when several trials in a row fail, many are unstable,
        or the device needs a person.
        """
        while True:
            try:
                trial = self._next(total)
            except SpaceExhausted as end:
                self._reporter.line(f"{end}: no more trials")
                break
            if trial is None:
                break
            try:
                self._finish(trial)
            except KeyboardInterrupt:
                self._leave(trial)
                raise
            except FOR_A_PERSON as error:
                self._leave(trial)
                raise _stopped("the device needs a person", error) from error
            told = _told(self._read()[trial.number], self._ledger.first)
            self._reporter.trial(self._count(running=False), total, told)
        self._tell_of_waiting()

    def _read(self) -> list[FrozenTrial]:
        """All trials as they stand now, in order of number, also those of other workers."""
        trials = self._study.get_trials(deepcopy=False)
        self._ledger.update(trials)
        return trials

    def _leave(self, trial: optuna.Trial) -> None:
        """Leaves a trial to the next run: being interrupted is no fault of the trial."""
        with suppress(Exception):
            trial.set_user_attr(ATTEMPTS, 0)

    def _tell_of_waiting(self) -> None:
        """Says how many seeded designs the total leaves untried, and which total tries them."""
        trials = self._read()
        waiting = self._ledger.waiting
        if waiting:
            seeded = len({trial.user_attrs.get(NAME) for trial in trials} - {None})
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
                self._study.sampler.check_untried(trials)
            self._workers.asking.write_text(self._study.study_name, encoding="utf-8")
            trial = self._queued() if self._fixed else self._study.ask(self._distributions)
            if trial is not None:
                trial.set_user_attr(WORKER, self._workers.name)
            self._workers.asking.unlink()
            return trial

    def _queued(self) -> optuna.Trial | None:
        """The first design of the list that nobody has taken; `ask` would draw one after the last.

        Workers of several homes take no turns, so looking first and asking then is not enough.
        """
        number = self._study._pop_waiting_trial_id()
        if number is None:
            return None
        trial = optuna.Trial(self._study, number)
        self._decide(trial)
        return trial

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

        Of one reading: a trial that ends between two would be in neither. Of a fixed list designs
        are counted: one that is timed again after an unstable reading is not two.
        """
        begun = self._ledger.running if running else []
        if not self._fixed:
            return self._ledger.finished + len(begun)
        names = {trial.user_attrs.get(NAME) for trial in begun if not is_unstable(trial)}
        return len(self._ledger.names | names)

    def _cut_off(self) -> list[FrozenTrial]:
        """Trials whose worker died in the middle, also in the middle of asking for it."""
        asking = self._workers.asking
        died_asking = asking.is_file() and asking.read_text("utf-8") == self._study.study_name
        found = []
        for trial in self._ledger.running:
            worker = trial.user_attrs.get(WORKER)
            if worker is not None:
                dead = self._workers.is_dead(worker)
            else:
                begun = trial.datetime_start or datetime.min
                dead = died_asking or datetime.now() - begun > ASKING_AT_MOST
            if dead:
                found.append(trial)
        return found

    def _take_over(self, frozen: FrozenTrial) -> optuna.Trial | None:
        """The trial, decided where it was not yet; None, told as failed, after too many attempts
        and where no design is left for it."""
        self._study.sampler = self._sampler(frozen.number)
        trial = optuna.Trial(self._study, frozen._trial_id)
        trial.set_user_attr(WORKER, self._workers.name)
        attempts = int(frozen.user_attrs.get(ATTEMPTS, 1))
        if attempts >= MAX_ATTEMPTS:
            self._give_up(trial, f"its worker ended in the middle of it {attempts} times")
            return None
        trial.set_user_attr(ATTEMPTS, attempts + 1)
        try:
            self._decide(trial)
        except SpaceExhausted as end:
            self._give_up(trial, str(end))
            return None
        return trial

    def _give_up(self, trial: optuna.Trial, reason: str) -> None:
        trial.set_user_attr(RECORD, {"reason": reason})
        self._study.tell(trial, state=TrialState.FAIL)

    def _finish(self, trial: optuna.Trial) -> None:
        params = trial.params  # a copy each time it is asked for
        genotype = self._space.decode([params[d.name] for d in self._space.decisions])
        trial.set_user_attr(DESIGN, genotype.describe())
        violations = self._space.violations(genotype)
        _constrain(trial, "violations", float(len(violations)))
        if violations:
            self._infeasible(trial, genotype, None, "; ".join(violations))
            return
        more = self._said_of(genotype)
        try:
            latency, known = known_or_new(self._store, self._latency, genotype)
            if latency.unstable:
                self._unstable(trial, genotype, latency, **more)
                return
            if not known:
                self._unstable_in_a_row = 0
            reason = latency.infeasible or self._over_limit(trial, latency)
            if reason:
                self._infeasible(trial, genotype, latency, reason, **more)
                return
            quality, _ = known_or_new(self._store, self._quality, genotype)
        except FOR_A_PERSON:
            raise
        except (MeasureError, ParityError, NotFiniteError, DeviceError) as error:
            self._failed(trial, genotype, error)
            return
        record = record_of(latency, quality, genotype.as_json(), **more)
        trial.set_user_attr(RECORD, record)
        self._study.tell(trial, [quality["accuracy"].value, latency["latency_ms"].value])
        self._failed_in_a_row = 0

    def _over_limit(self, trial: optuna.Trial, latency: Evaluation) -> str:
        if self._limit is None:
            return ""
        median = latency["latency_ms"].value
        _constrain(trial, "ms_over_latency_limit", median - self._limit)
        if median <= self._limit:
            return ""
        return f"{median:.3f} ms is over the latency limit of {self._limit:g} ms"

    def _said_of(self, genotype: Genotype) -> dict[str, Any]:
        """The design's key, by which it is known again, and what was published for it."""
        said: dict[str, Any] = {}
        design = self._published.get(genotype.key)
        if design is not None:
            said["published_accuracy"] = design.accuracy_percent
            said["published_latency_ms"] = design.latency_ms
        return {**said, "key": genotype.key}

    def _infeasible(
        self,
        trial: optuna.Trial,
        genotype: Genotype,
        latency: Evaluation | None,
        reason: str,
        **more: Any,
    ) -> None:
        if latency is not None and latency.infeasible:
            _constrain(trial, "infeasible_on_device", 1.0)
        record = record_of(latency, None, genotype.as_json(), reason=reason, **more)
        trial.set_user_attr(RECORD, record)
        self._study.tell(trial, state=TrialState.PRUNED)
        self._failed_in_a_row = 0

    def _unstable(
        self, trial: optuna.Trial, genotype: Genotype, latency: Evaluation, **more: Any
    ) -> None:
        """Keeps a design off the front whose latency could not be read well enough.

        Told as a violated constraint, not as FAIL: TPE would propose it again and again. It is
        not kept as known, so that it is timed anew should it come up again.
        """
        _constrain(trial, UNSTABLE, 1.0)
        said = {"reason": latency.unstable, **more}
        trial.set_user_attr(RECORD, record_of(latency, None, genotype.as_json(), **said))
        self._study.tell(trial, state=TrialState.PRUNED)
        self._unstable_in_a_row += 1
        if self._unstable_in_a_row >= UNSTABLE_IN_A_ROW:
            hint = "keep other work off the device, cool it, fix its clocks"
            error = MeasureError(f"{latency.unstable}: {hint}")
            row = f"the device is unsteady, {UNSTABLE_IN_A_ROW} readings in a row, the last"
            raise _stopped(row, error) from error

    def _failed(self, trial: optuna.Trial, genotype: Genotype, error: Exception) -> None:
        reason = " ".join(str(error).split())
        trial.set_user_attr(RECORD, record_of(None, None, genotype.as_json(), reason=reason))
        self._study.tell(trial, state=TrialState.FAIL)
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= FAILURES_IN_A_ROW:
            row = f"{FAILURES_IN_A_ROW} trials in a row failed, the last"
            raise _stopped(row, error) from error


def _told(trial: FrozenTrial, first: Mapping[str, int]) -> str:
    """What a trial came to, in a line; `first` as `first_of_each` gives it."""
    name = trial.user_attrs.get(NAME, "")
    record = trial.user_attrs.get(RECORD, {})
    who = f"{name}: " if name else ""
    if trial.state is TrialState.COMPLETE:
        accuracy, latency = trial.values
        same = duplicate_of(trial, first)
        again = "" if same is None else f" (as trial {same})"
        return f"{who}{accuracy:.1f} %, {latency:.3g} ms{again}"
    return f"{who}{record.get('reason', 'failed')}"


def _stopped(what: str, error: Exception) -> SearchStopped:
    reason = " ".join(str(error).split())
    return SearchStopped(
        f"{what}: {reason}; once that is mended, the same command goes on from here"
    )


def _constrain(trial: optuna.Trial, key: str, value: float) -> None:
    """Sets a constraint, once: Optuna warns of a second time, as after a trial was cut off."""
    if key not in trial.constraints:
        trial.set_constraint(key, value)
