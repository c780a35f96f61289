"""What the commands do, once the command line has been read."""

import json
import signal
import socket
from pathlib import Path
from typing import Any

import optuna
import torch
from filelock import FileLock
from rich.console import Console
from rich.table import Table

from evaluators.probe import ProbeEvaluator
from search_space.named import load_space
from search_space.paper import seeded_designs
from studies import page as pages
from studies import screen
from studies.early_stopping import EarlyStopping
from studies.finish import ARTIFACTS, finish
from studies.identity import open_study, study_name
from studies.jsonout import as_json
from studies.lab import Lab, open_lab
from studies.latency_prediction import LearntLatency
from studies.records import SUBJECT, outcome_of
from studies.samplers import sampler_maker
from studies.search import Search
from studies.settings import (
    MAX_PORT,
    WEIGHTS,
    Settings,
    UsageError,
    check_choice,
    check_range,
    home,
)
from studies.storage import StorageError, default_url, open_storage, quiet_optuna
from studies.targets import check_page, default_page
from studies.workers import Workers


def run_study(settings: Settings, page: Path | None, json_only: bool) -> None:
    """Runs a study to its total and shows it.

    Raises what `open_lab`, `open_study` and `Search.run` raise, and UsageError for a flag that
    could do nothing here.
    """
    _check_useful(settings)
    quiet_optuna()
    check_page(page or default_page(settings.name or settings.preset))
    signal.signal(signal.SIGTERM, _as_interrupt)
    console = Console(stderr=json_only)
    with screen.progress(console) as reporter:
        lab = open_lab(settings, reporter.step)
        try:
            target = page or default_page(study_name(settings, lab.data, lab.space))
            check_page(target)
            study = open_study(lab)
            _announce(reporter, lab, study)
            lab.selection.prepare()
            seeded = seeded_designs(lab.space)
            fused = [s for s in seeded if lab.space.holds(s.genotype)]
            alone = [s for s in seeded if s not in fused]
            workers = Workers(lab.home / "workers")
            latency = None
            sampler = lab.settings.sampler
            if sampler == "ehvi" or settings.few_readings:
                latency = LearntLatency(study, lab.space, lab.builder.rewriting)
            early = EarlyStopping(
                ProbeEvaluator(lab.quality) if settings.probe else None,
                latency if settings.few_readings else None,
            )
            try:
                search = Search(
                    study,
                    lab.space,
                    lab.latency,
                    lab.selection,
                    lab.store,
                    workers,
                    settings.latency_limit_ms,
                    reporter,
                    sampler_maker(sampler, settings.seed, lab.space, latency),
                    fused,
                    fixed=lab.grid is not None,
                    early=early,
                )
                listed = lab.grid.designs if lab.grid else ()
                if settings.seed_paper or lab.grid:
                    search.seed(listed or fused)
                search.run(settings.trials or len(listed))
            finally:
                workers.close()
            reporter.line("looking at the test split, once")
            with FileLock(lab.home / "workers" / "finish.lock"):  # workers may end together
                finish(lab, study, alone)
            lab.latency.settle()
        finally:
            lab.close()
    _show(study, target, json_only)


def _check_useful(settings: Settings) -> None:
    """Raises UsageError for flags that could do nothing here."""
    if settings.accept_faults and settings.built_in is not None:
        raise UsageError(
            "--accept-faults without --data of yours: built-in data have no faults; leave it out"
        )
    if settings.compile and not torch.cuda.is_available():
        raise UsageError(
            "--compile: no CUDA GPU is found here, and on a CPU nothing is compiled; leave it out"
        )


