"""What a command reports while it runs."""

from typing import Protocol


class Reporter(Protocol):
    """Where a run reports its progress: the terminal, a log, or a notebook."""

    def trial(self, done: int, total: int, text: str) -> None:
        """`done` of `total` trials have ended; `text` says what the last one came to."""
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
