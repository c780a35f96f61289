"""From an entry to its picture: an image that is there, or the cached middle frame of its clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evaluators.data.clips import RULE, middle_jpeg
from evaluators.data.entries import Entry, Layout
from evaluators.data.errors import DataError
from evaluators.data.files import FileIndex, sha256_of, write_whole
from evaluators.data.images import SUFFIXES, check_image, check_jpeg
from evaluators.data.meld import CLIP_FOLDERS, clip_paths

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
CLIP_SUFFIX = ".mp4"


@dataclass(frozen=True)
class Picture:
    """A readable image file and the key of the content it comes from (SHA-256, hex)."""

    path: Path
    key: str


class Pictures:
    """Finds and checks the pictures of one data folder.

    A file in `Frames/` is preferred to the clip. Frames taken from clips are kept under
    `cache/frames/<rule>/<SHA-256 of the clip's whole content>.jpg`, so the same clip is decoded
    once, wherever it lies and however often a run was broken off. A kept frame that is not whole
    is made again, and named in `mended`.
    """

    def __init__(self, root: Path, layout: Layout, cache: Path) -> None:
        self._root = root
        self._layout = layout
        self._frames = cache / "frames" / RULE
        self._index = FileIndex(cache, root)
        self.mended: list[str] = []

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
            return self._frame(entry, clip)
        raise DataError(f"no {self.wanted(entry)}")

    def wanted(self, entry: Entry) -> str:
        """Where the picture of an entry is looked for, in words."""
        name = entry.image or "/".join(entry.names)
        if self._layout == "folder":
            return f"images/{name} with any of {', '.join(SUFFIXES)}"
        clip = self._clips(entry)[0].relative_to(self._root).as_posix()
        return f"Frames/{name} with any of {', '.join(FRAME_SUFFIXES)} and no {clip}"

    def save(self) -> None:
        """Keep what was learnt about the files for the next load."""
        self._index.save()

    def _image(self, entry: Entry) -> Path | None:
        clips = self._layout != "folder"
        folder = self._root.joinpath("Frames" if clips else "images", *entry.names[:-1])
        for suffix in FRAME_SUFFIXES if clips else SUFFIXES:
            for written in (suffix, suffix.upper()):
                path = folder / ((entry.image or entry.names[-1]) + written)
                if path.is_file():
                    return path
        return None

    def _clip(self, entry: Entry) -> Path | None:
        return next((clip for clip in self._clips(entry) if clip.is_file()), None)

    def _clips(self, entry: Entry) -> tuple[Path, ...]:
        """Where the clip of an entry may lie; nowhere in a folder of images."""
        if self._layout == "folder":
            return ()
        first, name = entry.names
        if self._layout == "meld":
            return clip_paths(self._root, entry.split, name)
        return (self._root / "Raw" / first / (name + CLIP_SUFFIX),)

    def _checked(self, path: Path) -> str:
        """The content key of an image, which is decoded once and then remembered as good."""
        key = self._index.key(path)
        if key is None:
            key = _key(path)
            check_image(path)
            self._index.remember(path, key)
        return key

    def _frame(self, entry: Entry, clip: Path) -> Picture:
        key = self._index.key(clip) or _key(clip)
        frame = self._frames / f"{key}.jpg"
        kept = frame.is_file()
        if not kept or not self._whole(frame):
            write_whole(frame, middle_jpeg(clip))
            if kept:
                self.mended.append(
                    f"{entry.where}: {entry.id}: the kept frame {frame} was not whole and has been "
                    "made again from its clip"
                )
        self._index.remember(clip, key)
        return Picture(frame, f"{RULE}:{key}")

    def _whole(self, frame: Path) -> bool:
        """Whether a kept frame is a whole picture; looked into once while it stays unchanged."""
        if self._index.key(frame) is not None:
            return True
        try:
            check_jpeg(frame)
        except DataError:
            return False
        self._index.remember(frame, frame.stem)
        return True


def folders(layout: Layout) -> tuple[str, ...]:
    """The folders that hold pictures or clips in a layout."""
    if layout == "folder":
        return ("images",)
    return ("Raw", "Frames") if layout == "clips" else (*CLIP_FOLDERS.values(), "Frames")


def _key(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); mend its permissions") from error
