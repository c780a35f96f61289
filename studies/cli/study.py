"""What the commands do, once the command line has been read."""

import json
import math
import shlex
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from rich.table import Table

from evaluators.devices.registry import LOCAL
from search_space.operators.registry import origins
from search_space.redaction import redacted_url
from studies.config.home import home
from studies.config.options import MAX_PORT, WEIGHTS, DeviceOptions
from studies.config.paths import check_page, check_table, default_page
from studies.config.settings import Settings
from studies.config.usage import UsageError, check_choice, check_range
from studies.infra.locations import StorageError, default_url
from studies.infra.log_file import logged
from studies.infra.signals import take_interrupts
from studies.infra.storage import open_storage, quiet_optuna
from studies.report import terminal
from studies.report.designs.files import write_table
from studies.report.json_output import as_json
from studies.report.paragraphs import say
from studies.results.analysis.boards import on_board
from studies.results.objectives import goals
from studies.results.outcome import DesignResult
from studies.results.study_outcome import (
    BOARDS,
    SUBJECT,
    correct_answers,
    goals_of,
    outcome_of,
    rows_of,
)
from studies.results.text import counted
from studies.results.verdict import CorrectBySplit
from studies.study.lookup import (
    find_named_study,
    find_study,
    is_missing,
    remove_stored_passwords,
)


def run_study(
    settings: Settings, page: Path | None, json_only: bool, log_file: Path | None = None
) -> None:
    """Runs a study to its total and shows it; what it reports goes to `log_file` too.

    Raises what `running` and `run_to_end` raise.
    """
    if log_file is not None and (settings.preset.superfuse or settings.data.beside):
        raise UsageError("--log-file: studies of one data set that search or list designs take it")
    if settings.preset.superfuse is not None:
        from studies.superfuse.run import run_superfuse

        run_superfuse(settings, page, json_only)
        return
    if settings.data.beside is not None:
        _run_side_by_side(settings, page, json_only)
        return
    from studies.study.run import StudyIncomplete, run_to_end, running

    incomplete: StudyIncomplete | None = None
    try:
        with running(settings, page, json_only, log_file) as reporter:
            study = run_to_end(
                settings, reporter, lambda name: check_page(page or default_page(name))
            )
    except StudyIncomplete as error:
        study, incomplete = error.study, error
    _show(study, page or default_page(study.study_name), json_only)
    if incomplete is not None:
        raise incomplete


def work_on_study(
    storage: str | None, name: str | None, options: Mapping[str, object], log_file: Path | None
) -> None:
    """Joins a study with one more worker until it has its total, and says so.

    `options` are those of this host, by name. Raises what `join_study` raises.
    """
    from studies.study.worker import join_study

    quiet_optuna()
    take_interrupts(signal.SIGINT, signal.SIGTERM)
    with (
        terminal.progress(terminal.open_console()) as reporter,
        logged(reporter, log_file) as logging,
    ):
        finished = join_study(storage, name, options, logging)
        logging.line(f"the study has {counted(finished, 'finished trial')}; this worker ends")


def show_plan(settings: Settings, json_only: bool) -> None:
    """Prints what a run would do, and starts nothing. Raises what the run would, if known."""
    if settings.preset.superfuse is not None or settings.data.beside is not None:
        raise UsageError("--dry-run: it is for studies that search or list designs on one data set")
    from studies.study.plan import in_words, plan_as_json, plan_of
    from studies.study.run import check_useful

    check_useful(settings)
    quiet_optuna()
    plan = plan_of(settings)
    if json_only:
        print(json.dumps(plan_as_json(plan), allow_nan=False))
        return
    console = terminal.open_console()
    for line in in_words(plan, settings):
        say(console, line, hang=4)


def _run_side_by_side(settings: Settings, page: Path | None, json_only: bool) -> None:
    if settings.preset.grid is None:
        raise UsageError("--beside: it is for a fixed list of designs, as --study dominance")
    if page is not None:
        raise UsageError("--page: each of the two sets has a page in ./runs; leave it out")
    from studies.cli.dominance import run_side_by_side, side_by_side_json, told
    from studies.study.run import running

    with running(settings, None, json_only) as reporter:
        found = run_side_by_side(settings, reporter)
    if json_only:
        print(json.dumps(side_by_side_json(found), allow_nan=False))
        return
    console = terminal.open_console()
    console.print(found.first.title, style="bold", highlight=False)
    for line in told(found):
        console.print(line, highlight=False, markup=False)