def _as_interrupt(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt


def _announce(reporter: Any, lab: Lab, study: optuna.Study) -> None:
    """Says what will be done on what, before anything takes long."""
    conditions = study.user_attrs["conditions"]
    reporter.line(f"study {study.study_name} in {lab.settings.storage}")
    for label in ("data", "encoders", "training", "device"):
        reporter.line(f"{label}: {conditions[label]}")
    if lab.grid is not None:
        reporter.line(f"designs: {conditions['designs']}")
        for note in lab.grid.notes:
            reporter.line(note)
    for text in lab.data.mended:
        reporter.line(text)
    reporter.line(lab.data.note)


def _show(study: optuna.Study, page: Path, json_only: bool) -> None:
    outcome = outcome_of(study)
    pages.write(outcome, page)
    if json_only:
        print(json.dumps(as_json(outcome), allow_nan=False))
        return
    console = Console()
    screen.show(outcome, console)
    console.print(f"page: {page}", soft_wrap=True, highlight=False)


def show_study(storage: str | None, name: str | None, page: Path | None, json_only: bool) -> None:
    """Shows a study that is already there. Raises StorageError or UsageError."""
    quiet_optuna()
    study = find_study(storage, name)
    target = page or default_page(study.study_name)
    check_page(target)
    _show(study, target, json_only)


def find_study(storage: str | None, name: str | None) -> optuna.Study:
    """The study of this name, or the only one there is. Raises StorageError or UsageError."""
    url = storage or default_url()
    file = Path(url.partition(":///")[2])
    if url.startswith("sqlite") and not file.is_file():
        raise StorageError(f"storage {url}: there is no such file; run a study first")
    opened = open_storage(url)
    names = optuna.study.get_all_study_names(opened)
    if name is None:
        if len(names) != 1:
            raise UsageError(
                f"{url} holds {len(names)} studies ({', '.join(sorted(names)) or 'none'}): "
                "name one with --name"
            )
        name = names[0]
    if name not in names:
        raise UsageError(
            f"no study {name!r} in {url}: it holds {', '.join(sorted(names)) or 'none'}"
        )
    study = optuna.load_study(study_name=name, storage=opened)
    if SUBJECT not in study.user_attrs:
        raise StorageError(
            f"study {name!r} in {url} was not made by fusion-nas: give another --storage or --name"
        )
    return study


def show_space(
    name: str, text_encoders: tuple[str, ...], vision_encoders: tuple[str, ...], weights: Any
) -> None:
    """Prints a space: encoders, decisions, and where the published designs stand in it."""
    check_choice("--weights", weights or "random", WEIGHTS)
    space = load_space(name, text_encoders, vision_encoders, weights)
    console = Console()
    console.print(f"{space.name}: {space.size:.3g} vectors of {len(space.decisions)} choices")
    encoders = Table("encoder", "taps", "widths", "takes", title="Encoders", title_justify="left")
    for spec in space.encoders:
        shape = space.shapes[spec.name]
        takes = (
            f"{shape.max_tokens} tokens" if shape.modality == "text" else f"{shape.image_size} px"
        )
        widths = sorted(set(shape.widths))
        encoders.add_row(
            spec.name,
            str(shape.depth),
            " ".join(map(str, widths)),
            f"{takes}, {spec.weights} weights",
        )
    console.print(encoders)
    decisions = Table("decision", "choices", title="Decisions", title_justify="left")
    for decision in space.decisions:
        choices = decision.choices
        said = (
            f"{choices[0]} to {choices[-1]}"
            if decision.kind == "integer"
            else ", ".join(map(str, choices))
        )
        decisions.add_row(decision.name, said)
    console.print(decisions)
    designs = Table("design", "as it stands here", title="arXiv 2511.21889", title_justify="left")
    for seeded in seeded_designs(space):
        designs.add_row(seeded.name, seeded.genotype.describe())
    console.print(designs)


def serve_dashboard(storage: str | None, host: str, port: int) -> None:
    """Serves Optuna's dashboard until interrupted."""
    from optuna.artifacts import FileSystemArtifactStore
    from optuna_dashboard import run_server

    quiet_optuna()
    check_range("--port", port, 1, MAX_PORT)
    url = storage or default_url()
    if url.startswith("sqlite") and not Path(url.partition(":///")[2]).is_file():
        raise StorageError(f"storage {url}: there is no such file; run a study first")
    folder = home() / ARTIFACTS
    folder.mkdir(parents=True, exist_ok=True)
    opened = open_storage(url)
    Console().print(f"dashboard of {url} on http://{host}:{port}", highlight=False, soft_wrap=True)
    artifacts = FileSystemArtifactStore(str(folder))
    try:
        socket.create_server((host, port)).close()  # the server's own error comes too late
        run_server(opened, host=host, port=port, artifact_store=artifacts)
    except OSError as error:
        raise UsageError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror or error}); "
            "give another"
        ) from error
