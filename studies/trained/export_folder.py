"""The folder of an export: filled aside, brought to its place once it is whole."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evaluators.cached_files import move_whole

CARD = "card.json"
"""Written last: a folder with a card holds all that the card names."""
_EARLIER = (
    "without-*.onnx",
    "*-encoder.onnx",
    "fusion.onnx",
    "with-preprocessing.onnx",
    "predict.py",
    "requirements.txt",
    "example.png",
    "example.wav",
    "sound-filters.npy",
    "SHA256SUMS",
)
"""Files of an earlier export that a later one may lack."""


@contextmanager
def filled(folder: Path) -> Iterator[Path]:
    """Yield an empty folder on the file system of `folder`, whose files are then moved there.

    Nothing in `folder` changes until all of them are written, so an error, a full disk included,
    leaves an earlier export as it was. An earlier card is removed first and the new one comes last;
    files of anybody else in the folder stay. Raises OSError.
    """
    folder = Path(os.path.abspath(folder))
    inside = folder.is_dir()
    if not inside:
        folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder if inside else folder.parent
    with tempfile.TemporaryDirectory(prefix=".unfinished-export-", dir=beside) as made:
        contents = Path(made, folder.name or "export")
        contents.mkdir()
        yield contents
        files = sorted(contents.iterdir(), key=lambda file: file.name == CARD)
        for file in files:
            with open(file, "rb+") as written:
                os.fsync(written.fileno())
        if not inside:
            try:
                os.rename(contents, folder)
                return
            except (FileExistsError, NotADirectoryError):
                pass  # made by somebody else meanwhile
        (folder / CARD).unlink(missing_ok=True)
        for file in (each for pattern in _EARLIER for each in folder.glob(pattern)):
            if not (contents / file.name).exists():
                file.unlink()
        for file in files:
            move_whole(file, folder / file.name)
