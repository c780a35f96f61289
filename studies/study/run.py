"""One study, run to its end: search, fine-tuning, the one look at test."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import torch

from search_space.errors import DEVICE, NUMBERS, STORAGE, FusionNasError
from search_space.locks import NamedLock
from search_space.redaction import redacted_url
from studies.config.paths import check_page, default_page
from studies.config.settings import Settings
from studies.config.usage import UsageError
from studies.infra.dask_workers import cluster, dask_workers, most_on_a_host, share_of_cores
from studies.infra.locations import absolute_url
from studies.infra.log_file import logged
from studies.infra.signals import take_interrupts
from studies.infra.storage import quiet_optuna
from studies.infra.worker_processes import more_workers
from studies.infra.workers import Workers
from studies.report import terminal
from studies.report.progress import Reporter
from studies.results.study_outcome import rows_of
from studies.results.text import counted
from studies.search.loop import Search
from studies.search.stopping import STOPPED
from studies.study.carrying_over import (
    EarlierStudy,
    announce,
    take_over,
)
from studies.study.context import StudyContext, open_context, study_name
from studies.study.final.final_test import finish
from studies.study.final.fine_tuning import fine_tune
from studies.study.final.latency_models import note_latency_models
from studies.study.identity import from_anywhere, open_study
from studies.study.lookup import stored_protocol
from studies.study.worker import PREPARING, TOTAL, earlier_of, new_search, seeds_of, work_beside
from studies.tracking.log import TrialLog
from studies.tracking.trackers import check_trackers


@contextmanager
def running(
    settings: Settings, page: Path | None, json_only: bool, log_file: Path | None = None
) -> Iterator[Reporter]:
    """What tells how far a run has come; everything cheap is checked before.

    Raises UsageError for a flag that could do nothing here, or a page that cannot be written.
    """
    check_useful(settings)
    quiet_optuna()
    check_page(page or default_page(settings.name or settings.preset.name))
    take_interrupts(signal.SIGINT, signal.SIGTERM)
    with (
        terminal.progress(terminal.open_console(stderr=json_only)) as reporter,
        logged(reporter, log_file) as either,
    ):
        yield either


class StudyIncomplete(FusionNasError):
    """A study ended without all that was asked for.

    Attributes:
        study: the study, to be shown as far as it came.
    """

    exit_code = STORAGE

    def __init__(self, study: optuna.Study, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.study = study


class StudyShort(StudyIncomplete):
    """A study ended before its total: trials belong to workers that show no sign of life.

    Its results so far are final but for these trials.
    """


class NoStableReading(StudyIncomplete):
    """No design has a latency that can be compared: every reading was unstable."""

    exit_code = DEVICE


class NothingTrained(StudyIncomplete):
    """No design is complete: those that were trained give one class to every sample."""

    exit_code = NUMBERS


def _check_complete(study: optuna.Study, left: Sequence[str]) -> None:
    """Raise StudyShort for trials of other workers; then check readings and trainings."""
    if left:
        raise StudyShort(
            study,
            f"study {study.study_name!r} ends short; trials belong to workers that show no sign "
            f"of life: {'; '.join(left)}",
            "where these workers have ended, the same command with --take-over goes on from here",
        )
    check_readings(study)
    check_trainings(study)


def check_trainings(study: optuna.Study) -> None:
    """Raise NothingTrained for a study without a front because no training worked."""
    rows = rows_of(study)
    untrained = [row for row in rows if row.state == "untrained"]
    if not untrained or any(row.state == "complete" for row in rows):
        return
    raise NothingTrained(
        study,
        f"study {study.study_name!r} has no front: of {counted(len(rows), 'trial')} "
        f"none trained; the last of {len(untrained)} that were tried {untrained[-1].reason}",
        "look at the labels and at how many training samples there are (`fusion-nas data check`), "
        "or give another encoder or --trunks tuned, with a new --name",
    )


def check_readings(study: optuna.Study) -> None:
    """Raise NoStableReading for a study without a front because its readings were unstable."""
    rows = rows_of(study)
    unstable = [row for row in rows if row.state == "unstable"]
    if not unstable or any(row.latency and row.state != "unstable" for row in rows):
        return
    raise NoStableReading(
        study,
        f"study {study.study_name!r} has no front: {counted(len(unstable), 'reading')} of "
        f"{counted(len(rows), 'trial')} unstable, none stable; the last: {unstable[-1].reason}",
        "stop other work on the device or use --threads 1; --timing shared, with a new --name, "
        "allows for other work; with more --trials the same command goes on from here",
    )


def run_to_end(
    settings: Settings, reporter: Reporter, check_name: Callable[[str], None] | None = None
) -> optuna.Study:
    """Run a study to its total and return it.

    `check_name` is called with the study's name before anything is run, and may raise.

    Raises StudyIncomplete at the end where trials are missing, all readings were unstable or no
    training worked,
    UsageError for flags that this space or this study has no use for, and what `open_context`,
    `open_study` and `Search.run` raise.
    """
    check_trackers(settings.search.track)
    earlier = earlier_of(settings)
    if settings.search.trials is not None:
        reporter.trial(0, settings.search.trials, "")
    context = open_context(settings, reporter.step, partial(stored_protocol, settings.storage))
    try:
        if check_name is not None:
            check_name(study_name(settings, context.data, context.space))
        if settings.search.seed_paper and not seeds_of(context):
            raise UsageError(
                "--seed-paper: no published design is one of search space "
                f"{context.space.name}, whose designs all read {', '.join(context.space.needed)}; "
                "leave it out, or give a space that says which of these are optional"
            )
        own_name = study_name(settings, context.data, context.space)
        if earlier and earlier.name == own_name and earlier.is_in(settings.storage):
            raise UsageError(
                f"--from {settings.search.from_study}: it is the study itself; leave it out, "
                "or give a new --name"
            )
        study = open_study(context)
        study.set_user_attr(STOPPED, "")
        study.set_user_attr(TOTAL, PREPARING)
        if earlier is not None:
            announce(reporter, earlier, take_over(context, study, earlier))
        if settings.training.fine_tune and context.quality.protocol.trunks in ("by-stage", "whole"):
            raise UsageError(
                "--fine-tune: this study began by training designs whole as it is; leave it "
                "out, or give a new --name"
            )
        _announce(reporter, context, study)
        context.selection.prepare()
        workers = Workers(context.home / "workers", settings.search.take_over)
        try:
            with closing(TrialLog(study, settings.search.track, reporter.line)) as log:
                left = _search(context, study, workers, reporter, earlier, log)
            if settings.training.fine_tune:
                fine_tune(context, study, reporter)
        finally:
            workers.close()
        reporter.line("evaluating the test split, once")
        with NamedLock(context.home / "workers" / "finish.lock"):  # workers may end together
            finish(context, study, reporter.step)
            note_latency_models(context, study, earlier)
        for latency in (context.latency, *context.boards.values()):
            latency.settle()
    finally:
        context.close()
    _check_complete(study, left)
    return study


def _search(
    context: StudyContext,
    study: optuna.Study,
    workers: Workers,
    reporter: Any,
    earlier: EarlierStudy | None,
    log: TrialLog,
) -> list[str]:
    """Searches to the total, with the further workers that the settings ask for.

    Returns, in words, the trials that are missing because other workers run them.
    """
    settings = context.settings
    search = new_search(context, study, workers, reporter, log)
    if earlier is not None:
        search.seed(earlier.designs)
    listed = context.grid.designs if context.grid else ()
    if settings.search.seed_paper or context.grid:
        search.seed(listed or seeds_of(context))
    total = settings.search.trials or len(listed)
    study.set_user_attr(TOTAL, total)
    search.begin(total)
    if settings.search.engine == "dask":
        _run_on_dask(search, settings, total, reporter, log)
    else:
        _run_with_workers(search, settings, total, reporter)
    return search.left_to_others


def _run_with_workers(search: Search, settings: Settings, total: int, reporter: Any) -> None:
    """Runs a search to its total, with the further workers that the settings ask for."""
    count = settings.search.workers
    if count == 1:
        search.run(total)
        return
    all_threads = torch.get_num_threads()
    threads = max(1, all_threads // count)  # they train side by side
    torch.set_num_threads(threads)
    beside = partial(work_beside, settings, total, partial(int, threads), False)
    try:
        with more_workers(beside, count - 1, reporter) as more:
            search.run(total)
            if not more.join():  # their trials are taken over
                search.run(total)
    finally:
        torch.set_num_threads(all_threads)  # the last look is this one's alone


def _run_on_dask(
    search: Search, settings: Settings, total: int, reporter: Any, log: TrialLog
) -> None:
    """Has a cluster run a search to its total; what its workers leave is done here."""
    address, count = settings.search.scheduler, settings.search.workers
    anywhere = replace(from_anywhere(settings), storage=absolute_url(settings.storage))

    def look() -> None:
        search.check_stopping(total)
        log.update()

    with cluster(address, count, reporter) as client:
        of_each: Callable[[], int] = partial(share_of_cores, most_on_a_host(client))
        if address is None:
            of_each = partial(int, max(1, torch.get_num_threads() // count))
        beside = partial(work_beside, anywhere, total, of_each, True)
        with dask_workers(client, beside, count, reporter) as workers:
            workers.join(look)
    search.run(total)


def check_useful(settings: Settings) -> None:
    """Raises UsageError for flags that could do nothing here."""
    if settings.data.accept_faults and settings.data.built_in is not None:
        raise UsageError(
            "--accept-faults without --data of yours: built-in data have no faults; leave it out"
        )
    if settings.training.compile and not torch.cuda.is_available():
        raise UsageError(
            "--compile: no CUDA GPU is found here, and on a CPU nothing is compiled; leave it out"
        )


def _announce(reporter: Any, context: StudyContext, study: optuna.Study) -> None:
    """Says what will be done on what, before anything takes long."""
    conditions = study.user_attrs["conditions"]
    reporter.line(f"study {study.study_name} in {redacted_url(context.settings.storage)}")
    for label in ("data", "encoders", "training", "device"):
        reporter.line(f"{label}: {conditions[label]}")
    if context.grid is not None:
        reporter.line(f"designs: {conditions['designs']}")
        for note in context.grid.notes:
            reporter.line(note)
    for text in context.data.mended:
        reporter.line(text)
    reporter.line(context.data.note)
