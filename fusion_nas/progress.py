"""Progress bars for a notebook or a terminal."""

import sys
from types import TracebackType

from tqdm.auto import tqdm

from studies.results.text import clean


class Bars:
    """Report finished trials as a bar, the step of the trial now running beside it.

    Implements `studies.report.progress.Reporter`.
    """

    def __init__(self) -> None:
        self._bar: tqdm[None] | None = None

    def __enter__(self) -> "Bars":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def trial(self, done: int, total: int, text: str) -> None:
        """Advance the bar to `done` of `total` trials; `text` says what the last one came to."""
        bar = self._opened(total)
        bar.n = done
        if text:
            bar.set_postfix_str(clean(text))
        else:
            bar.refresh()

    def step(self, what: str, done: int, total: int) -> None:
        """Show how far a step of the trial now running has come."""
        bar = self._opened(None)
        bar.set_description(f"{what} {done}/{total}" if total > 1 else what)

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        tqdm.write(clean(text), file=sys.stderr)

    def _opened(self, total: int | None) -> "tqdm[None]":
        if self._bar is None:
            self._bar = tqdm(unit="trial", total=total, leave=True)
        if total is not None and self._bar.total != total:
            self._bar.total = total
        return self._bar
