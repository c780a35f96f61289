"""Pictures come out upright, in RGB and square, or as an error that names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from evaluators.data import DataError, read_image


def halves(width: int = 40, height: int = 20) -> Image.Image:
    """Red on the left, blue on the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 2] = 255
    return Image.fromarray(pixels)


def test_channels_come_first_and_the_whole_picture_is_kept(tmp_path: Path) -> None:
    halves().save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png", 8)
    assert pixels.shape == (3, 8, 8) and pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous and pixels.flags.writeable
    assert (pixels[0, :, 0] == 255).all() and (pixels[2, :, -1] == 255).all()


def test_reduction_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    assert abs(read_image(tmp_path / "a.png", 8)[:, :, 2:-2].astype(int) - 128).max() < 12


def test_exif_orientation_is_followed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to show upright: the left edge becomes the upper one
    halves().save(tmp_path / "a.png", exif=exif)
    pixels = read_image(tmp_path / "a.png", 8)
    assert (pixels[0, 0] == 255).all() and (pixels[2, -1] == 255).all()


def test_transparent_parts_lie_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png", 4) == 255).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA"])
def test_every_usual_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new(mode, (4, 4)).save(path)
    assert read_image(path, 4).shape == (3, 4, 4)


def test_sixteen_bit_greys_keep_their_shade(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 128 << 8, np.uint16)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png", 4) == 128).all()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: there is no such image"):
        read_image(tmp_path / "gone.png", 8)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"a\.jpg: not a readable image"):
        read_image(tmp_path / "a.jpg", 8)


def test_a_size_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size 0"):
        read_image(tmp_path / "a.png", 0)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"RIFF"]), st.binary())
def test_arbitrary_bytes_are_a_picture_or_a_data_error(
    tmp_path: Path, start: bytes, rest: bytes
) -> None:
    (tmp_path / "a").write_bytes(start + rest)
    try:
        read_image(tmp_path / "a", 4)
    except DataError as error:
        assert str(tmp_path / "a") in str(error)
