"""The study `superfuse`: networks of every fusion, size and seed on paired embeddings.

A network that was trained is kept by its content key, so the same command goes on where it was.
"""

import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any

import torch

from evaluators.data import DataError, summary
from evaluators.evaluation import Evaluation, Measure, content_key
from evaluators.features.preprocessing import Preprocessing
from evaluators.quality.trainer import Compute, new_trainer
from evaluators.store import EvaluationStore
from evaluators.superfuse.embeddings import Embeddings, Task, WidthError, drawn, load_embeddings
from evaluators.superfuse.encoded import encode
from evaluators.superfuse.model import (
    SUPERFUSE_VERSION,
    SuperfuseConfig,
    Trained,
    fused_width,
    train,
)
from evaluators.superfuse.names import FACTORS, FUSIONS, Fusion
from evaluators.training.config import TrainingProtocol
from search_space.design.encoder import EncoderSpec
from search_space.modality import Modality
from search_space.space.space import SearchSpace
from studies.config.home import home
from studies.config.paths import check_page, default_page
from studies.config.settings import Settings
from studies.config.superfuse import Superfuse
from studies.config.usage import UsageError
from studies.infra.signals import take_interrupts
from studies.report import terminal
from studies.report.progress import Reporter
from studies.study.context import check_single_label, load_data, load_space_of
from studies.superfuse import page as superfuse_page
from studies.superfuse import terminal as superfuse_screen
from studies.superfuse.outcome import Cell, Superfused, TaskFacts

KIND = "superfuse"
DRAWN_ROWS = 2048
"""Drawn pairs of valid and of test."""
FULL_SET = 1.25
"""All training pairs are a size of their own where they are so many times the last doubling."""
MAX_WORKERS = 4
MOST_COST = 2**30
"""Of a job: inputs of the linear layer times training pairs times seeds. About a minute."""


@dataclass(frozen=True)
class Job:
    """Networks of some seeds that are trained side by side; `keys` are those they are kept by.

    cost: grows with what training takes.
    """

    task: Task
    fusion: Fusion
    size: int
    keys: dict[int, str]
    cost: int


@dataclass(frozen=True)
class Subject:
    """What is studied: tasks, and what was left out and why."""

    name: str
    note: str
    tasks: tuple[Task, ...]
    notes: tuple[str, ...]

    def fusions(self, task: Task) -> tuple[Fusion, ...]:
        """Those that the task's widths allow."""
        even = len(set(task.widths)) == 1
        return FUSIONS if even else tuple(f for f in FUSIONS if f != "product")


def run_superfuse(settings: Settings, page: Path | None, json_only: bool) -> None:
    """Runs the study to its end and shows it.

    Raises UsageError, DataError, EncoderError, StoreError.
    """
    told = settings.preset.superfuse
    assert told is not None
    target = page or default_page(_page_name(settings, told))
    check_page(target)
    take_interrupts(signal.SIGINT, signal.SIGTERM)
    config = SuperfuseConfig(epochs=told.epochs, activation=told.activation)  # type: ignore[arg-type]
    console = terminal.open_console(stderr=json_only)
    with terminal.progress(console) as reporter:
        subject = _subject(settings, told, reporter)
        for line in (f"embeddings: {subject.name}", subject.note, *subject.notes):
            if line:
                reporter.line(line)
        cells = _cells(subject, settings, told, config, reporter)
    facts = tuple(
        TaskFacts(
            task.name,
            task.classes,
            task.widths,
            {split: len(part) for split, part in task.parts.items()},
            task.majority_percent("test"),
        )
        for task in subject.tasks
    )
    outcome = Superfused(
        settings.preset.name,
        settings.preset.title,
        settings.preset.about,
        subject.name,
        subject.note,
        subject.notes,
        facts,
        cells,
        config,
        drawn=told.embeddings is None and settings.data.source is None,
        centred=told.center,
        projected=told.project_to if told.embeddings or settings.data.source else None,
    )
    superfuse_page.write(outcome, target)
    if json_only:
        print(json.dumps(superfuse_screen.as_json(outcome), allow_nan=False))
        return
    console = terminal.open_console()
    superfuse_screen.show(outcome, console)
    console.print(f"page: {target}", soft_wrap=True, highlight=False)


