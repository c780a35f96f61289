"""Pictures come out upright, in RGB and square, or as an error that names the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from evaluators.data import DataError, read_image
from evaluators.data.media import images


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


def blank(path: Path, width: int, height: int, **options: object) -> Path:
    Image.new("L", (width, height), 90).save(path, **options)  # type: ignore[arg-type]
    return path


def test_a_small_file_of_very_many_pixels_is_refused_by_its_size(tmp_path: Path) -> None:
    file = blank(tmp_path / "a.png", 13_000, 13_000)
    assert file.stat().st_size < 500_000
    with pytest.raises(DataError, match=r"13,000 x 13,000 pixels; at most 64 million are decoded"):
        read_image(file, 8)


def test_a_panorama_of_200_megapixels_is_decoded_at_a_fraction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = blank(tmp_path / "a.jpg", 40_000, 5_000)
    assert read_image(file, 8).min() > 80
    progressive = blank(tmp_path / "b.jpg", 40_000, 5_000, progressive=True)
    with pytest.raises(DataError, match="not progressive 250 million"):
        read_image(progressive, 8)


def test_a_picture_within_the_bound_is_decoded_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(tmp_path / "a.jpg")
    whole = read_image(tmp_path / "a.jpg", 8)
    monkeypatch.setattr(images, "MOST_PIXELS", 80 * 60)
    assert (read_image(tmp_path / "a.jpg", 8) == whole).all()
    monkeypatch.setattr(images, "MOST_PIXELS", 80 * 60 - 1)
    reduced = read_image(tmp_path / "a.jpg", 8)
    assert 0 < abs(reduced.astype(int) - whole).mean() < 30


def test_a_png_with_megabytes_of_metadata_is_read(tmp_path: Path) -> None:
    about = PngImagePlugin.PngInfo()
    about.add_text("edits", "all of them " * 250_000, zip=True)
    halves().save(tmp_path / "a.png", pnginfo=about)
    assert read_image(tmp_path / "a.png", 8).shape == (3, 8, 8)


BOMBS = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from evaluators.data import DataError, read_image
files = sorted(Path(sys.argv[1]).iterdir()) * 4
def read(file):
    try:
        read_image(file, 224)
        return 1
    except DataError:
        return 0
read_image(Path(sys.argv[2]), 8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ThreadPoolExecutor(8) as pool:
    done = sum(pool.map(read, files))
print(done, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_eight_decoders_of_huge_pictures_stay_under_the_stated_memory(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    Image.new("RGBA", (8000, 8000), (1, 2, 3, 90)).save(tmp_path / "all" / "a.png")
    blank(tmp_path / "all" / "b.jpg", 40_000, 5_000)
    blank(tmp_path / "all" / "c.png", 13_000, 13_000)
    halves().save(tmp_path / "small.png")
    asked = [sys.executable, "-c", BOMBS, str(tmp_path / "all"), str(tmp_path / "small.png")]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    read, mib = map(int, done.stdout.split())
    assert read == 8 and mib < 1200, mib


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "L", "CMYK"])
def test_a_large_picture_is_the_same_in_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (50, 30, 4), np.uint8)
    if mode == "I;16":
        drawn = Image.fromarray(rng.integers(0, 65_535, (50, 30), np.uint16))
    elif mode == "CMYK":
        drawn = Image.fromarray(pixels, "CMYK")
    else:
        drawn = Image.fromarray(pixels, "RGBA").convert(mode)
    file = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    drawn.save(file, **({"transparency": 3} if mode == "P" else {}))
    whole = read_image(file, 20)
    monkeypatch.setattr(images, "_LARGE_PIXELS", 7 * 30)
    assert (read_image(file, 20) == whole).all()
