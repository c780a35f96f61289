"""The error of a flag or name that cannot be meant, and the checks that raise it."""

from search_space.errors import USAGE, FusionNasError

MAX_SEEDS = 100
MAX_THREADS = 1024
"""What the device agent takes."""


class UsageError(FusionNasError):
    """A flag or name that cannot be meant; the text names it and what can."""

    exit_code = USAGE


def check_choice(flag: str, value: str, known: tuple[str, ...]) -> None:
    """Raises UsageError for a value that is none of those known."""
    if value not in known:
        raise UsageError(f"{flag} {value!r}: choose one of {', '.join(known)}")


def check_range(flag: str, value: int, low: int, high: int, meaning: str = "") -> None:
    """Raises UsageError for a value out of `low` to `high`; `meaning` is that of `low`."""
    if not low <= value <= high:
        lowest = f"{low} ({meaning})" if meaning else str(low)
        raise UsageError(f"{flag} {value}: give {lowest} to {high}")


def check_threads(threads: int) -> None:
    """Raises UsageError for a number of threads that no device takes."""
    check_range("--threads", threads, 0, MAX_THREADS, "the runtime's choice")
