"""A log file of a run: what it reports, its warnings and how it ended, each with the time."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from search_space.errors import USAGE, FusionNasError
from search_space.redaction import redacted
from studies.report.progress import Reporter
from studies.results.text import clean

_log = logging.getLogger("fusion_nas.run")


class LogFileError(FusionNasError):
    """A log file cannot be written."""

    exit_code = USAGE


class Logged:
    """A reporter that writes finished trials and lines to the log too."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._last = ""

    def trial(self, done: int, total: int, text: str) -> None:
        """Report a trial, and log it."""
        _log.info("[%d/%d] %s", done, total, redacted(clean(text)) or "begun")
        self._reporter.trial(done, total, text)

    def step(self, what: str, done: int, total: int) -> None:
        """Report a step, and log that it began."""
        if what != self._last:
            self._last = what
            _log.info("%s", redacted(clean(what)))
        self._reporter.step(what, done, total)

    def line(self, text: str) -> None:
        """Report a line, and log it."""
        _log.info("%s", redacted(clean(text)))
        self._reporter.line(text)


class _File(logging.FileHandler):
    """A log file that ends the run in words where it cannot be written, as on a full disk."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Raise the error with the file's name; by default it is printed as a traceback."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise self._named(error) from error
        super().handleError(record)

    def close(self) -> None:
        """Close the file, which may write what is left."""
        try:
            super().close()
        except OSError as error:
            raise self._named(error) from error

    def _named(self, error: OSError) -> OSError:
        return OSError(error.errno, error.strerror, self.baseFilename)


@contextmanager
def logged(reporter: Reporter, file: Path | None) -> Iterator[Reporter]:
    """Yield a reporter that also appends to a file; the same one without a file.

    Raises:
        LogFileError: The file cannot be written.
    """
    if file is None:
        yield reporter
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = _File(file, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise LogFileError(f"--log-file {file}: {error.strerror}; name another file") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    # With a handler of its own, a logger no longer writes warnings to stderr by itself.
    screen = logging.StreamHandler()
    screen.setLevel(logging.WARNING)
    ours = logging.getLogger("fusion_nas")
    level, ours.propagate = ours.level, False  # handlers of libraries would print what is logged
    ours.setLevel(logging.INFO)
    ours.addHandler(handler)
    ours.addHandler(screen)
    try:
        yield Logged(reporter)
        _log.info("ended")
    except BaseException as error:
        said = redacted(" ".join(str(error).split())) or type(error).__name__
        file_only = logging.LogRecord(_log.name, logging.ERROR, "", 0, "ended: %s", (said,), None)
        with suppress(OSError):  # the first error is reported
            handler.handle(file_only)
        raise
    finally:
        ours.removeHandler(handler)
        ours.removeHandler(screen)
        ours.setLevel(level)
        ours.propagate = True
        if sys.exc_info()[0] is None:
            handler.close()
        else:
            with suppress(OSError):
                handler.close()
