"""The command line. Nothing heavy is imported before a command needs it."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from search_space.errors import USAGE
from search_space.threads import let_waiting_threads_sleep
from studies.cli.device.app import device_app
from studies.cli.exits import INTERRUPTED, errors
from studies.cli.options import (
    AcceptFaults,
    Center,
    Data,
    Devices,
    Embeddings,
    ImageMerging,
    ImageSizes,
    ImageTokens,
    Json,
    LogFile,
    LoraRanks,
    Modalities,
    Name,
    Protocol,
    Runtime,
    ScoreClasses,
    Seconds,
    Sizes,
    Sounds,
    Space,
    Storage,
    Store,
    Study,
    TextOnly,
    Texts,
    Threads,
    Timing,
    Track,
    Trials,
    Trunks,
    Visions,
    WeightsFlag,
    Width,
)

app = typer.Typer(
    name="fusion-nas",
    help="Search fusion designs of text, vision and audio networks for the Pareto front of "
    "accuracy against latency on a real device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Check data before a study.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(device_app, name="device")

LEAST_COLUMNS = 20
"""Of a terminal: a table on fewer cannot be read."""
ClickException: Any = typer.BadParameter.__mro__[2]
"""What typer raises for a command line that it cannot read."""


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"fusion-nas {version('fusion-nas')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Options of the command itself."""