def _show(
    study: optuna.Study, page: Path | None, json_only: bool, limit_ms: float | None = None
) -> None:
    outcome = outcome_of(study, limit_ms)
    if page is not None:
        from studies.report import page as pages

        pages.write(outcome, page)
    if json_only:
        print(json.dumps(as_json(outcome), allow_nan=False))
        return
    console = terminal.open_console()
    terminal.show(outcome, console)
    console.print(f"page: {page}", soft_wrap=True, highlight=False)


def show_study(
    storage: str | None,
    name: str | None,
    page: Path | None,
    json_only: bool,
    export: Path | None = None,
    limit_ms: float | None = None,
) -> None:
    """Shows a study that is already there; JSON alone comes without a page, unless one is named.

    Args:
        storage: its URL; None for the default.
        name: the study's, where there are several.
        page: where its HTML page goes.
        json_only: print JSON and nothing else.
        export: a .csv or .parquet file for all designs.
        limit_ms: a latency limit instead of the study's own.

    Raises:
        StorageError: where there is no such study.
        UsageError: where a file cannot be written there, and for a limit that is no latency.
    """
    if export is not None:
        check_table(export)
    if limit_ms is not None and not 0 < limit_ms < math.inf:
        raise UsageError(f"--latency-limit {limit_ms:g}: give milliseconds above 0")
    study = find_study(storage, name)
    target = page if page or json_only else default_page(study.study_name)
    if target is not None:
        check_page(target)
    if export is not None:
        write_table(outcome_of(study, limit_ms), export)
    _show(study, target, json_only, limit_ms)


def choose_design(
    storage: str | None,
    name: str | None,
    limits: tuple[float | None, float | None, bool],
    json_only: bool,
    board: str | None = None,
    further: Sequence[str] = (),
) -> None:
    """Prints which design of a study meets the limits: latency, least accuracy, knee.

    `board`: the one whose latency counts, of a study of several unlike boards. `further`: limits
    NAME=NUMBER. Raises StorageError or UsageError.
    """
    from studies.trained.choose import choice_as_json, choose, meeting, told

    study = find_study(storage, name)
    subject = study.user_attrs[SUBJECT]
    boards = subject.get(BOARDS, [])
    others = [each.name for each in goals_of(subject).more if each.board not in boards]
    if others:
        raise UsageError(
            f"choose: the study searches for {others[0]} too; it supports accuracy and latency only"
        )
    if board is not None and board not in boards:
        known = ", ".join(boards) or "none beside its device"
        raise UsageError(f"--board {board}: the study's boards are {known}")
    rows: Sequence[DesignResult] = rows_of(study)
    try:
        wanted = goals((), further).limits
    except ValueError as error:
        raise UsageError(str(error)) from error
    rows = meeting(rows, wanted)
    if board is not None and board != boards[0]:
        rows = [on_board(row, board) for row in rows]
    correct: CorrectBySplit = {
        "valid": correct_answers(study, "valid"),
        "test": correct_answers(study, "test"),
    }
    choice = choose(rows, correct, *limits)
    if json_only:
        print(json.dumps(choice_as_json(choice), allow_nan=False))
        return
    console = terminal.open_console()
    given = ["--name", study.study_name, *(["--storage", redacted_url(storage)] if storage else [])]
    for line in told(choice, shlex.join(given)):
        say(console, line, hang=4)


def compare_studies(
    storage: str | None, given: Sequence[str], page: Path | None, json_only: bool
) -> None:
    """Prints two or more studies side by side; `given` are names, or NAME@STORAGE.

    Raises StorageError or UsageError.
    """
    from studies.comparison.fronts import compare, comparison_as_json
    from studies.comparison.showing import lines_of, write_page

    if page is not None:
        check_page(page)
    found = compare([find_named_study(storage, each) for each in dict.fromkeys(given)])
    if page is not None:
        write_page(found, page)
    if json_only:
        print(json.dumps(comparison_as_json(found), allow_nan=False))
        return
    console = terminal.open_console()
    for line, is_whole in lines_of(found, console.width):
        if is_whole or not line:
            console.print(line, highlight=False, markup=False, no_wrap=True, crop=False)
        else:
            say(console, line, hang=len(line) - len(line.lstrip()) + 2)
    if page is not None:
        console.print(f"page: {page}", soft_wrap=True, highlight=False)


