"""From an entry to its picture: an image that is there, or the cached middle frame of its clip."""

from __future__ import annotations

from pathlib import Path

from evaluators.data.layouts.entries import Entry, Layout
from evaluators.data.layouts.finding import Finder, Found
from evaluators.data.media.clips import RULE, middle_jpeg
from evaluators.data.media.images import SUFFIXES, check_image

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")


class Pictures(Finder):
    """The pictures of one data folder: `images/`, `Frames/`, else the middle frames of clips."""

    kind = "frame"
    rule = RULE
    suffix = ".jpg"

    @staticmethod
    def home(layout: Layout) -> str:
        return "images" if layout == "folder" else "Frames"

    def _suffixes(self) -> tuple[str, ...]:
        return SUFFIXES if self._layout == "folder" else FRAME_SUFFIXES

    def _name(self, entry: Entry) -> str:
        return f"{self.home(self._layout)}/{entry.image or entry.id}"

    def _of_own(self, entry: Entry, path: Path) -> Found:
        return self._as_it_is(path, check_image)

    def _made(self, source: Path) -> bytes:
        return middle_jpeg(source)