@app.command()
def run(
    context: typer.Context,
    study: Study = "pareto",
    seed_paper: Annotated[
        bool,
        typer.Option(
            "--seed-paper",
            help="Add the published designs as the first trials.",
            rich_help_panel="Study",
        ),
    ] = False,
    trials: Trials = None,
    data: Data = None,
    space: Space = None,
    text_encoders: Texts = None,
    vision_encoders: Visions = None,
    audio_encoders: Sounds = None,
    weights: WeightsFlag = None,
    trunks: Trunks = None,
    protocol: Protocol = None,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile transformer layers on a GPU.", rich_help_panel="Training"
        ),
    ] = False,
    text_only: TextOnly = False,
    modalities: Modalities = None,
    seconds: Seconds = None,
    score_classes: ScoreClasses = None,
    image_sizes: ImageSizes = None,
    image_tokens: ImageTokens = None,
    image_merging: ImageMerging = None,
    lora_ranks: LoraRanks = None,
    accept_faults: AcceptFaults = False,
    devices: Devices = None,
    threads: Threads = None,
    timing: Timing = None,
    rewrites: Annotated[
        str | None,
        typer.Option(
            "--rewrites",
            help="Exact rewrites before timing: all, own-length or none. Default: "
            "all; none for fixed lists.",
            rich_help_panel="Device",
        ),
    ] = None,
    runtime: Runtime = None,
    final_readings: Annotated[
        int | None,
        typer.Option(
            "--final-readings",
            metavar="N",
            help="At the end, time the front and the named designs N times again, in turns. "
            "0: do not. Default: 4; 12 short ones where other work shares the device.",
            rich_help_panel="Device",
        ),
    ] = None,
    retime: Annotated[
        bool,
        typer.Option(
            "--retime",
            help="At the end, also time designs again that were timed under load.",
            rich_help_panel="Device",
        ),
    ] = False,
    precisions: Annotated[
        list[str] | None,
        typer.Option(
            "--precision",
            help="fp32, fp16, int8 or int8-dynamic. Repeatable. Default: those of the space.",
            rich_help_panel="Search space",
        ),
    ] = None,
    latency_limit_ms: Annotated[
        float | None,
        typer.Option(
            "--latency-limit",
            help="Latency limit in ms. Slower designs are not trained.",
            rich_help_panel="Objectives",
        ),
    ] = None,
    objectives: Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            help="Further objective, at most two: macro-f1; of multi-label data micro-f1, "
            "mean-average-precision; of classes that are numbers mae, correlation; "
            "robustness, robustness-text, -vision, -audio, -both, -all, without-text, -vision, "
            "-audio, calibration, parameters, bytes, memory, energy, or one of a plugin.",
            rich_help_panel="Objectives",
        ),
    ] = None,
    limits: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            help="Bound on an objective, such as bytes=5e6. Repeatable.",
            rich_help_panel="Objectives",
        ),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(
            "--noise",
            help="Largest noise factor of the robustness objectives.",
            rich_help_panel="Objectives",
        ),
    ] = None,
    reuse: Annotated[
        list[str] | None,
        typer.Option(
            "--reuse",
            help="Share of repeated inputs, such as image=0.8, text=0.5 or sound=0.5: they are not "
            "encoded again, and the latency is the expected one. Repeatable.",
            rich_help_panel="Objectives",
        ),
    ] = None,
    time_missing: Annotated[
        bool,
        typer.Option(
            "--time-missing",
            help="Also time the front's designs without each modality.",
            rich_help_panel="Device",
        ),
    ] = False,
    beside: Annotated[
        str | None,
        typer.Option(
            "--beside", help="For --study dominance: the second data set.", rich_help_panel="Data"
        ),
    ] = None,
    storage: Storage = None,
    name: Name = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            "--sampler",
            help="auto, tpe, ehvi, gp, nsga2 or random. Default: auto.",
            rich_help_panel="Sampling",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", help="Seed of sampler and training. Default: 0.", rich_help_panel="Training"
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            help="Trainings of each design of the front, and of each named design, for its test "
            "accuracy. Default: 3.",
            rich_help_panel="Training",
        ),
    ] = None,
    cv: Annotated[
        bool,
        typer.Option(
            "--cv",
            help="Use 5-fold cross-validation over train and validation; five trainings per "
            "design.",
            rich_help_panel="Training",
        ),
    ] = False,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Train only designs that a linear probe finds promising.",
            rich_help_panel="Sampling",
        ),
    ] = False,
    deferred_timing: Annotated[
        bool,
        typer.Option(
            "--deferred-timing",
            "--few-readings",
            help="Train first; time at the end what may improve the front, by a latency model.",
            rich_help_panel="Sampling",
        ),
    ] = False,
    fine_tune: Annotated[
        int | None,
        typer.Option(
            "--fine-tune",
            metavar="N",
            help="Train N designs whole after the search, in order of non-domination.",
            rich_help_panel="Training",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="Worker processes. Default: 1.", rich_help_panel="Sampling"),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            help="What places the workers: local, or dask for a Dask cluster. Default: local.",
            rich_help_panel="Sampling",
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="ADDRESS",
            help="Dask scheduler, as tcp://host:8786. Default: processes on this machine.",
            rich_help_panel="Sampling",
        ),
    ] = None,
    store: Store = None,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="Take over running trials of other hosts without a heartbeat.",
            rich_help_panel="Sampling",
        ),
    ] = False,
    from_study: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STUDY",
            help="Time the front and named designs of this study first, as on another device; "
            "NAME or NAME@FILE.db.",
            rich_help_panel="Study",
        ),
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(
            "--hours", help="Stop after this many hours of this run.", rich_help_panel="Study"
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            metavar="N",
            help="Stop after N trials in a row without a gain in hypervolume.",
            rich_help_panel="Study",
        ),
    ] = None,
    embeddings: Embeddings = None,
    width: Width = None,
    center: Center = False,
    sizes: Sizes = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="TOML file of flags by their names, as latency-limit = 20. The command line wins.",
            rich_help_panel="Study",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print what would run, for how long, and start nothing.",
            rich_help_panel="Study",
        ),
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page", help="Path of the HTML page. Default: ./runs.", rich_help_panel="Output"
        ),
    ] = None,
    log_file: LogFile = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Run or resume a study, and print the Pareto front.

    Examples:

    fusion-nas run --study pareto --seed-paper

    fusion-nas run --data DIR --text-encoder DIR --vision-encoder DIR --latency-limit 20

    fusion-nas run --device orin --runtime tensorrt --precision fp16 --trials 200
    """
    from studies.config.settings import load_settings

    with errors():
        from studies.cli.config_file import with_config

        own = ("study", "config", "dry_run", "page", "log_file", "as_json")
        values, configuration = with_config(context, config)
        options = {name: value for name, value in values.items() if name not in own}
        settings = load_settings(
            values["study"], options | {"configuration": configuration or None}
        )
        from studies.cli.study import run_study, show_plan

        if dry_run:
            show_plan(settings, values["as_json"])
        else:
            run_study(settings, values["page"], values["as_json"], values["log_file"])


@app.command()
def worker(
    name: Name = None,
    storage: Storage = None,
    data: Data = None,
    space: Space = None,
    text_encoders: Texts = None,
    vision_encoders: Visions = None,
    audio_encoders: Sounds = None,
    devices: Devices = None,
    store: Store = None,
    log_file: LogFile = None,
) -> None:
    """Join a study with one more worker, from this host or another one, until it has its total.

    Flags say where data, encoders and devices are on this host; instead of the defaults that they
    name, what is not given is as in the study.
    """
    with errors():
        given = {
            "data": data,
            "space": space,
            "text_encoders": text_encoders,
            "vision_encoders": vision_encoders,
            "audio_encoders": audio_encoders,
            "devices": devices,
            "store": store,
        }
        from studies.cli.study import work_on_study

        options = {
            option: tuple(value) if isinstance(value, list) else value
            for option, value in given.items()
            if value
        }
        work_on_study(storage, name, options, log_file)


@app.command()
def report(
    name: Name = None,
    storage: Storage = None,
    page: Annotated[
        Path | None,
        typer.Option("--page", help="Where the HTML page goes; none with --json if left out."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option("--export", help="Also write all designs to this .csv or .parquet file."),
    ] = None,
    latency_limit_ms: Annotated[
        float | None,
        typer.Option("--latency-limit", help="Read the study under this limit in ms, not its own."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the results of a study again, and write its page."""
    with errors():
        from studies.cli.study import show_study

        show_study(storage, name, page, as_json, export, latency_limit_ms)


