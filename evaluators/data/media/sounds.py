"""From an entry to its sound: a file of its own, or the cached sound of its clip."""

from __future__ import annotations

from pathlib import Path

from evaluators.data.errors import DataError
from evaluators.data.layouts.entries import Entry, Layout
from evaluators.data.layouts.finding import Finder, Found
from evaluators.data.media.clip_sound import RULE, sound_wav
from evaluators.data.media.waves import check_sound, in_form

SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a")


class Sounds(Finder):
    """The sounds of one data folder: `sounds/`, `Sounds/`, else the audio streams of clips.

    A WAV file of one channel, 16 kHz and 16 bits is used where it lies; all else is decoded once
    and kept.
    """

    kind = "sound"
    rule = RULE
    suffix = ".wav"

    @staticmethod
    def home(layout: Layout) -> str:
        return "sounds" if layout == "folder" else "Sounds"

    def _suffixes(self) -> tuple[str, ...]:
        return SOUND_SUFFIXES

    def _of_own(self, entry: Entry, path: Path) -> Found:
        return (
            self._as_it_is(path, check_sound) if in_form(path) else self._kept(entry, path, "file")
        )

    def _of_clip(self, entry: Entry, clip: Path) -> Found:
        try:
            return super()._of_clip(entry, clip)
        except DataError as error:
            own = self._name(entry) + self.suffix
            raise DataError(f"{error.heading}, or add {own}") from error

    def _made(self, source: Path) -> bytes:
        return sound_wav(source)
