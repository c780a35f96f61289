"""What a command reports while it runs."""

from typing import Protocol

from rich.console import Console


class Reporter(Protocol):
    """Where a run reports its progress: the terminal, a log, or a notebook."""

    def trial(self, done: int, total: int, text: str) -> None:
        """`done` of `total` trials have ended; `text` says what the last one came to.

        It is empty before the first trial of a run.
        """
        ...

    def step(self, what: str, done: int, total: int) -> None:
        """`what` (of the trial now running) has come to `done` of `total`."""
        ...

    def line(self, text: str) -> None:
        """A line that stays readable afterwards."""
        ...


class Silent:
    """A reporter that reports nothing."""

    def trial(self, done: int, total: int, text: str) -> None:
        """Ignore it."""

    def step(self, what: str, done: int, total: int) -> None:
        """Ignore it."""

    def line(self, text: str) -> None:
        """Ignore it."""


def open_console(stderr: bool = False) -> Console:
    """Return a console that prints texts as they are: names and paths may look like markup."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)
