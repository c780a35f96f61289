"""The command line. Nothing heavy is imported before a command needs it."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="fusion-nas",
    help="Search fusion designs of text and vision networks for the Pareto front of accuracy "
    "against latency on a real device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(help="Look at data before a study does.", no_args_is_help=True)
app.add_typer(data_app, name="data")

ClickException: Any = typer.BadParameter.__mro__[2]
"""What typer raises for a command line that it cannot read."""
DATABASE_ERRORS = ("SQLAlchemyError", "StorageInternalError")
FULL_IN_WORDS = ("disk is full", "No space left on device", "File too large", "quota exceeded")
NOT_OURS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EIO,
)
"""What an operating system says of folders; any other OSError is a fault of ours."""
USAGE, DATA, ENCODER, DEVICE, STORAGE, NUMBERS, DISK_FULL, INTERRUPTED = 2, 3, 4, 5, 6, 7, 8, 130

Study = Annotated[str, typer.Option("--study", help="A preset, or a TOML file like one.")]
Trials = Annotated[
    int | None, typer.Option("--trials", help="Finished trials in all; the same command resumes.")
]
Data = Annotated[
    str | None,
    typer.Option("--data", help="CMU-MOSI in MMSA's layout, or a folder of label.csv and images/."),
]
Space = Annotated[
    str | None, typer.Option("--space", help="A search space by name, or a TOML file.")
]
Texts = Annotated[
    list[str] | None,
    typer.Option("--text-encoder", help="A local folder or a hub id in the cache; repeatable."),
]
Visions = Annotated[
    list[str] | None,
    typer.Option("--vision-encoder", help="A folder, timm/NAME or hub id; repeatable."),
]
WeightsFlag = Annotated[
    str | None, typer.Option("--weights", help="pretrained or random, for all encoders.")
]
Storage = Annotated[
    str | None, typer.Option("--storage", help="Optuna storage URL; SQLite in ./runs if left out.")
]
Name = Annotated[str | None, typer.Option("--name", help="The study's name in the storage.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


@app.command()
def run(
    study: Study = "pareto",
    seed_paper: Annotated[
        bool, typer.Option("--seed-paper", help="Try the designs of arXiv 2511.21889 first.")
    ] = False,
    trials: Trials = None,
    data: Data = None,
    space: Space = None,
    text_encoder: Texts = None,
    vision_encoder: Visions = None,
    weights: WeightsFlag = None,
    trunks: Annotated[
        str | None,
        typer.Option(
            "--trunks", help="auto, frozen, text-tuned, tuned or by-stage: what is trained."
        ),
    ] = None,
    missing: Annotated[
        str | None, typer.Option("--missing", help="Clips that are missing: few, drop or error.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="Where designs are timed.")] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Threads of the runtime; 0: its choice.")
    ] = None,
    latency_limit: Annotated[
        float | None, typer.Option("--latency-limit", help="ms; slower designs are not trained.")
    ] = None,
    storage: Storage = None,
    name: Name = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", help="tpe, gp, nsga2 or random.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of sampler and training.")] = None,
    page: Annotated[
        Path | None, typer.Option("--page", help="Where the HTML page goes; ./runs if left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a study, or go on with it, and show the Pareto front."""
    from studies.settings import load_settings

    with _errors():
        settings = load_settings(
            study,
            trials=trials,
            data=data,
            space=space,
            weights=weights,
            trunks=trunks,
            missing=missing,
            device=device,
            threads=threads,
            latency_limit_ms=latency_limit,
            storage=storage,
            name=name,
            sampler=sampler,
            seed=seed,
            seed_paper=seed_paper,
            text_encoders=tuple(text_encoder or ()),
            vision_encoders=tuple(vision_encoder or ()),
        )
        from studies.commands import run_study

        run_study(settings, page, as_json)


@app.command()
def report(
    name: Name = None,
    storage: Storage = None,
    page: Annotated[Path | None, typer.Option("--page", help="Where the HTML page goes.")] = None,
    as_json: Json = False,
) -> None:
    """Show a study again, and write its page."""
    with _errors():
        from studies.commands import show_study

        show_study(storage, name, page, as_json)


@app.command()
def export(
    trial: Annotated[int, typer.Argument(help="The trial's number.")],
    name: Name = None,
    storage: Storage = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="A folder; ./export-N if left out.")
    ] = None,
) -> None:
    """Write a trial's trained network as ONNX, with card, environment and parity check."""
    with _errors():
        from studies.export import export_trial

        export_trial(storage, name, trial, out)


@app.command()
def space(
    name_or_file: Annotated[str, typer.Argument(help="demo, paper, or a TOML file.")] = "demo",
    text_encoder: Texts = None,
    vision_encoder: Visions = None,
    weights: WeightsFlag = None,
) -> None:
    """Show a search space: encoders with their taps, decisions, and the paper's designs in it."""
    with _errors():
        from studies.commands import show_space

        show_space(name_or_file, tuple(text_encoder or ()), tuple(vision_encoder or ()), weights)


