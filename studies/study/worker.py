"""Workers that join a study: beside the command that began it, or on another host."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import optuna
import torch

from evaluators.quality.probe import ProbeEvaluator
from search_space.redaction import redacted_url
from search_space.space.paper import SeededDesign, seeded_designs
from studies.config.settings import Settings
from studies.infra.locations import StorageError, default_url
from studies.infra.storage import quiet_optuna
from studies.infra.workers import Workers
from studies.report.progress import Reporter
from studies.results.study_outcome import IDENTITY, SETTINGS
from studies.samplers.registry import sampler_maker
from studies.search.early_stopping import EarlyStopping
from studies.search.latency_prediction import LearnedLatency
from studies.search.loop import Search
from studies.search.stopping import StoppedByTheRun, StoppingRules
from studies.search.trial_runner import Evaluators, SearchTargets, TrialRunner
from studies.study.carrying_over import EarlierStudy, encoders_of
from studies.study.context import StudyContext, open_context, study_name
from studies.study.final.final_test import is_sought
from studies.study.identity import check_identity
from studies.study.lookup import find_study, stored_protocol
from studies.study.trained_weights import bound_weights
from studies.tracking.log import TrialLog

TOTAL, PREPARING = "total", 0
"""User attribute of a study: finished trials that the last `run` asked for; PREPARING until its
designs are queued."""
LOOK_EVERY_S = 2.0


def join_study(
    storage: str | None, name: str | None, options: Mapping[str, object], reporter: Reporter
) -> int:
    """Search with the workers of a study until it has its total; return its finished trials.

    The study's own settings hold, but for `options`: where data, weights and devices are found on
    this host. The test split is left to the command that began the study.

    Raises UsageError and StorageError where there is no such study, where it was made under
    conditions that this host does not give, and what `open_context` and `Search.run` raise.
    """
    study = find_study(storage, name)
    if IDENTITY not in study.user_attrs:
        raise StorageError(
            f"study {study.study_name!r} is not complete: its `run` is starting, or ended while it "
            "was",
            "start the worker when `run` reports trials",
        )
    url = storage or default_url()
    here = {"storage": url, "name": study.study_name, **options}
    settings = Settings.from_stored({**study.user_attrs[SETTINGS], "workers": 1, **here})
    reporter.line(f"study {study.study_name} in {redacted_url(url)}")
    context = open_context(settings, reporter.step, partial(stored_protocol, url))
    try:
        study = _joined(context)
        context.selection.prepare()
        workers = Workers(context.home / "workers")
        reporter.line(f"worker {workers.name}")
        try:
            done = 0
            while (total := _total(study, context, reporter)) > done:  # a run may ask for more
                search = new_search(context, study, workers, reporter, None, StoppedByTheRun(study))
                search.begin(total)
                search.run(total)
                done = total
        finally:
            workers.close()
    finally:
        context.close()
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def _total(study: optuna.Study, context: StudyContext, reporter: Reporter) -> int:
    """How many trials the last `run` of a study asked for, once it has begun to search.

    Version 0.1.0 does not say so: there it is what the study began with.
    """
    listed = len(context.grid.designs) if context.grid else 0
    first = context.settings.search.trials or listed
    if study.user_attrs.get(TOTAL, first) == PREPARING:
        reporter.line("waiting for `fusion-nas run`, which prepares the study")
    while (total := study.user_attrs.get(TOTAL, first)) == PREPARING:
        reporter.step("waiting for fusion-nas run", 0, 1)
        time.sleep(LOOK_EVERY_S)
    return int(total)


def seeds_of(context: StudyContext) -> list[SeededDesign]:
    """The published designs that are of the search's kind."""
    return [s for s in seeded_designs(context.space) if is_sought(context.space, s.genotype)]


def earlier_of(settings: Settings) -> EarlierStudy | None:
    """The study of `--from`. Raises UsageError or StorageError."""
    given = settings.search.from_study
    return None if given is None else EarlierStudy(settings.storage, given)


def work_beside(
    settings: Settings, total: int, threads: Callable[[], int], follows: bool, reporter: Any
) -> None:
    """Search as the command that began a study does, on a context of its own; nothing else.

    `threads` gives how many PyTorch takes. A worker that `follows` has no stopping rules of its
    own: it stops where the command did.
    """
    quiet_optuna()
    torch.set_num_threads(threads())
    context = open_context(settings, reporter.step, partial(stored_protocol, settings.storage))
    try:
        study = _joined(context)
        context.selection.prepare()
        workers = Workers(context.home / "workers", settings.search.take_over)
        try:
            stopping = StoppedByTheRun(study) if follows else None
            new_search(context, study, workers, reporter, stopping=stopping).run(total)
        finally:
            workers.close()
    finally:
        context.close()


def _joined(context: StudyContext) -> optuna.Study:
    """The context's study, which is there. Raises UsageError and StorageError.

    It is not made here: on another host the URL of a file names another storage.
    """
    settings = context.settings
    study = find_study(settings.storage, study_name(settings, context.data, context.space))
    check_identity(context, study)
    return study


def new_search(
    context: StudyContext,
    study: optuna.Study,
    workers: Workers,
    reporter: Any,
    log: TrialLog | None = None,
    stopping: StoppingRules | None = None,
) -> Search:
    """The search of a context's settings, on its device and with its evaluators.

    The first worker logs the trials of all.
    """
    settings = context.settings
    latency = None
    if settings.search.sampler == "ehvi" or settings.search.deferred_timing:
        earlier = earlier_of(settings)
        known = earlier.readings(encoders_of(context)) if earlier else None
        latency = LearnedLatency(study, context.space, context.builder.rewriting, known)
    early = EarlyStopping(
        ProbeEvaluator(context.quality.trainer) if settings.search.probe else None,
        latency if settings.search.deferred_timing else None,
    )
    evaluators = Evaluators(
        context.latency,
        context.selection,
        context.store,
        context.further,
        context.is_apart(),
        context.boards,
    )
    targets = SearchTargets(settings.search.goals, settings.search.latency_limit_ms)
    runner = TrialRunner(study, context.space, evaluators, targets, early, seeds_of(context))
    sampler = sampler_maker(settings.search.sampler, settings.training.seed, context.space, latency)

    def after_trial() -> None:
        bound_weights(settings.storage, study.study_name, context.home)
        if log is not None:
            log.update()

    stopping = stopping or StoppingRules(settings.search.hours, settings.search.patience)
    fixed = context.grid is not None
    return Search(runner, workers, reporter, sampler, fixed, stopping, after_trial)
