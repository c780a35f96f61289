"""What becomes of one trial: its design is timed, probed and trained, and told to the study."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import optuna
from optuna.trial import FrozenTrial, TrialState

from evaluators.devices.client import DeviceError
from evaluators.devices.pool import DeviceAway, DevicesDiffer, WrongAgent
from evaluators.devices.ssh.host_key import HostKeyChanged, HostKeyUnknown
from evaluators.devices.ssh.login import LogInFailed
from evaluators.evaluation import Evaluation, Evaluator, NotFiniteError
from evaluators.latency.evaluator import LatencyEvaluator, MeasureError
from evaluators.onnx.builder import ParityError
from evaluators.store import EvaluationStore, known_or_new
from search_space.design.genotype import Genotype
from search_space.errors import FusionNasError
from search_space.space.paper import SeededDesign
from search_space.space.space import SearchSpace
from studies.infra.leases import LeaseLost
from studies.infra.optuna_private import stored_attribute
from studies.results.objectives import FoundBy, Goals
from studies.results.outcome import Value
from studies.results.trial_record import WORKER, PublishedFigures, TrialRecord, TrialResult
from studies.search.boards import with_boards
from studies.search.early_stopping import EarlyStopping

FAILURES_IN_A_ROW = 3
UNSTABLE_IN_A_ROW = 20
"""A device that is unsteady for an hour may be steady later; one that is so for longer is not."""
READINGS = "readings"
"""Of a latency's details: how many readings it is the better one of."""
FOR_A_PERSON = (
    HostKeyChanged,
    HostKeyUnknown,
    LogInFailed,
    WrongAgent,
    DevicesDiffer,
    DeviceAway,
)
"""No trial is to blame and no further trial can resolve these: the run ends and says what to do."""


class SearchStopped(FusionNasError):
    """The run ended early: no further trial can succeed before its cause is resolved.

    Raised from its cause, whose exit code it takes.
    """

    exit_code = None


@dataclass(frozen=True)
class Evaluators:
    """What evaluates the designs of a study, and the store that keeps what was found.

    further: what tells the objectives that neither timing nor training does. apart: whether the
    device does none of this machine's work, so that a design is trained while it is timed. boards:
    what times designs on the boards beside the first one, by name.
    """

    latency: LatencyEvaluator
    quality: Evaluator
    store: EvaluationStore
    further: Mapping[FoundBy, Evaluator] = field(default_factory=dict)
    apart: bool = False
    boards: Mapping[str, LatencyEvaluator] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchTargets:
    """What a study searches for: objectives, limits on them, and a limit on the latency."""

    goals: Goals = field(default_factory=Goals)
    latency_limit_ms: float | None = None


