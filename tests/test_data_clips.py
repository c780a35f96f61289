"""The middle frame of a clip, taken once and kept."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from evaluators.data import DataError, clips, load
from evaluators.data.clips import middle_frame

SHARED = Path(os.environ.get("FUSION_NAS_SHARED") or Path(__file__).parents[1] / ".." / "shared")
REAL = SHARED / "data" / "mosi" / "Raw" / "Oz06ZWiO20M" / "6.mp4"

STEP = 20


class Pipe:
    """A sink without seeking: what is written there cannot state its duration."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, data: bytes) -> int:
        self.content += data
        return len(data)


def film(
    path: Path,
    frames: int = 11,
    form: str = "mp4",
    noise: bool = False,
    options: dict[str, str] | None = None,
    gop: int = 12,
) -> Path:
    """A clip of 64x48 at 10 frames a second; frame n is of grey n * 20, its left half brighter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sink = Pipe()
    rng = np.random.default_rng(0)
    target = sink if form == "matroska" else str(path)
    with av.open(target, "w", format=form, options=options or {}) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = gop
        for number in range(frames):
            pixels = np.full((48, 64, 3), STEP * (number % 12), np.uint8)
            pixels[:, :32] += 15
            if noise:
                pixels = rng.integers(0, 256, pixels.shape).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    if sink.content:
        path.write_bytes(bytes(sink.content))
    return path


def number_of(picture: Image.Image) -> int:
    """Which frame of `film` a picture is."""
    return round((np.asarray(picture)[:, -20:].mean() + 3) / STEP)


def turned(path: Path) -> Path:
    """The same clip, marked in its track header to be shown turned clockwise by a quarter."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    matrix = [0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30]
    content[start : start + 36] = b"".join(part.to_bytes(4, "big", signed=True) for part in matrix)
    path.write_bytes(bytes(content))
    return path


@pytest.mark.parametrize(("frames", "middle"), [(1, 0), (2, 1), (3, 1), (10, 5), (11, 5)])
def test_the_frame_nearest_to_half_the_duration_is_taken(
    tmp_path: Path, frames: int, middle: int
) -> None:
    assert number_of(middle_frame(film(tmp_path / "a.mp4", frames))) == middle


@pytest.mark.parametrize("gop", [1, 3, 12])
def test_it_is_the_same_wherever_the_key_frames_lie(tmp_path: Path, gop: int) -> None:
    assert number_of(middle_frame(film(tmp_path / "a.mp4", 12, gop=gop))) == 6


@pytest.mark.parametrize(("frames", "middle"), [(1, 0), (2, 1), (10, 5), (11, 5)])
def test_frames_are_counted_where_no_duration_is_stated(
    tmp_path: Path, frames: int, middle: int
) -> None:
    path = film(tmp_path / "a.mp4", frames, form="matroska")
    with av.open(str(path)) as container:
        assert container.duration is None and container.streams.video[0].duration is None
    assert number_of(middle_frame(path)) == middle


def test_a_clip_marked_as_turned_comes_out_upright(tmp_path: Path) -> None:
    plain = np.asarray(middle_frame(film(tmp_path / "a.mp4")))
    upright = np.asarray(middle_frame(turned(tmp_path / "a.mp4")))
    assert upright.shape == (64, 48, 3)
    assert (upright == np.rot90(plain, -1)).all()
    assert upright[:20].mean() > upright[-20:].mean() + 8


