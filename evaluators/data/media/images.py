"""Pictures from files: upright, RGB, square."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from evaluators.data.errors import DataError
from search_space.lfs import advice, is_pointer

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = npt.NDArray[np.uint8]
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
MOST_PIXELS = 64_000_000
"""Of a picture that is decoded as it is: half a gigabyte with its copy in RGB."""
MOST_JPEG_PIXELS = 250_000_000
"""Of a larger JPEG, which is decoded at a half, a quarter or an eighth of its sides."""
_LARGE_PIXELS = 4_000_000
"""Pictures of more are decoded one at a time, however many threads there are."""
_METADATA_BYTES = 16 * 2**20
"""Of a PNG's text or colour profile; Pillow reads 1 MB by itself."""
_BLOCK_BYTES = 64 * 2**20
"""Of Pillow's allocator: glibc gives blocks over 32 MB back to the system as soon as they are
freed. Those of Pillow's 16 MB stay with the thread that decoded them, half a gigabyte each."""
_one_large = threading.Lock()


def read_image(path: Path, size: int, change: Callable[[Pixels], Pixels] | None = None) -> Pixels:
    """The picture as (3, size, size) uint8 RGB, channels first.

    Turned upright by its EXIF orientation, laid on white where transparent, and resized to a
    square by antialiased bilinear filtering; the aspect ratio is not kept and nothing is cut off.
    `change` is done to the picture (H, W, 3) before it is resized. A JPEG of more than
    `MOST_PIXELS` is decoded at a fraction of its size. Raises DataError, naming the file, if it is
    missing, broken or larger than that; ValueError if size < 1.
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


def _bilinear() -> int:
    from PIL import Image

    return Image.Resampling.BILINEAR


@contextmanager
def _decoded(path: Path) -> Iterator[Image]:
    """The picture upright and in RGB; every way of being unreadable becomes a DataError."""
    from PIL import Image, ImageOps, PngImagePlugin

    Image.MAX_IMAGE_PIXELS = MOST_JPEG_PIXELS // 2  # twice as many are an error of Pillow's
    PngImagePlugin.MAX_TEXT_CHUNK = _METADATA_BYTES
    PngImagePlugin.MAX_TEXT_MEMORY = 4 * _METADATA_BYTES
    Image.core.set_block_size(_BLOCK_BYTES)  # type: ignore[attr-defined]
    held = ExitStack()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as opened:
                _bound(path, opened)
                if opened.width * opened.height > _LARGE_PIXELS:
                    held.enter_context(_one_large)
                opened.load()
                ImageOps.exif_transpose(opened, in_place=True)
                picture = _in_bands(opened)
                if picture is not opened:
                    opened.im = None  # type: ignore[assignment]  # its pixels would otherwise stay as long as this frame
    except DataError:
        held.close()
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such image; load the data set again") from error
    # Pillow's decoders raise many types on hostile bytes, among them SyntaxError and struct.error.
    except Exception as error:
        held.close()
        why = advice(path) if is_pointer(path) else str(error)
        raise DataError(
            f"{path}: not a readable image ({why}); replace the file or remove its row"
        ) from error
    with held:
        try:
            yield picture
        finally:
            picture.close()  # before the next large one is decoded


def _bound(path: Path, opened: Image) -> None:
    """Has a JPEG that is too large decoded smaller; raises DataError for any other."""
    pixels = opened.width * opened.height
    if pixels <= MOST_PIXELS:
        return
    reducible = opened.format == "JPEG" and not opened.info.get("progressive")
    fitting = (k for k in (2, 4, 8) if pixels <= MOST_PIXELS * k**2)
    scale = next(fitting, None) if reducible and pixels <= MOST_JPEG_PIXELS else None
    if scale is None:
        raise DataError(
            f"{path}: {opened.width:,} x {opened.height:,} pixels; at most "
            f"{MOST_PIXELS / 1e6:.0f} million are decoded, of a JPEG that is not progressive "
            f"{MOST_JPEG_PIXELS / 1e6:.0f} million: make it smaller"
        )
    opened.draft("RGB", (opened.width // scale, opened.height // scale))


def _in_bands(picture: Image) -> Image:
    """`_rgb`, of a few rows at a time where the picture, and so each copy of it, is large."""
    from PIL import Image

    width, height = picture.size
    is_rgb = picture.mode == "RGB" and not picture.has_transparency_data
    if width * height <= _LARGE_PIXELS or is_rgb:
        return _rgb(picture)
    whole = Image.new("RGB", picture.size)
    rows = max(1, _LARGE_PIXELS // width)
    for top in range(0, height, rows):
        band = picture.crop((0, top, width, min(height, top + rows)))
        whole.paste(_rgb(band), (0, top))
    return whole


def _rgb(picture: Image) -> Image:
    from PIL import Image

    if picture.mode.startswith(("I;16", "I")):
        # 16-bit greys: `convert` would clip them to white.
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")
