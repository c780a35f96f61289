"""From an entry to its picture: an image that is there, or the cached middle frame of its clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evaluators.data.clips import RULE, middle_jpeg
from evaluators.data.errors import DataError
from evaluators.data.files import FileIndex, sha256_of, write_whole
from evaluators.data.images import SUFFIXES, check_image
from evaluators.data.labels import Entry, Layout

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
CLIP_SUFFIX = ".mp4"


@dataclass(frozen=True)
class Picture:
    """A readable image file and the key of the content it comes from (SHA-256, hex)."""

    path: Path
    key: str


class Pictures:
    """Finds and checks the pictures of one data folder.

    A file in `Frames/VIDEO/` is preferred to the clip in `Raw/VIDEO/`. Frames taken from clips
    are kept under `cache/frames/<rule>/<SHA-256 of the clip's whole content>.jpg`, so the same
    clip is decoded once, wherever it lies and however often a run was broken off.
    """

    def __init__(self, root: Path, layout: Layout, cache: Path) -> None:
        self._root = root
        self._layout = layout
        self._frames = cache / "frames" / RULE
        self._index = FileIndex(cache, root)

    def find(self, entry: Entry) -> Picture:
        """Raises DataError if the entry has no picture, or a broken one.

        Raises OSError if the cache cannot be written, which is no fault of the entry.
        """
        try:
            image, clip = self._image(entry), self._clip(entry)
        except OSError as error:
            raise DataError(f"cannot be looked for ({error})") from error
        if image is not None:
            return Picture(image, self._checked(image))
        if clip is not None:
            return self._frame(clip)
        raise DataError(f"no {self.wanted(entry)}")

    def wanted(self, entry: Entry) -> str:
        """Where the picture of an entry is looked for, in words."""
        video = "/".join(entry.names)
        if self._layout == "folder":
            return f"images/{video} with any of {', '.join(SUFFIXES)}"
        frames = f"Frames/{video} with any of {', '.join(FRAME_SUFFIXES)}"
        return f"{frames} and no Raw/{video}{CLIP_SUFFIX}"

    def save(self) -> None:
        """Keep what was learnt about the files for the next load."""
        self._index.save()

    def _image(self, entry: Entry) -> Path | None:
        clips = self._layout == "clips"
        folder = self._root.joinpath("Frames" if clips else "images", *entry.names[:-1])
        for suffix in FRAME_SUFFIXES if clips else SUFFIXES:
            for written in (suffix, suffix.upper()):
                path = folder / (entry.names[-1] + written)
                if path.is_file():
                    return path
        return None

    def _clip(self, entry: Entry) -> Path | None:
        if self._layout == "folder":
            return None
        video, name = entry.names
        clip = self._root / "Raw" / video / (name + CLIP_SUFFIX)
        return clip if clip.is_file() else None

    def _checked(self, path: Path) -> str:
        """The content key of an image, which is decoded once and then remembered as good."""
        key = self._index.key(path)
        if key is None:
            key = _key(path)
            check_image(path)
            self._index.remember(path, key)
        return key

    def _frame(self, clip: Path) -> Picture:
        key = self._index.key(clip) or _key(clip)
        frame = self._frames / f"{key}.jpg"
        if not frame.is_file():
            write_whole(frame, middle_jpeg(clip))
        self._index.remember(clip, key)
        return Picture(frame, f"{RULE}:{key}")


def _key(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); mend its permissions") from error
