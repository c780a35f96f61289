"""How a command ends when something goes wrong: one line, and an exit code for each kind."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from search_space.errors import DISK_FULL, STORAGE, USAGE, FusionNasError

if TYPE_CHECKING:
    from search_space.plugins import Plugin

FULL_IN_WORDS = ("disk is full", "No space left on device", "File too large", "quota exceeded")
"""What SQLite, PostgreSQL and remote devices say of a full disk, where no errno reaches us."""
FOLDER_ERRNOS = (
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
INTERRUPTED = 130
RESUMES = "the same command goes on from here"


@contextmanager
def errors() -> Iterator[None]:
    """Report an error that a user can resolve as one line on stderr, and exit with its code.

    Any other exception is a fault of the toolkit and keeps its traceback.
    """
    try:
        yield
    except Exception as error:
        found = as_reported(error)
        if found is None:
            raise
        typer.echo(f"fusion-nas: {found[0]}", err=True)
        raise typer.Exit(found[1]) from error


def as_reported(error: Exception) -> tuple[str, int] | None:
    """Return what is printed of an error and the exit code; None for a fault of the toolkit.

    Errors of data come as a block, a problem per line; all others as one line.
    """
    from search_space.redaction import redacted
    from studies.results.text import clean

    full = _disk_is_full(error)
    if isinstance(error, FusionNasError):
        text, hint, found = error.message, error.hint, error.exit_code
        if found is None:
            cause = error.__cause__
            reported = as_reported(cause) if isinstance(cause, Exception) else None
            if reported is None:
                return None
            found = reported[1]
        code = found
    elif isinstance(error, OSError) and (full or _is_of_folders(error)):
        text, code = f"{error.filename or 'a file'}: {error.strerror or error}", STORAGE
        hint = "make that folder usable, or name another with FUSION_NAS_HOME"
    elif full or _is_of_database(error):
        cause = error.__cause__ or error
        text, code = (str(cause).strip().splitlines() or ["?"])[0], STORAGE
        text, hint = f"the storage failed: {text}", f"once that is resolved, {RESUMES}"
    elif plugin := _plugin_at_fault(error):
        text, code = f"{plugin.name!r} of the plugin {plugin.origin} fails", USAGE
        text += f" ({type(error).__name__}: {error})"
        hint = f"leave it out, or install a version of {plugin.package} without this fault"
    else:
        return None
    if full:
        hint, code = f"the disk is full; make room, and {RESUMES}", DISK_FULL
    if isinstance(error, FusionNasError) and error.is_block and not full:
        return text, code
    text = " ".join(text.split())
    # What a device or a file says may hold what a terminal obeys.
    return clean(redacted(text if not hint or hint in text else f"{text}; {hint}")), code


def _plugin_at_fault(error: Exception) -> "Plugin | None":
    from search_space.plugins import at_fault
    from studies.results.objectives import installed_plugins

    return at_fault(error, [each for each in installed_plugins() if not each.failure])


def _is_of_folders(error: OSError) -> bool:
    return bool(error.filename) and error.errno in FOLDER_ERRNOS


def _is_of_database(error: Exception) -> bool:
    """Whether SQLAlchemy or Optuna's storage raised it; a module not imported raised nothing."""
    known = (("sqlalchemy.exc", "SQLAlchemyError"), ("optuna.exceptions", "StorageInternalError"))
    kinds = tuple(
        getattr(sys.modules[module], name) for module, name in known if module in sys.modules
    )
    return isinstance(error, kinds)


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