@app.command()
def time(
    file: Annotated[Path, typer.Argument(help="An ONNX file with all its weights.")],
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", help="ONNX file that is timed in turns with it."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Allowed slowdown over the baseline in %.")
    ] = 5.0,
    shapes: Annotated[
        list[str] | None,
        typer.Option("--shape", help="NAME=1,3,224,224 for an input of open extents. Repeatable."),
    ] = None,
    baseline_shapes: Annotated[
        list[str] | None,
        typer.Option("--baseline-shape", help="The same for an input of the baseline."),
    ] = None,
    devices: Annotated[
        list[str] | None,
        typer.Option("--device", help="local, or the name of a board. Default: local."),
    ] = None,
    runtime: Runtime = None,
    threads: Threads = None,
    timing: Timing = None,
    as_json: Json = False,
) -> None:
    """Time an ONNX file on a device; exit with 10 if it is slower than its baseline.

    The file and the baseline are read in turns, ABBAABBA. It is slower if the 95 % interval of the
    ratio of their latencies lies above the tolerance.
    """
    with errors():
        from studies.cli.study import time_network

        given = {"device": tuple(devices or ()), "runtime": runtime, "threads": threads}
        given |= {"timing": timing}
        extents = {"shape": shapes or [], "baseline-shape": baseline_shapes or []}
        time_network(file, baseline, tolerance, extents, given, as_json)