@app.command()
def paper(
    tokens: Annotated[
        list[int] | None, typer.Option("--tokens", help="Text lengths to time at; repeatable.")
    ] = None,
    space: Annotated[str, typer.Option("--space", help="Space that holds the encoders.")] = "paper",
    weights: Annotated[
        str, typer.Option("--weights", help="random is enough for latency.")
    ] = "random",
    threads: Annotated[int, typer.Option("--threads", help="0: the runtime's choice.")] = 0,
    as_json: Json = False,
) -> None:
    """Time the designs of arXiv 2511.21889 at full size beside its own figures."""
    with _errors():
        from studies.paper_table import time_paper

        time_paper(space, weights, tuple(tokens or (512, 64)), threads, as_json)


@app.command()
def dashboard(
    storage: Storage = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on.")] = 8080,
) -> None:
    """Start Optuna's dashboard on the storage, with the exported ONNX files as artifacts."""
    with _errors():
        from studies.commands import serve_dashboard

        serve_dashboard(storage, host, port)


@data_app.command("check")
def data_check(
    path: Annotated[str, typer.Argument(help="A folder with label.csv.")],
    missing: Annotated[str, typer.Option("--missing", help="few, drop or error.")] = "few",
) -> None:
    """Read a data folder as a study would, and say everything that is wrong with it."""
    with _errors():
        from studies.commands import show_data

        show_data(path, missing)


@contextmanager
def _errors() -> Iterator[None]:
    """Turns what can go wrong into one line and an exit code of its own."""
    try:
        yield
    except (KeyboardInterrupt, typer.Exit, typer.Abort, SystemExit):
        raise
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        typer.echo(f"fusion-nas: {_said(error, code)}", err=True)
        raise typer.Exit(code) from error


def _said(error: BaseException, code: int) -> str:
    """One line about an error with a way out; only data are told in a block, a row a line."""
    from evaluators.data.errors import DataError

    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, OSError):
        error_text = f"{error.filename or 'a file'}: {error.strerror or error}"
        way_out = "mend that folder, or name another with FUSION_NAS_HOME"
    elif _is_of_database(error):
        cause = error.__cause__ or error
        error_text = f"the storage failed: {(str(cause).strip().splitlines() or ['?'])[0]}"
        way_out = "once it is mended, the same command goes on from here"
    else:
        error_text, way_out = " ".join(str(error).split()), ""
    if code == DISK_FULL:
        error_text = error_text.partition("; once that is mended")[0]
        way_out = "the disk is full; make room, and the same command goes on from here"
    return error_text + (f"; {way_out}" if way_out and way_out not in error_text else "")


def _is_of_database(error: BaseException) -> bool:
    return any(kind.__name__ in DATABASE_ERRORS for kind in type(error).__mro__)


def _exit_code(error: Exception) -> int | None:
    """The exit code of a known kind of error; None for a fault of ours, which keeps its trace."""
    from evaluators.data.errors import DataError
    from evaluators.device_client import DeviceError, DeviceRefused
    from evaluators.store import StoreError
    from search_space.encoders import EncoderError, UnknownEncoderError
    from studies.settings import UsageError

    if _disk_is_full(error):
        return DISK_FULL
    if _is_of_database(error):
        return STORAGE
    names = {kind.__name__ for kind in type(error).__mro__}
    by_name = {
        "SpaceError": USAGE,
        "MeasureError": DEVICE,
        "StorageError": STORAGE,
        "ParityError": NUMBERS,
        "NotFiniteError": NUMBERS,
    }
    if "SearchStopped" in names and isinstance(error.__cause__, Exception):
        return _exit_code(error.__cause__)
    if isinstance(error, OSError) and error.filename and error.errno in NOT_OURS:
        return STORAGE
    by_type: list[tuple[type[Exception], int]] = [
        (UsageError, USAGE),
        (UnknownEncoderError, USAGE),
        (EncoderError, ENCODER),
        (DataError, DATA),
        (DeviceRefused, DEVICE),
        (DeviceError, DEVICE),
        (StoreError, STORAGE),
    ]
    for kind, code in by_type:
        if isinstance(error, kind):
            return code
    return next((by_name[name] for name in names if name in by_name), None)


def _disk_is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if getattr(error, "code", None) == "disk-full":
            return True
        if any(words in str(error) for words in FULL_IN_WORDS):
            return True
        error = error.__cause__
    return False


def _misread(said: str) -> str:
    """What typer says of a command line, with the value that it leaves out."""
    words = [part for word in sys.argv[1:] for part in word.split("=", 1)]
    given = [value for flag, value in pairwise(words) if f"'{flag}'" in said]
    value = f" ({given[0]!r} was given)" if given and repr(given[0]) not in said else ""
    return f"{' '.join(said.split()).rstrip('.')}{value}; --help tells what there is"


def main() -> None:
    """The command `fusion-nas`; every known error is one line and an exit code of its own."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except ClickException as error:
        if not sys.argv[1:] or type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            typer.echo(f"fusion-nas: {_misread(error.format_message())}", err=True)
        code = USAGE
    if code == INTERRUPTED:
        typer.echo("fusion-nas: interrupted; the same command goes on from here", err=True)
    sys.exit(code if isinstance(code, int) else 0)
