"""Pictures from files: upright, RGB, square."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from evaluators.data.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = npt.NDArray[np.uint8]
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_JPEG_END = b"\xff\xd9"


def read_image(path: Path, size: int, change: Callable[[Pixels], Pixels] | None = None) -> Pixels:
    """The picture as (3, size, size) uint8 RGB, channels first.

    Turned upright by its EXIF orientation, laid on white where transparent, and resized to a
    square by antialiased bilinear filtering; the aspect ratio is not kept and nothing is cut off.
    `change` is done to the picture (H, W, 3) before it is resized. Raises DataError, naming the
    file, if it is missing or broken; ValueError if size < 1.
    """
    if size < 1:
        raise ValueError(f"size {size} is no number of pixels; give 1 or more")
    with _decoded(path) as picture:
        whole = picture if change is None else _changed(picture, change)
        square = whole.resize((size, size), _bilinear())
        pixels = np.asarray(square, dtype=np.uint8)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _changed(picture: Image, change: Callable[[Pixels], Pixels]) -> Image:
    from PIL import Image

    return Image.fromarray(change(np.asarray(picture, dtype=np.uint8)))


def check_image(path: Path) -> None:
    """Decode the whole picture; raises DataError, naming the file, if that fails."""
    with _decoded(path):
        pass


def check_jpeg(path: Path) -> None:
    """`check_image`, and that the file goes on to JPEG's end mark: a decoder fills in what is
    missing at the end. Raises DataError, naming the file."""
    check_image(path)
    if not path.read_bytes().endswith(_JPEG_END):
        raise DataError(f"{path}: breaks off before its end; replace the file")


def _bilinear() -> int:
    from PIL import Image

    return Image.Resampling.BILINEAR


@contextmanager
def _decoded(path: Path) -> Iterator[Image]:
    """The picture upright and in RGB; every way of being unreadable becomes a DataError."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                opened.load()
                picture = _rgb(ImageOps.exif_transpose(opened))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such image; load the data set again") from error
    # Pillow's decoders raise many types on hostile bytes, among them SyntaxError and struct.error.
    except Exception as error:
        raise DataError(
            f"{path}: not a readable image ({error}); replace the file or remove its row"
        ) from error
    yield picture


def _rgb(picture: Image) -> Image:
    from PIL import Image

    if picture.mode.startswith(("I;16", "I")):
        # 16-bit greys: `convert` would clip them to white.
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return picture.convert("RGB")