class TrialRunner:
    """Takes the trials of one study to their ends."""

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        evaluators: Evaluators,
        targets: SearchTargets,
        early: EarlyStopping | None = None,
        seeded: Sequence[SeededDesign] = (),
    ) -> None:
        """`seeded` are the published designs, whose figures are kept beside their trials."""
        self.study, self.space = study, space
        self.early, self.goals = early or EarlyStopping(), targets.goals
        self._latency, self._quality = evaluators.latency, evaluators.quality
        self._store, self._further = evaluators.store, evaluators.further
        self._apart = evaluators.apart
        self._boards = evaluators.boards
        self._limit = targets.latency_limit_ms
        self._published = {
            s.genotype.key: PublishedFigures(s.design.accuracy_percent, s.design.latency_ms)
            for s in seeded
        }
        self._failed_in_a_row = self._unstable_in_a_row = 0
        self._seconds: dict[str, float] = {}
        self._untrained: Exception | None = None
        self._doing: Callable[[str], None] = lambda what: None
        self.worker = ""
        """Who runs the trials; empty where nobody else can take one over."""

    def finish(self, trial: optuna.Trial, doing: Callable[[str], None] = lambda what: None) -> None:
        """Run a trial to its end; `doing` is called with each stage.

        Raises StoreError; the errors of FOR_A_PERSON, the trial then untold; LeaseLost where
        another worker has the trial by now; and SearchStopped when several trials in a row fail or
        many are unstable.
        """
        self._seconds, self._untrained = {}, None
        params = trial.params  # a copy each time it is asked for
        genotype = self.space.decode([params[d.name] for d in self.space.decisions])
        TrialRecord(design=genotype.describe()).store(trial)
        violations = self.space.violations(genotype)
        _constrain(trial, "violations", float(len(violations)))
        if violations:
            self._pruned(trial, TrialResult(genotype, reason="; ".join(violations)))
            return
        published = self._published.get(genotype.key)
        self._doing = lambda what: doing(f"trial {trial.number}: {what}")
        try:
            self._stages(trial, genotype, TrialResult(genotype, genotype.key, published=published))
        except FOR_A_PERSON:
            raise
        except (MeasureError, ParityError, NotFiniteError, DeviceError) as error:
            self._failed(trial, genotype, error)

    def _stages(self, trial: optuna.Trial, genotype: Genotype, result: TrialResult) -> None:
        """Takes a design through its stages, the cheaper first, and tells what it came to.

        Timed, probed, trained; the first is left to the end where the model knows enough. Designs
        with a name go through all of them, and so do those that are timed at the end. A board times
        a design while it is trained here, where no reading could keep it from being trained; what
        is told then, and in which order, is the same.
        """
        early = self.early
        record = TrialRecord.from_attributes(trial.user_attrs, trial.number)
        named = bool(record.name or record.again)
        latency, probe, predicted = None, None, None
        if not named and self._store.get(self._latency.key(genotype)) is None:
            predicted = early.predicted(genotype, self._limit)
        if predicted is not None:
            ms = predicted.ms
            result = replace(result, predicted=Value(ms, predicted.low, predicted.high))
        elif latency := self._timed(trial, genotype, result):
            ms = latency["latency_ms"].value
        else:
            return
        if early.probe is not None:
            self._doing("probing")
            probe, _ = self._evaluated(early.probe, genotype)
            r2 = probe["probe_r2"].value
            why = "" if named else early.after_probe(r2, ms, self._others(trial))
            if why:
                stopped = replace(result, reason=why, stopped=True)
                self._pruned(trial, stopped.with_evaluations(latency, probe=probe))
                return
        self._doing("training")
        if self._untrained is not None:
            raise self._untrained
        quality, _ = self._evaluated(self._quality, genotype)
        if quality.details.get("constant"):
            _constrain(trial, "did_not_train", 1.0)
            untrained = replace(result, reason=quality.details["did_not_train"])
            self._pruned(trial, untrained.with_evaluations(latency, quality, probe))
            return
        if latency is None:
            why = f"not timed: a predicted {ms:.3g} ms has not been worth a reading"
            stopped = replace(result, reason=why, stopped=True)
            self._pruned(trial, stopped.with_evaluations(None, quality, probe))
            return
        found = {"timing": latency, "training": quality}
        for name, evaluator in self._further.items():
            self._doing(f"evaluating {name}")
            found[name], _ = self._evaluated(evaluator, genotype)
        further = [found[name] for name in self._further]
        result = result.with_evaluations(latency, quality, probe, further)
        reason = self._over_limits(trial, found)
        if reason:
            self._pruned(trial, replace(result, reason=reason))
            return
        values = [found[o.found_by][o.measure].value for o in self.goals.objectives]
        self._end(trial, result, values)
        self._failed_in_a_row = 0

    def _timed(
        self, trial: optuna.Trial, genotype: Genotype, result: TrialResult
    ) -> Evaluation | None:
        """The design's latency on every board; None where that ended its trial, which is then told.

        A design that a board cannot run, or that misses a limit there, is timed on no further one.
        """
        self._doing("exporting and timing")
        record = TrialRecord.from_attributes(trial.user_attrs, trial.number)
        misses = self._misses if record.name else None
        latency, known = self._read(self._latency, genotype, misses)
        if latency.unstable:
            self._unstable(trial, latency, result)
            return None
        if not known:
            self._unstable_in_a_row = 0
        reason = latency.infeasible or self._over_limit(trial, latency)
        if not reason:
            self._check_told(latency)
            reason = self._over_limits(trial, {"timing": latency})
        if not reason and self._boards:
            on_all = self._timed_on_boards(trial, genotype, latency, result, bool(record.name))
            if on_all is None:
                return None
            latency = on_all
            reason = latency.infeasible or self._over_limits(trial, {"timing": latency})
        if reason:
            if latency.infeasible:
                _constrain(trial, "infeasible_on_device", 1.0)
            self._pruned(trial, replace(result, reason=reason).with_evaluations(latency))
            return None
        return latency

    def _timed_on_boards(
        self,
        trial: optuna.Trial,
        genotype: Genotype,
        latency: Evaluation,
        result: TrialResult,
        named: bool,
    ) -> Evaluation | None:
        """The latency with those on the boards beside the first one; None for an unstable reading.

        It is infeasible where a board cannot run the design, and says which.
        """
        found: dict[str, Evaluation] = {}
        for board, evaluator in self._boards.items():
            self._doing(f"exporting and timing on {board}")

            def misses(read: Evaluation, board: str = board) -> bool:
                return self._missed(with_boards(latency, {board: read}))

            read, known = self._read(evaluator, genotype, misses if named else None)
            if read.unstable:
                seen = with_boards(latency, {**found, board: read})
                self._unstable(trial, replace(seen, unstable=f"{board}: {read.unstable}"), result)
                return None
            if not known:
                self._unstable_in_a_row = 0
            if read.infeasible:
                return replace(
                    with_boards(latency, found), infeasible=f"{board}: {read.infeasible}"
                )
            found[board] = read
            self._check_told(with_boards(latency, {board: read}), board)
            if self._missed(with_boards(latency, found)):
                break
        return with_boards(latency, found)

    def _evaluated(self, evaluator: Evaluator, genotype: Genotype) -> tuple[Evaluation, bool]:
        """What an evaluator finds, and whether it was known; seconds of new work are added up."""
        start = time.perf_counter()
        found, known = known_or_new(self._store, evaluator, genotype)
        if not known:
            self._add_seconds(found, time.perf_counter() - start)
        return found, known

    def _add_seconds(self, found: Evaluation, wall: float, hidden: float = 0.0) -> None:
        for stage, seconds in stage_seconds(found, wall, hidden).items():
            self._seconds[stage] = round(self._seconds.get(stage, 0.0) + seconds, 3)

    def _read(
        self,
        evaluator: LatencyEvaluator,
        genotype: Genotype,
        misses: Callable[[Evaluation], bool] | None,
    ) -> tuple[Evaluation, bool]:
        """A design's latency, and whether it was known already.

        misses: what a device cannot run, or reads as over a limit, is read once more, and the
        better reading counts. A named design is what a front is compared with: one disturbed
        reading is not to leave it out. None for other designs.
        """
        known = self._store.get(evaluator.key(genotype))
        if known is not None:
            return known, True
        start, training_s = time.perf_counter(), 0.0

        def again(latency: Evaluation) -> bool:
            return misses is not None and (bool(latency.infeasible) or misses(latency))

        # Of several boards a later one may rule a design out, which is then not trained.
        if not self._boards and self._trains_meanwhile(named=misses is not None):
            timing = evaluator.begin(genotype, again)
            training_s = self._train_meanwhile(genotype)
            readings = timing.readings()
        else:
            readings = [evaluator.evaluate(genotype)]
            if again(readings[0]):
                readings.append(evaluator.evaluate(genotype))
        latency = min(readings, key=_rank)
        if len(readings) > 1:
            latency = replace(latency, details={**latency.details, READINGS: len(readings)})
        self._store.put(latency)
        self._add_seconds(latency, time.perf_counter() - start - training_s, training_s)
        return latency, False

    def _trains_meanwhile(self, named: bool) -> bool:
        """Whether a design is trained while it is timed.

        Not where its latency decides whether it is trained: by a limit, or after its probe.
        """
        limited = self._limit is not None or any(
            limit.objective.found_by == "timing" for limit in self.goals.limits
        )
        return self._apart and not limited and (named or self.early.probe is None)

    def _train_meanwhile(self, genotype: Genotype) -> float:
        """Train a design, so that its evaluation is known later; return the seconds that it took.

        An error that fails a trial is kept until the trial would train.
        """
        self._doing("training, while the device times it")
        start = time.perf_counter()
        try:
            self._evaluated(self._quality, genotype)
        except (ParityError, NotFiniteError) as error:
            self._untrained = error
        return time.perf_counter() - start

    def _misses(self, latency: Evaluation) -> bool:
        return self._limit is not None and latency["latency_ms"].value > self._limit

    def _others(self, trial: optuna.Trial) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False)
        return [other for other in trials if other.number != trial.number]

    def _pruned(self, trial: optuna.Trial, result: TrialResult) -> None:
        """Ends a trial that has a reason to be on no front; the sampler is told."""
        self._end(trial, result, state=TrialState.PRUNED)
        self._failed_in_a_row = 0

    def _end(
        self,
        trial: optuna.Trial,
        result: TrialResult,
        values: Sequence[float] | None = None,
        state: TrialState | None = None,
    ) -> None:
        """Writes what a trial came to and tells it. Raises LeaseLost."""
        if self.worker and stored_attribute(trial, WORKER) not in (self.worker, None):
            raise LeaseLost
        TrialRecord(result=replace(result, seconds=self._seconds)).store(trial)
        for name, value in result.columns(state or TrialState.COMPLETE).items():
            trial.set_user_attr(name, value)
        try:
            self.study.tell(trial, values, state=state)
        except ValueError:
            # Suspended since the check above: another worker took the trial over and told it.
            if not self.study.get_trials(deepcopy=False)[trial.number].state.is_finished():
                raise
            raise LeaseLost from None

    def _over_limit(self, trial: optuna.Trial, latency: Evaluation) -> str:
        if self._limit is None:
            return ""
        median = latency["latency_ms"].value
        _constrain(trial, "ms_over_latency_limit", median - self._limit)
        if median <= self._limit:
            return ""
        said = f"{median:.3f} ms is over the latency limit of {self._limit:g} ms"
        return said + (", the lower of two readings" if READINGS in latency.details else "")

    def _check_told(self, latency: Evaluation, board: str | None = None) -> None:
        """Raises SearchStopped where the device does not tell what is searched for or limited.

        `board` is the one that was asked; None for the first.
        """
        told = {measure.name for measure in latency.measures}
        for objective in self.goals.needed:
            if objective.board != board:
                continue
            if objective.found_by == "timing" and objective.measure not in told:
                why = MeasureError(f"this device reports no {objective.words}")
                said = f"--objective {objective.name}: {why}; leave it out, with a new --name"
                raise SearchStopped(said) from why

    def _over_limits(self, trial: optuna.Trial, found: Mapping[str, Evaluation]) -> str:
        """Which limit the design misses by what was found of it, in words; else empty."""
        for limit in self.goals.limits:
            objective = limit.objective
            if objective.found_by not in found:
                continue
            known = {measure.name for measure in found[objective.found_by].measures}
            if objective.board is not None and objective.measure not in known:
                continue  # it is timed on that board later, or never
            value = found[objective.found_by][objective.measure].value
            _constrain(trial, f"{objective.name} limit", limit.missed_by(value))
            if limit.missed_by(value) > 0:
                return limit.words(value)
        return ""

    def _missed(self, latency: Evaluation) -> bool:
        """Whether the design misses a limit on a board beside the first one."""
        values = {measure.name: measure.value for measure in latency.measures}
        return any(
            limit.objective.measure in values
            and limit.missed_by(values[limit.objective.measure]) > 0
            for limit in self.goals.limits
            if limit.objective.board is not None
        )

    def _unstable(self, trial: optuna.Trial, latency: Evaluation, result: TrialResult) -> None:
        """Keeps a design off the front whose latency could not be read well enough.

        Told as a violated constraint, not as FAIL: TPE would propose it again and again. It is
        not kept as known, so that it is timed anew should it come up again.
        """
        _constrain(trial, "unstable", 1.0)
        unstable = replace(result, reason=latency.unstable).with_evaluations(latency)
        self._end(trial, unstable, state=TrialState.PRUNED)
        self._unstable_in_a_row += 1
        if self._unstable_in_a_row >= UNSTABLE_IN_A_ROW:
            hint = "keep other work off the device, cool it, fix its clocks"
            error = MeasureError(f"{latency.unstable}: {hint}")
            row = f"the device is unsteady, {UNSTABLE_IN_A_ROW} readings in a row, the last"
            raise search_stopped(row, error) from error

    def _failed(self, trial: optuna.Trial, genotype: Genotype, error: Exception) -> None:
        reason = " ".join(str(error).split())
        self._end(trial, TrialResult(genotype, reason=reason), state=TrialState.FAIL)
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= FAILURES_IN_A_ROW:
            row = f"{FAILURES_IN_A_ROW} trials in a row failed, the last"
            raise search_stopped(row, error) from error