@app.command()
def choose(
    latency_ms: Annotated[
        float | None, typer.Option("--latency", help="Greatest latency in ms.")
    ] = None,
    least_accuracy: Annotated[
        float | None, typer.Option("--min-accuracy", help="Least accuracy on validation in %.")
    ] = None,
    knee: Annotated[
        bool, typer.Option("--knee", help="Choose the knee of the front within the limits.")
    ] = False,
    board: Annotated[
        str | None,
        typer.Option("--board", help="Choose by the latency on this board of the study."),
    ] = None,
    limits: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            help="A further limit, NAME=NUMBER, as latency@nano=15 for another board. Repeatable.",
        ),
    ] = None,
    storage: Storage = None,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Choose a design of a finished study by latency and accuracy, and print its neighbours.

    With --min-accuracy alone the fastest design is chosen, else the most accurate.
    """
    with errors():
        from studies.cli.study import choose_design

        wanted = (latency_ms, least_accuracy, knee)
        choose_design(storage, name, wanted, as_json, board, tuple(limits or ()))


@app.command()
def compare(
    studies: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY...",
            help="Names of two or more studies, or of one that has several unlike boards; "
            "NAME@FILE.db for one of another storage.",
        ),
    ],
    storage: Storage = None,
    page: Annotated[
        Path | None,
        typer.Option("--page", help="Write the fronts as an HTML page to this path."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare studies: fronts over each other, Kendall's tau of latencies, designs good on all.

    Accuracies are compared only where data, training and selection are the same.
    """
    with errors():
        from studies.cli.study import compare_studies

        compare_studies(storage, studies, page, as_json)


@app.command()
def export(
    trial: Annotated[int, typer.Argument(help="The trial's number.")],
    name: Name = None,
    storage: Storage = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="A folder; ./export-N if left out.")
    ] = None,
    fine_tuned: Annotated[
        bool, typer.Option("--fine-tuned", help="As --fine-tune left it, not as the search saw it.")
    ] = False,
    split: Annotated[
        bool,
        typer.Option(
            "--split",
            help="Also export the encoders and the fusion, each timed, so that an input that is "
            "repeated is encoded once.",
        ),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            help="Where the parts of --split and the graph of --with-preprocessing are timed: "
            "local, or the name of a board. Default: the parts on the study's device, the graph "
            "only with the parts.",
        ),
    ] = None,
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="Also export a graph for ONNX Runtime that resizes and normalises pictures of any "
            "size, and prepares sounds. Texts are tokenised outside it.",
        ),
    ] = False,
) -> None:
    """Export a trial's trained network as ONNX, with tokenizer, card and parity check."""
    with errors():
        from studies.config.usage import UsageError
        from studies.study.lookup import find_study

        if device is not None and not (split or with_preprocessing):
            raise UsageError(
                f"--device {device}: an export times the files of --split and "
                "--with-preprocessing; give one of them, or leave --device out"
            )
        study = find_study(storage, name)
        from studies.trained.export import export_trial
        from studies.trained.split import device_of

        timed_on = device_of(study, device) if split or device is not None else None
        export_trial(study, trial, out, fine_tuned, split, with_preprocessing, timed_on)