def time_network(
    file: Path,
    baseline: Path | None,
    tolerance: float,
    shapes: Mapping[str, Sequence[str]],
    given: Mapping[str, Any],
    json_only: bool,
) -> None:
    """Times an ONNX file, against a baseline where there is one; tolerance in percent.

    `shapes` are what --shape and --baseline-shape give, by flag.

    Raises SlowerThanBaseline, UsageError, and what the device raises.
    """
    from studies.trained.timing import (
        check_slowdown,
        in_words,
        shapes_of,
        time_file,
        timing_device,
    )

    if not 0 <= tolerance <= 1000:
        raise UsageError(f"--tolerance {tolerance:g}: give 0 to 1000 %")
    if shapes["baseline-shape"] and baseline is None:
        raise UsageError("--baseline-shape without --baseline: leave it out, or give a baseline")
    own, of_baseline = (shapes_of(each, flag) for flag, each in shapes.items())
    names = given["device"] or (LOCAL,)
    if len(names) > 1:
        raise UsageError(f"--device {', '.join(names)}: give one")
    options = DeviceOptions(
        names, given["threads"], given["timing"] or "auto", runtime=given["runtime"] or "cpu"
    )
    with timing_device(options) as device:
        found = time_file(device, file, baseline, own, tolerance / 100, of_baseline)
    console = terminal.open_console()
    if json_only:
        print(json.dumps(found, allow_nan=False))
    else:
        say(console, in_words(found), hang=4)
        if baseline is not None:
            say(console, in_words({**found["baseline"], "device": found["device"]}), hang=4)
    if baseline is not None:
        said = check_slowdown(found)
        if not json_only:
            say(console, said, hang=4)


def show_space(
    name: str,
    text_encoders: tuple[str, ...],
    vision_encoders: tuple[str, ...],
    audio_encoders: tuple[str, ...],
    weights: Any,
    image_sizes: tuple[int, ...] = (),
    image_tokens: tuple[int, ...] = (),
    lora_ranks: tuple[int, ...] = (),
    image_merging: tuple[int, ...] = (),
) -> None:
    """Prints a space: encoders, decisions, and where the published designs stand in it."""
    from search_space.space.named import load_space
    from search_space.space.paper import seeded_designs

    check_choice("--weights", weights or "random", WEIGHTS)
    encoders_given = (text_encoders, vision_encoders, audio_encoders)
    space = load_space(
        name,
        *encoders_given,
        weights,
        image_sizes=image_sizes,
        image_tokens=image_tokens,
        lora_ranks=lora_ranks,
        image_merging=image_merging,
    )
    console = terminal.open_console()
    console.print(f"{space.name}: {space.size:.3g} vectors of {len(space.decisions)} choices")
    encoders = Table("encoder", "taps", "widths", "takes", title="Encoders", title_justify="left")
    for spec in space.encoders:
        shape = space.shapes[spec.name]
        takes = {
            "text": f"{shape.max_tokens} tokens",
            "vision": f"{shape.image_size} px",
            "audio": f"{spec.seconds} s",
        }[shape.modality]
        widths = sorted(set(shape.widths))
        encoders.add_row(
            spec.name,
            str(shape.depth),
            " ".join(map(str, widths)),
            f"{takes}, {spec.weights} weights",
        )
    console.print(encoders)
    for name, origin in origins(space.operators).items():
        console.print(f"operator {name}: of the plugin {origin}", highlight=False)
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

    from studies.study.final.final_test import ARTIFACTS

    quiet_optuna()
    check_range("--port", port, 1, MAX_PORT)
    url = storage or default_url()
    if is_missing(url):
        raise StorageError(f"storage {redacted_url(url)}: there is no such file; run a study first")
    folder = home() / ARTIFACTS
    folder.mkdir(parents=True, exist_ok=True)
    opened = open_storage(url)
    remove_stored_passwords(opened)
    said = f"dashboard of {redacted_url(url)} on http://{host}:{port}"
    terminal.open_console().print(said, highlight=False, soft_wrap=True)
    artifacts = FileSystemArtifactStore(str(folder))
    try:
        socket.create_server((host, port)).close()  # the server's own error comes too late
        run_server(opened, host=host, port=port, artifact_store=artifacts)
    except OSError as error:
        raise UsageError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror or error}); "
            "give another"
        ) from error