def _rank(latency: Evaluation) -> tuple[bool, bool, float]:
    """Orders readings of one design: those that the device could take, then stable ones, first."""
    ms = 0.0 if latency.infeasible else latency["latency_ms"].value
    return bool(latency.infeasible), bool(latency.unstable), ms


def stage_seconds(found: Evaluation, wall: float, hidden: float = 0.0) -> dict[str, float]:
    """Split the wall time of a new evaluation, in s, into stages that add up to it.

    Queueing is the wait for this machine's turn to time; the wait for a board counts to timing,
    with the link. Waiting is what training waited for its next batch. `hidden` are seconds of the
    device's work, not part of `wall`, during which the design was trained.
    """
    if found.kind == "latency":
        compile_s = sum(m.value for m in found.measures if m.name == "compile_s")
        queue_s = found.details.get("queue_s", 0.0)
        compiling = max(0.0, compile_s - max(0.0, hidden - queue_s))
        parts = {"building": found.details.get("build_s", 0.0), "compiling": compiling}
        if queue_s:
            parts["queueing"] = max(0.0, queue_s - hidden)
        rest = "timing"
    else:
        parts = {"waiting": found.details.get("waited_s", 0.0)}
        rest = "training" if found.kind == "quality" else found.kind
    return {**parts, rest: max(0.0, wall - sum(parts.values()))}


def search_stopped(what: str, error: Exception) -> SearchStopped:
    """The end of a run, and what ended it."""
    reason = " ".join(str(error).split())
    return SearchStopped(
        f"{what}: {reason}", "once that is resolved, the same command goes on from here"
    )


def _constrain(trial: optuna.Trial, key: str, value: float) -> None:
    """Sets a constraint, once: Optuna warns of a second time, as after a trial was cut off."""
    if key not in trial.constraints:
        trial.set_constraint(key, value)
