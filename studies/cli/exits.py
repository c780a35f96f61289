"""What can go wrong, as one line and an exit code of its own."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import typer

DATABASE_ERRORS = ("SQLAlchemyError", "StorageInternalError")
FULL_IN_WORDS = ("disk is full", "No space left on device", "File too large", "quota exceeded")
NOT_OURS = (
    errno.EACCES,
    errno.ENOENT,
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
USAGE, DATA, ENCODER, DEVICE, STORAGE, NUMBERS, DISK_FULL, HOST_KEY = 2, 3, 4, 5, 6, 7, 8, 9
INTERRUPTED = 130


@contextmanager
def errors() -> Iterator[None]:
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
    from studies.results.text import clean

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
    # What a device or a file says may hold what a terminal obeys.
    return clean(error_text + (f"; {way_out}" if way_out and way_out not in error_text else ""))


def _is_of_database(error: BaseException) -> bool:
    return any(kind.__name__ in DATABASE_ERRORS for kind in type(error).__mro__)


def _exit_code(error: Exception) -> int | None:
    """The exit code of a known kind of error; None for a fault of ours, which keeps its trace."""
    from evaluators.data.errors import DataError
    from evaluators.devices.client import DeviceError, DeviceRefused
    from evaluators.store import StoreError
    from search_space.design.encoder import EncoderError, UnknownEncoderError
    from studies.config.settings import UsageError

    if _disk_is_full(error):
        return DISK_FULL
    if _is_of_database(error):
        return STORAGE
    names = {kind.__name__ for kind in type(error).__mro__}
    by_name = {
        "SpaceError": USAGE,
        "TableError": USAGE,
        "DevicesError": USAGE,
        "MeasureError": DEVICE,
        "StorageError": STORAGE,
        "TrialRecordError": STORAGE,
        "WeightsError": STORAGE,
        "ParityError": NUMBERS,
        "NotFiniteError": NUMBERS,
    }
    if "HostKeyChanged" in names:
        return HOST_KEY
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