def _page_name(settings: Settings, told: Superfuse) -> str:
    if told.embeddings is not None:
        return f"{settings.preset.name}-{told.embeddings.stem}"
    return (
        f"{settings.preset.name}-{Path(settings.data.source).name}"
        if settings.data.source
        else settings.preset.name
    )


# -- what is studied


def _subject(settings: Settings, told: Superfuse, reporter: Reporter) -> Subject:
    """Embeddings and their tasks. Raises UsageError, DataError, EncoderError."""
    note = ""
    notes: tuple[str, ...] = ()
    if told.embeddings is not None:
        found = load_embeddings(told.embeddings, settings.training.seed, told.smallest)
    elif settings.data.source is not None:
        found, note, notes = _encoded(settings, told, reporter)
    else:
        counts: dict[Any, int] = {"train": told.largest, "valid": DRAWN_ROWS, "test": DRAWN_ROWS}
        found = drawn(told.width, counts, settings.training.seed)
        return Subject(found.name, "", (found.synthetic_task(),), ())
    if told.project_to is not None:
        try:
            found = found.projected(told.project_to, settings.training.seed)
        except WidthError as error:
            raise UsageError(
                f"--width {told.project_to}: {error}; give 2 to {min(found.widths)}"
            ) from error
    if told.center:
        found = found.centred()
    return _tasks(found, note, notes)


def _tasks(found: Embeddings, note: str, told: tuple[str, ...]) -> Subject:
    tasks, notes = [], list(told)
    real = found.real_task()
    if real is not None:
        tasks.append(real)
    try:
        tasks.append(found.synthetic_task())
    except WidthError as error:
        text, vision = found.widths
        notes.append(
            f"left out: product, which takes equal widths, and the synthetic task, which needs "
            f"{error}; --width {min(text, vision)} projects both to one width"
        )
    except DataError as error:
        notes.append(f"left out: {error}")
    return Subject(found.name, note, tuple(tasks), tuple(notes))


def _encoded(
    settings: Settings, told: Superfuse, reporter: Reporter
) -> tuple[Embeddings, str, tuple[str, ...]]:
    """The data as two encoders read them, what every page about them says, and cautions."""
    space = load_space_of(settings)
    data = load_data(settings, reporter.step)
    check_single_label(data, f"study {settings.preset.name}", "give data with a column label")
    pair = (_one(space, "text"), _one(space, "vision"))
    where = home(make=True)
    encoders = {spec.name: spec for spec in pair}
    trainer = new_trainer(
        Preprocessing(data, space.shapes),
        encoders,
        TrainingProtocol(trunks="frozen", seed=settings.training.seed),
        where,
        reporter.step,
        compute=Compute(_compute_device()),
    )
    shapes = (space.shapes[pair[0].name], space.shapes[pair[1].name])
    cautions = []
    if data.faults:
        cautions.append(
            f"the data failed the check and were used all the same: {summary(data.faults)}"
        )
    if data.dropped:
        cautions.append(
            f"{len(data.dropped)} rows left out, {data.dropped[0].id} first: {data.dropped[0].why}"
        )
    return encode(trainer.inputs, pair, shapes, told.smallest), data.note, tuple(cautions)


def _one(space: SearchSpace, modality: Modality) -> EncoderSpec:
    """The space's only encoder of a modality. Raises UsageError where there is another number."""
    found = [spec for spec in space.encoders if spec.modality == modality]
    if len(found) != 1:
        names = ", ".join(spec.name for spec in found) or "none"
        raise UsageError(
            f"space {space.name} has {len(found)} {modality} encoders ({names}): name one with "
            f"--{modality}-encoder"
        )
    return found[0]


def _compute_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


# -- training


def sizes(told: Superfuse, pairs: int) -> tuple[int, ...]:
    """Training sizes: doubled from the smallest, at most the largest, all pairs last."""
    most = min(told.largest, pairs)
    found = [told.smallest]
    while 2 * found[-1] <= most:
        found.append(2 * found[-1])
    return (*found, most) if most >= FULL_SET * found[-1] else tuple(found)


