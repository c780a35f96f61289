"""The loop: ask, decode, time, train, tell. One trial in one direction, resumable at any point."""

import os
import socket
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from evaluators.device_client import DeviceError
from evaluators.evaluation import Evaluation, NotFiniteError
from evaluators.latency import LatencyEvaluator, MeasureError
from evaluators.onnx_builder import ParityError
from evaluators.quality import QualityEvaluator
from evaluators.store import EvaluationStore, known_or_new
from search_space.genotype import Genotype
from search_space.paper import SeededDesign
from search_space.space import SearchSpace
from studies.records import CARRIED_OVER, DESIGN, NAME, RECORD, WORKER, record_of

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
FAILURES_IN_A_ROW = 3


class SearchStopped(Exception):
    """Trial after trial fails for the same kind of reason; the text names the last one."""


class Reporter(Protocol):
    """Where the search says what it is doing."""

    def trial(self, done: int, total: int, text: str) -> None:
        """One trial has ended."""
        ...


class Workers:
    """Tells live workers from dead ones by locks that die with their process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.host = socket.gethostname()
        self.name = f"{self.host}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._lock = FileLock(self._file(self.name))
        self._lock.acquire()

    def _file(self, name: str) -> Path:
        return self._folder / f"{name.replace(':', '-')}.lock"

    def is_dead(self, name: str) -> bool:
        """Whether a worker of this host has ended; those of other hosts count as alive."""
        if name == self.name or name.partition(":")[0] != self.host:
            return False
        lock = FileLock(self._file(name))
        try:
            with lock.acquire(timeout=0):
                return True
        except Timeout:
            return False

    def close(self) -> None:
        """Ends this worker."""
        self._lock.release()
        self._file(self.name).unlink(missing_ok=True)


class Search:
    """Drives one Optuna study to a number of finished trials."""

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        latency: LatencyEvaluator,
        quality: QualityEvaluator,
        store: EvaluationStore,
        workers: Workers,
        latency_limit_ms: float | None,
        reporter: Reporter,
        seeded: Sequence[SeededDesign] = (),
    ) -> None:
        self._study, self._space = study, space
        self._latency, self._quality, self._store = latency, quality, store
        self._workers, self._limit, self._reporter = workers, latency_limit_ms, reporter
        self._published = {s.genotype.key: s.design for s in seeded}
        self._distributions = distributions(space)
        self._failed_in_a_row = 0

    def seed(self, designs: Sequence[SeededDesign]) -> None:
        """Queues designs as named trials, each once however often it is called."""
        names = {t.user_attrs.get(NAME) for t in self._study.get_trials(deepcopy=False)}
        for seeded in designs:
            if seeded.name in names:
                continue
            vector = self._space.encode(seeded.genotype)
            params = {d.name: c for d, c in zip(self._space.decisions, vector, strict=True)}
            said = {NAME: seeded.name}
            if seeded.carried_over:
                said[CARRIED_OVER] = seeded.carried_over
            self._study.enqueue_trial(params, user_attrs=said)

    def run(self, total: int) -> None:
        """Goes on until the study has `total` finished trials, first with those cut off.

        Raises SearchStopped when several trials in a row fail, DeviceError, StoreError.
        """
        for trial in self._cut_off():
            self._finish(trial)
        while self._count() < total:
            trial = self._study.ask(self._distributions)
            trial.set_user_attr(WORKER, self._workers.name)
            self._finish(trial)
            self._reporter.trial(len(self._finished()), total, self._told(trial.number))

    def _finished(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=FINISHED)

    def _count(self) -> int:
        """Trials that are finished, or in the hands of another live worker."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return len(self._finished()) + sum(WORKER in trial.user_attrs for trial in running)

    def _cut_off(self) -> list[optuna.Trial]:
        """Trials whose worker died in the middle; those not yet decided are closed as failed."""
        found = []
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = frozen.user_attrs.get(WORKER)
            if worker is None:
                self._study.tell(frozen.number, state=TrialState.FAIL)
            elif self._workers.is_dead(worker):
                trial = optuna.Trial(self._study, frozen._trial_id)
                trial.set_user_attr(WORKER, self._workers.name)
                found.append(trial)
        return found

    def _finish(self, trial: optuna.Trial) -> None:
        genotype = self._space.decode([trial.params[d.name] for d in self._space.decisions])
        trial.set_user_attr(DESIGN, genotype.describe())
        violations = self._space.violations(genotype)
        trial.set_constraint("violations", float(len(violations)))
        if violations:
            self._infeasible(trial, genotype, None, "; ".join(violations))
            return
        more = self._said_of(genotype, trial.number)
        try:
            latency, _ = known_or_new(self._store, self._latency, genotype)
            reason = latency.infeasible or self._over_limit(trial, latency)
            if reason:
                self._infeasible(trial, genotype, latency, reason, **more)
                return
            quality, _ = known_or_new(self._store, self._quality, genotype)
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
        trial.set_constraint("ms_over_latency_limit", median - self._limit)
        if median <= self._limit:
            return ""
        return f"{median:.3f} ms is over the latency limit of {self._limit:g} ms"

    def _said_of(self, genotype: Genotype, number: int) -> dict[str, Any]:
        """The first earlier trial of the same design, and what was published for it."""
        said: dict[str, Any] = {}
        design = self._published.get(genotype.key)
        if design is not None:
            said["published_accuracy"] = design.accuracy_percent
            said["published_latency_ms"] = design.latency_ms
        same = [
            t.number
            for t in self._finished()
            if t.number < number and t.user_attrs.get(RECORD, {}).get("key") == genotype.key
        ]
        return {**said, "key": genotype.key, **({"duplicate_of": same[0]} if same else {})}

    def _infeasible(
        self,
        trial: optuna.Trial,
        genotype: Genotype,
        latency: Evaluation | None,
        reason: str,
        **more: Any,
    ) -> None:
        if latency is not None and latency.infeasible:
            trial.set_constraint("infeasible_on_device", 1.0)
        record = record_of(latency, None, genotype.as_json(), reason=reason, **more)
        trial.set_user_attr(RECORD, record)
        self._study.tell(trial, state=TrialState.PRUNED)
        self._failed_in_a_row = 0

    def _failed(self, trial: optuna.Trial, genotype: Genotype, error: Exception) -> None:
        reason = " ".join(str(error).split())
        trial.set_user_attr(RECORD, record_of(None, None, genotype.as_json(), reason=reason))
        self._study.tell(trial, state=TrialState.FAIL)
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= FAILURES_IN_A_ROW:
            raise SearchStopped(f"{FAILURES_IN_A_ROW} trials in a row failed, the last: {reason}")

    def _told(self, number: int) -> str:
        trial = self._study.get_trials(deepcopy=False)[number]
        name = trial.user_attrs.get(NAME, "")
        record = trial.user_attrs.get(RECORD, {})
        who = f"{name}: " if name else ""
        if trial.state is TrialState.COMPLETE:
            accuracy, latency = trial.values
            again = f" (as trial {record['duplicate_of']})" if "duplicate_of" in record else ""
            return f"{who}{accuracy:.1f} %, {latency:.3g} ms{again}"
        return f"{who}{record.get('reason', 'failed')}"


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """The decisions of a space as Optuna asks them: all of them, every time."""
    found: dict[str, BaseDistribution] = {}
    for decision in space.decisions:
        if decision.kind == "integer":
            found[decision.name] = IntDistribution(
                int(decision.choices[0]), int(decision.choices[-1])
            )
        else:
            found[decision.name] = CategoricalDistribution(decision.choices)
    return found