@app.command()
def stress(
    trial: Annotated[int, typer.Argument(help="The trial's number.")],
    corruption: Annotated[
        list[str] | None,
        typer.Option("--corruption", help="One of those there are; repeatable. All if left out."),
    ] = None,
    severity: Annotated[
        list[int] | None,
        typer.Option("--severity", help="1 to 5; repeatable. 1, 3, 5 if left out."),
    ] = None,
    fine_tuned: Annotated[
        bool, typer.Option("--fine-tuned", help="As --fine-tune left it, not as the search saw it.")
    ] = False,
    name: Name = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Evaluate a trial's trained network on corrupted validation inputs."""
    with errors():
        from studies.study.lookup import find_study

        study = find_study(storage, name)
        from studies.trained.stress import stress_trial

        stress_trial(
            study,
            trial,
            tuple(corruption or ()),
            tuple(severity or ()),
            fine_tuned,
            as_json,
        )


@app.command()
def cascade(
    first: Annotated[
        str | None,
        typer.Argument(
            help="Number or name of the design that is asked first. Default: the most accurate "
            "network of one modality that is faster than SECOND."
        ),
    ] = None,
    second: Annotated[
        str | None,
        typer.Argument(
            help="Number or name of the other. Default: the most accurate design of the front."
        ),
    ] = None,
    latency_ms: Annotated[
        float | None, typer.Option("--latency", help="Greatest mean latency in ms.")
    ] = None,
    name: Name = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Combine two designs: the first answers where it is confident, the second otherwise.

    The threshold is chosen on validation; accuracy and mean latency are reported on test.
    """
    with errors():
        from studies.study.lookup import find_study

        study = find_study(storage, name)
        from studies.trained.cascade import show_cascade

        show_cascade(study, first, second, latency_ms, as_json)


@app.command()
def space(
    name_or_file: Annotated[
        str, typer.Argument(help="demo, trimodal, paper, fusions, fusion-1152, or a TOML file.")
    ] = "demo",
    text_encoder: Texts = None,
    vision_encoder: Visions = None,
    audio_encoder: Sounds = None,
    weights: WeightsFlag = None,
    image_sizes: ImageSizes = None,
    image_tokens: ImageTokens = None,
    image_merging: ImageMerging = None,
    lora_ranks: LoraRanks = None,
    check: Annotated[
        str | None,
        typer.Option(
            "--check",
            help="tensorrt: whether NVIDIA's parser takes its operators, poolings, encoders and "
            "precisions; needs no GPU.",
        ),
    ] = None,
    build: Annotated[
        bool, typer.Option("--build", help="With --check: also build engines, which takes longer.")
    ] = False,
) -> None:
    """Print a search space: encoders with their taps, decisions and published designs."""
    with errors():
        if check is not None:
            from studies.cli.device.tensorrt import check_compiler

            texts, visions, sounds = (
                tuple(each or ()) for each in (text_encoder, vision_encoder, audio_encoder)
            )
            given = (texts, visions, sounds)
            check_compiler(check, name_or_file, given, weights, build)
            return
        if build:
            from studies.config.usage import UsageError

            raise UsageError("--build: give it with --check tensorrt")
        from studies.cli.study import show_space

        show_space(
            name_or_file,
            tuple(text_encoder or ()),
            tuple(vision_encoder or ()),
            tuple(audio_encoder or ()),
            weights,
            tuple(image_sizes or ()),
            tuple(image_tokens or ()),
            tuple(lora_ranks or ()),
            tuple(image_merging or ()),
        )


@app.command()
def paper(
    tokens: Annotated[
        list[int] | None,
        typer.Option(
            "--tokens",
            help="Text lengths to time at; repeatable. Without data 512 and 64 if left out.",
        ),
    ] = None,
    data: Data = None,
    space: Annotated[
        str | None,
        typer.Option("--space", help="Space that holds the encoders; paper if left out."),
    ] = None,
    text_encoder: Texts = None,
    vision_encoder: Visions = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="pretrained or random; without --data random is enough."),
    ] = None,
    trunks: Trunks = None,
    protocol: Protocol = None,
    text_only: TextOnly = False,
    accept_faults: AcceptFaults = False,
    seed: Annotated[
        int | None, typer.Option("--seed", help="The first seed of training; 0 if left out.")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", help="Trainings of a design, with --data; 3 if left out."),
    ] = None,
    device: Devices = None,
    threads: Threads = None,
    timing: Timing = None,
    runtime: Runtime = None,
    storage: Storage = None,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """The designs of arXiv 2511.21889 beside its figures: timed here; with --data also trained and
    judged; with --name or --storage as trials of that study."""
    with errors():
        from studies.config.settings import load_settings
        from studies.config.usage import UsageError

        trained: dict[str, object] = {"--trunks": trunks, "--protocol": protocol}
        trained |= {"--accept-faults": accept_faults, "--seed": seed, "--seeds": seeds}
        made: dict[str, object] = {
            "--data": data,
            "--tokens": tokens,
            "--device": device,
            "--weights": weights,
        }
        made |= {"--space": space, "--text-only": text_only, "--threads": threads}
        made |= {"--timing": timing, "--runtime": runtime}
        encoders: dict[str, object] = {
            "--text-encoder": text_encoder,
            "--vision-encoder": vision_encoder,
        }
        if name is not None or storage is not None:
            for flag, value in (made | encoders | trained).items():
                if _was_given(value):
                    raise UsageError(
                        f"{flag} with --name or --storage: a study is shown as it is; leave one out"
                    )
            from studies.paper.command import show_paper_of_study

            show_paper_of_study(storage, name, as_json)
            return
        for flag, value in trained.items():
            if _was_given(value) and data is None:
                raise UsageError(f"{flag} without --data: nothing is trained; give --data too")
        settings = load_settings(
            "pareto",
            {
                "data": data,
                "space": space or "paper",
                "weights": weights if data else weights or "random",
                "trunks": trunks,
                "protocol": protocol,
                "text_only": text_only,
                "accept_faults": accept_faults,
                "seed": 0 if seed is None else seed,
                "seeds": 3 if seeds is None else seeds,
                "devices": device,
                "threads": threads,
                "timing": timing,
                "runtime": runtime,
                "rewrites": "none",
                "text_encoders": text_encoder,
                "vision_encoders": vision_encoder,
            },
        )
        from studies.paper.command import show_paper

        show_paper(settings, tuple(tokens or ()), as_json)


def _was_given(value: object) -> bool:
    """Whether a flag was given, be it 0."""
    return value is not None and value is not False and value != []


@app.command()
def table(
    file: Annotated[
        Path | None,
        typer.Option("--file", help="A Parquet file like the one shipped, in its place."),
    ] = None,
    sampler: Annotated[
        list[str] | None,
        typer.Option("--sampler", help="Replay studies with tpe, ehvi, gp, nsga2 or random."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="Studies of each sampler; 5 if left out.")
    ] = None,
    trials: Trials = None,
    card: Annotated[
        bool, typer.Option("--card", help="Print how the table was made and what it is not for.")
    ] = False,
    as_json: Json = False,
) -> None:
    """A space whose every design was trained and timed: its front, or samplers replayed on it."""
    with errors():
        from studies.cli.table import show_table

        show_table(file, sampler or (), seeds, trials, card, as_json)


@app.command()
def plan(
    name: Name = None,
    storage: Storage = None,
    seconds: Annotated[
        list[str] | None,
        typer.Option(
            "--seconds",
            metavar="NAME=S",
            help="Seconds of a trial's asking, building, timing or training, instead of a "
            "study's. Repeatable.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", help="Trials of the study.")] = 1000,
    workers: Annotated[int, typer.Option("--workers", help="All workers.")] = 1,
    hosts: Annotated[
        int, typer.Option("--hosts", help="Hosts that they are spread over, with a home each.")
    ] = 1,
    boards: Annotated[int, typer.Option("--boards", help="Alike boards.")] = 1,
    database: Annotated[
        list[str] | None,
        typer.Option(
            "--database",
            metavar="NAME=N",
            help="cores of the database, its seconds for a statement (call) and for each trial "
            "that is read (load), and the worker's for that trial (reading). Repeatable. "
            "Default: it takes no time.",
        ),
    ] = None,
    asking_growth: Annotated[
        float,
        typer.Option(
            "--asking-growth",
            metavar="S",
            help="Seconds by which the sampler slows with each 1,000 trials.",
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Of the drawn durations.")] = 0,
    as_json: Json = False,
) -> None:
    """Simulate a study on more workers and boards: when it ends, and what limits it.

    Durations are those of a finished study, or given.

    Examples:

    fusion-nas plan --name mosi --workers 8 --boards 2 --trials 2000

    fusion-nas plan --seconds timing=10 --seconds training=60 --workers 100 --boards 4
    """
    with errors():
        from studies.simulation.command import show_schedule

        size = {
            "trials": trials,
            "workers": workers,
            "hosts": hosts,
            "boards": boards,
        }
        costs = (seconds or (), database or ())
        show_schedule(storage, name, *costs, size, asking_growth, seed, as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Print versions, plugins, devices, caches, free disk, and what is missing with its remedy."""
    with errors():
        from studies.cli.doctor import show_doctor

        show_doctor(as_json)


@app.command()
def dashboard(
    storage: Storage = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on.")] = 8080,
) -> None:
    """Start Optuna's dashboard on the storage, with the exported ONNX files as artifacts."""
    with errors():
        from studies.cli.study import serve_dashboard

        serve_dashboard(storage, host, port)


@app.command()
def clean(
    older_than: Annotated[
        float | None,
        typer.Option("--older-than", metavar="DAYS", help="Caches that were unused for so long."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    storage: Storage = None,
) -> None:
    """Show what lies in FUSION_NAS_HOME, and remove what is not needed.

    Without --older-than these are temporary files of killed runs, and trained weights of designs
    that are neither on the front of a study of --storage nor named. Results, devices, exported
    networks and the weights of fronts and named designs always stay.
    """
    with errors():
        from studies.cli.clean import clean_home

        clean_home(storage, older_than, dry_run, yes)


@data_app.command("check")
def data_check(
    path: Annotated[str, typer.Argument(help="A data folder, its label.csv, or a built-in set.")],
    text_only: TextOnly = False,
    modalities: Modalities = None,
    sound: Annotated[bool, typer.Option("--sound", help="Check the sounds too.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Print every fault, not ten of a kind.")
    ] = False,
) -> None:
    """Read a data folder as a study would, and say everything that is wrong with it."""
    with errors():
        from studies.cli.data import show_data

        show_data(path, text_only, sound, everything, tuple(modalities or ()))


def _misread(error: Any) -> str:
    """What typer says of a command line, with the value that it leaves out."""
    said = " ".join(error.format_message().split()).rstrip(".")
    given = ", ".join(repr(value) for value in _given(error))
    value = f" ({given} was given)" if given and given not in said else ""
    return f"{said}{value}; --help lists the commands"


def _given(error: Any) -> list[str]:
    """What the command line gives for the flag or argument that an error is about."""
    context, about = getattr(error, "ctx", None), getattr(error, "param", None)
    if context is None or about is None:
        return []
    words = sys.argv[len(context.command_path.split()) :]
    values, _, _ = context.command.make_parser(context).parse_args(args=words)
    value = values.get(about.name)
    return [value] if isinstance(value, str) else list(value or ())


def _empty(arguments: Sequence[str]) -> str:
    """What is wrong with the first argument that is empty, as of a shell variable that is not set.

    It would count as not given, and a command would go on with a default. Empty if there is none.
    """
    before = ""
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag.startswith("--") and equals and not value.strip():
            return f"{flag}: its value is empty; give one, or leave {flag} out"
        if not argument.strip():
            if before.startswith("-"):
                return f"{before}: its value is empty; give one, or leave {before} out"
            return "an argument is empty; give a value, or leave it out"
        before = argument
    return ""


def _is_text(argument: str) -> bool:
    """Whether it is UTF-8, as a storage and ONNX Runtime need it for names and paths."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def main() -> None:
    """The command `fusion-nas`; every known error is one line and an exit code of its own."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    let_waiting_threads_sleep()
    columns = os.environ.get("COLUMNS", "").strip()
    if not (columns.isdecimal() and int(columns) >= LEAST_COLUMNS):
        os.environ.pop("COLUMNS", None)  # a width of 0, as some job runners set it, prints nothing
    for argument in sys.argv[1:]:
        if not _is_text(argument):
            shown = argument.encode(errors="surrogateescape").decode(errors="backslashreplace")
            words = f"{shown}: this argument is not UTF-8: give or rename it in UTF-8"
            typer.echo(f"fusion-nas: {words}", err=True)
            sys.exit(USAGE)
    if words := _empty(sys.argv[1:]):
        typer.echo(f"fusion-nas: {words}", err=True)
        sys.exit(USAGE)
    try:
        code = app(standalone_mode=False, prog_name="fusion-nas")
    except KeyboardInterrupt:
        code = INTERRUPTED
    except ClickException as error:
        if not sys.argv[1:] or type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            typer.echo(f"fusion-nas: {_misread(error)}", err=True)
        code = USAGE
    if code == INTERRUPTED:
        typer.echo("fusion-nas: interrupted; the same command goes on from here", err=True)
    sys.exit(code if isinstance(code, int) else 0)