def _cells(
    subject: Subject,
    settings: Settings,
    told: Superfuse,
    config: SuperfuseConfig,
    reporter: Reporter,
) -> tuple[Cell, ...]:
    """Every cell, trained where it is not kept, in the order of the tables."""
    store = EvaluationStore(home(make=True) / "superfuse.jsonl")
    seeds = range(settings.training.seed, settings.training.seed + told.seeds)
    cells: dict[tuple[str, Fusion, int], dict[int, Trained]] = {}
    jobs: list[Job] = []
    for task in subject.tasks:
        prints = task.fingerprint
        for fusion in subject.fusions(task):
            for size in sizes(told, len(task.parts["train"])):
                keys = {seed: _key(prints, fusion, size, seed, config) for seed in seeds}
                kept = {seed: store.get(key) for seed, key in keys.items()}
                cells[task.name, fusion, size] = {
                    seed: _trained(seed, found) for seed, found in kept.items() if found
                }
                missing = {seed: keys[seed] for seed, found in kept.items() if not found}
                jobs += _jobs(task, fusion, size, missing)
    known = sum(len(trained) for trained in cells.values())
    if known:
        reporter.line(f"{known} of {known + sum(len(j.keys) for j in jobs)} networks are cached")
    for job, done in _run(jobs, config, reporter):
        for trained in done:
            store.put(_evaluation(job, trained))
            cells[job.task.name, job.fusion, job.size][trained.seed] = trained
    return tuple(
        Cell(task, fusion, size, tuple(found[seed] for seed in seeds))  # type: ignore[arg-type]
        for (task, fusion, size), found in cells.items()
    )


def _jobs(task: Task, fusion: Fusion, size: int, keys: dict[int, str]) -> Iterator[Job]:
    """Jobs that are none too long: what is broken off loses what it has under way."""
    cost = fused_width(fusion, *task.widths) * size
    seeds, together = list(keys), max(1, MOST_COST // cost)
    for start in range(0, len(seeds), together):
        some = {seed: keys[seed] for seed in seeds[start : start + together]}
        yield Job(task, fusion, size, some, cost * len(some))


def _run(
    jobs: Sequence[Job], config: SuperfuseConfig, reporter: Reporter
) -> Iterator[tuple[Job, list[Trained]]]:
    """Trains, one thread a core and the cheapest first; whatever ends it ends all threads."""
    device = _compute_device()
    stop = threading.Event()
    workers = 1 if device == "cuda" else min(MAX_WORKERS, os.cpu_count() or 1)
    with _one_thread_an_operation(), ThreadPoolExecutor(workers) as pool:
        try:
            futures = {
                pool.submit(
                    train, job.task, job.fusion, job.size, list(job.keys), config, device, stop
                ): job
                for job in sorted(jobs, key=lambda job: job.cost)
            }
            for count, future in enumerate(as_completed(futures), start=1):
                job, done = futures[future], future.result()
                yield job, done
                mean = sum(each.test for each in done) / len(done)
                reporter.trial(
                    count,
                    len(jobs),
                    f"{job.task.name}, {job.fusion}, {job.size:,} pairs: {mean:.1f} % of test, "
                    f"mean of {len(done)} seeds",
                )
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _one_thread_an_operation() -> Iterator[None]:
    """Operations here are small: threads inside of them would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# -- keeping


def _key(prints: str, fusion: Fusion, size: int, seed: int, config: SuperfuseConfig) -> str:
    conditions = {
        "task": prints,
        "fusion": fusion,
        "size": size,
        "seed": seed,
        "regime": asdict(config),
        "factors": FACTORS,
        "recipe": SUPERFUSE_VERSION,
    }
    return content_key(KIND, conditions)


def _evaluation(job: Job, trained: Trained) -> Evaluation:
    measures = (
        Measure("accuracy", trained.test, "%", "higher"),
        Measure("valid_accuracy", trained.valid, "%", "higher"),
    )
    details = {
        "task": job.task.name,
        "fusion": job.fusion,
        "size": job.size,
        "seed": trained.seed,
        "best_epoch": trained.best_epoch,
        "noise": {name: list(curve) for name, curve in trained.noise.items()},
        "auc": None if isnan(trained.auc) else trained.auc,
        "roc": list(trained.roc),
        "train_s": trained.train_s,
        "noise_s": trained.noise_s,
    }
    return Evaluation(job.keys[trained.seed], KIND, measures, details)


def _trained(seed: int, kept: Evaluation) -> Trained:
    told = kept.details
    return Trained(
        seed,
        kept["valid_accuracy"].value,
        kept["accuracy"].value,
        told["best_epoch"],
        {name: tuple(curve) for name, curve in told["noise"].items()},
        nan if told["auc"] is None else told["auc"],
        tuple(told["roc"]),
        told["train_s"],
        told["noise_s"],
    )