def test_broken_clips_are_named(tmp_path: Path) -> None:
    whole = film(tmp_path / "a.mp4", 40, noise=True).read_bytes()
    first = film(tmp_path / "b.mp4", 40, noise=True, options={"movflags": "faststart"}).read_bytes()
    for name, content, why in (
        ("no_end.mp4", whole[: len(whole) // 2], "not a usable clip"),
        ("no_middle.mp4", first[: len(first) // 4], "not a usable clip"),
        ("empty.mp4", b"", "not a usable clip"),
        ("text.mp4", b"<html>404 not found</html>" * 50, "not a usable clip"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}: {why}"):
            middle_frame(tmp_path / name)


def test_a_clip_without_pictures_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(DataError, match="it has no video stream"):
        middle_frame(path)


def clip_folder(root: Path) -> Path:
    rows = [
        f"v{n},1,text {n},{n % 2 * 2 - 1.5},,{('train', 'train', 'valid', 'test')[n]}"
        for n in range(4)
    ]
    root.mkdir(parents=True)
    (root / "label.csv").write_text(
        "\n".join(["video_id,clip_id,text,label,annotation,mode", *rows])
    )
    for number in range(4):
        film(root / "Raw" / f"v{number}" / "1.mp4", 5 + 2 * number)
    return root


def test_a_cached_frame_is_never_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = clip_folder(tmp_path / "set")
    decoded: list[str] = []
    plain = clips.middle_jpeg

    def counting(path: Path) -> bytes:
        decoded.append(path.parent.name)
        if decoded == ["v0", "v1", "v2"]:
            raise KeyboardInterrupt
        return plain(path)

    monkeypatch.setattr("evaluators.data.pictures.middle_jpeg", counting)
    with pytest.raises(KeyboardInterrupt):
        load(root, cache=tmp_path / "cache")
    data = load(root, cache=tmp_path / "cache")
    assert decoded == ["v0", "v1", "v2", "v2", "v3"]
    assert load(root, cache=tmp_path / "cache") == data
    moved = load(shutil.copytree(root, tmp_path / "moved"), cache=tmp_path / "cache")
    assert moved.fingerprint == data.fingerprint and len(decoded) == 5
    assert {sample.image.parent for sample in data.samples} == {tmp_path / "cache/frames/middle-1"}
    assert [number_of(Image.open(sample.image)) for sample in data.samples] == [2, 3, 4, 5]
    assert not list((tmp_path / "cache").rglob(".tmp-*"))


def test_frames_are_preferred_to_clips(tmp_path: Path) -> None:
    root = clip_folder(tmp_path / "set")
    first = load(root, cache=tmp_path / "cache")
    (root / "Frames" / "v1").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(root / "Frames" / "v1" / "1.png")
    second = load(root, cache=tmp_path / "cache")
    assert second.samples[1].image == root / "Frames" / "v1" / "1.png"
    assert second.fingerprint != first.fingerprint
    assert (second.kind, second.samples[1].group, second.samples[1].score) == ("mosi", "v1", 0.5)


def test_a_broken_clip_is_dropped_by_policy_and_never_a_blank_picture(tmp_path: Path) -> None:
    root = clip_folder(tmp_path / "set")
    with open(root / "label.csv", "a") as file:
        file.write("\nv1,2,torn,0.5,,train")
    whole = (root / "Raw" / "v1" / "1.mp4").read_bytes()
    (root / "Raw" / "v1" / "2.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"1 of 5 rows have no usable clip"):
        load(root, cache=tmp_path / "cache")
    data = load(root, cache=tmp_path / "cache", missing="drop")
    assert [sample.id for sample in data.samples] == ["v0/1", "v1/1", "v2/1", "v3/1"]
    assert data.dropped[0].id == "v1/2" and "not a usable clip" in data.dropped[0].why


def test_a_video_in_two_splits_is_told(tmp_path: Path) -> None:
    root = clip_folder(tmp_path / "set")
    labels = (root / "label.csv").read_text().replace("v3,1", "v0,2")
    (root / "label.csv").write_text(labels)
    film(root / "Raw" / "v0" / "2.mp4")
    assert "1 video occurs in more than one split" in load(root, cache=tmp_path / "c").note


@pytest.mark.skipif(not REAL.is_file(), reason=f"no CMU-MOSI clip at {REAL}")
def test_the_middle_frame_of_a_real_clip_is_its_113th() -> None:
    with av.open(str(REAL)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 225
    picture = middle_frame(REAL)
    assert picture.size == (480, 360) and picture.mode == "RGB"
    assert (np.asarray(picture) == np.asarray(frames[112].to_image())).all()


@pytest.mark.skipif(not REAL.is_file(), reason=f"no CMU-MOSI clip at {REAL}")
def test_cmu_mosi_with_one_clip_says_how_many_are_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2,198 of 2,199 rows have no usable clip \(at most 21"):
        load(SHARED / "data" / "mosi", cache=tmp_path)
    with pytest.raises(DataError, match="no usable sample is left in valid, test"):
        load(SHARED / "data" / "mosi", cache=tmp_path, missing="drop")


def test_a_full_disk_is_not_taken_for_broken_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("evaluators.data.pictures.write_whole", full)
    with pytest.raises(DataError, match=r"cache.*cannot be written .*No space left"):
        load(clip_folder(tmp_path / "set"), cache=tmp_path / "cache", missing="drop")
