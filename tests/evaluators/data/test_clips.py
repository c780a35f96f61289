"""The middle frame of a clip, taken once and kept."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from clip_data import film, film_from, number_of, still
from PIL import Image

from evaluators.data import DataError, check, load
from evaluators.data.media import clips
from evaluators.data.media.clip_sound import clip_sound
from evaluators.data.media.clips import middle_frame

SHARED = Path(os.environ.get("FUSION_NAS_SHARED") or Path(__file__).parents[3] / ".." / "shared")
REAL = SHARED / "data" / "mosi" / "Raw" / "Oz06ZWiO20M" / "6.mp4"


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


@pytest.mark.parametrize("start_s", [0, 2, 100])
@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
@pytest.mark.parametrize("form", ["mpegts", "matroska", "mp4"])
def test_the_middle_is_the_same_in_every_format_wherever_its_time_starts(
    tmp_path: Path, form: str, codec: str, start_s: int
) -> None:
    for frames, middle in ((1, 0), (11, 5), (12, 6)):
        assert number_of(middle_frame(film_from(tmp_path / "a", form, codec, start_s, frames))) == (
            middle
        )


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("form", ["mp4", "matroska", "mpegts"])
def test_a_still_picture_with_sound_is_read_as_both(tmp_path: Path, form: str, held: bool) -> None:
    path = still(tmp_path / "a", form, "libx264", held)
    assert middle_frame(path).size == (64, 48)
    assert len(clip_sound(path)) == pytest.approx(80_000, abs=2_000)


@pytest.mark.parametrize("kept", [0.3, 0.7])
def test_a_matroska_clip_that_was_cut_short_never_gives_another_frame(
    tmp_path: Path, kept: float
) -> None:
    path = film_from(tmp_path / "a", "matroska", "mpeg4", 0, 120)
    middle = np.asarray(middle_frame(path))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    if kept < 0.5:
        with pytest.raises(DataError, match="breaks off"):
            middle_frame(path)
    else:
        assert (np.asarray(middle_frame(path)) == middle).all()


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

    monkeypatch.setattr("evaluators.data.media.pictures.middle_jpeg", counting)
    with pytest.raises(KeyboardInterrupt):
        load(root, cache=tmp_path / "cache")
    data = load(root, cache=tmp_path / "cache")
    assert decoded == ["v0", "v1", "v2", "v2", "v3"]
    assert load(root, cache=tmp_path / "cache") == data
    moved = load(shutil.copytree(root, tmp_path / "moved"), cache=tmp_path / "cache")
    assert moved.fingerprint == data.fingerprint and len(decoded) == 5
    assert {sample.image.parent for sample in data.samples} == {tmp_path / "cache/frames/middle-2"}
    assert [number_of(Image.open(sample.image)) for sample in data.samples] == [2, 3, 4, 5]
    assert not list((tmp_path / "cache").rglob(".tmp-*"))


KILLED = """
import os, signal, sys
from pathlib import Path
from evaluators.data import load
from evaluators.data.media import pictures
plain = pictures.middle_jpeg
def counting(path):
    with open(sys.argv[2] + "/decoded", "a") as log:
        log.write(path.parent.name + " ")
    if path.parent.name == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(path)
pictures.middle_jpeg = counting
load(Path(sys.argv[1]), cache=Path(sys.argv[2]))
"""


def test_after_a_kill_only_the_rest_is_decoded(tmp_path: Path) -> None:
    root = clip_folder(tmp_path / "set")
    (tmp_path / "cache").mkdir()
    repository = str(Path(__file__).parents[3])
    for stop, code in (("v2", -signal.SIGKILL), ("", 0)):
        command = [sys.executable, "-c", KILLED, str(root), str(tmp_path / "cache"), stop]
        assert subprocess.run(command, cwd=repository, timeout=60).returncode == code
    assert (tmp_path / "cache" / "decoded").read_text().split() == ["v0", "v1", "v2", "v2", "v3"]


@pytest.mark.parametrize("kind", ["half", "no end", "empty", "zeros"])
def test_a_half_written_frame_is_named_and_made_again(tmp_path: Path, kind: str) -> None:
    root = clip_folder(tmp_path / "set")
    first = load(root, cache=tmp_path / "cache")
    frame = first.samples[1].picture
    whole = frame.read_bytes()
    half = whole[: len(whole) // 2]
    torn = {
        "half": half,
        "no end": whole[:-2],
        "empty": b"",
        "zeros": half.ljust(len(whole), b"\0"),
    }
    frame.write_bytes(torn[kind])
    again = load(root, cache=tmp_path / "cache")
    (said,) = again.mended
    assert said.startswith(f"label.csv row 3: v1/1: the stored frame {frame} was not whole")
    assert again == first and frame.read_bytes() == whole
    assert not load(root, cache=tmp_path / "cache").mended


def test_a_half_written_frame_whose_clip_is_gone_is_a_fault(tmp_path: Path) -> None:
    root = clip_folder(tmp_path / "set")
    frame = load(root, cache=tmp_path / "cache").samples[1].picture
    frame.write_bytes(frame.read_bytes()[:100])
    (root / "Raw" / "v1" / "1.mp4").unlink()
    with pytest.raises(DataError, match=r"v1/1: label.csv row 3: no Frames/v1/1 with any of"):
        load(root, cache=tmp_path / "cache")


def test_frames_are_preferred_to_clips(tmp_path: Path) -> None:
    root = clip_folder(tmp_path / "set")
    first = load(root, cache=tmp_path / "cache")
    (root / "Frames" / "v1").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(root / "Frames" / "v1" / "1.png")
    second = load(root, cache=tmp_path / "cache")
    assert second.samples[1].image == root / "Frames" / "v1" / "1.png"
    assert second.fingerprint != first.fingerprint
    assert (second.kind, second.samples[1].group, second.samples[1].score) == ("mosi", "v1", 0.5)


def test_a_broken_clip_is_a_fault_and_never_a_blank_picture(tmp_path: Path) -> None:
    root = clip_folder(tmp_path / "set")
    with open(root / "label.csv", "a") as file:
        file.write("\nv1,2,torn,0.5,,train")
    whole = (root / "Raw" / "v1" / "1.mp4").read_bytes()
    (root / "Raw" / "v1" / "2.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"1 row without a usable picture \(5 rows in all\)"):
        load(root, cache=tmp_path / "cache")
    data = load(root, cache=tmp_path / "cache", accept_faults=True)
    assert [sample.id for sample in data.samples] == ["v0/1", "v1/1", "v2/1", "v3/1"]
    assert data.dropped[0].id == "v1/2" and "not a usable clip" in data.dropped[0].why


@pytest.mark.skipif(not REAL.is_file(), reason=f"no CMU-MOSI clip at {REAL}")
def test_the_middle_frame_of_a_real_clip_is_its_113th() -> None:
    with av.open(str(REAL)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 225
    picture = middle_frame(REAL)
    assert picture.size == (480, 360) and picture.mode == "RGB"
    assert (np.asarray(picture) == np.asarray(frames[112].to_image())).all()


@pytest.mark.skipif(not REAL.is_file(), reason=f"no CMU-MOSI clip at {REAL}")
def test_cmu_mosi_with_one_clip_names_each_row_that_lacks_one(tmp_path: Path) -> None:
    root = SHARED / "data" / "mosi"
    found = check(root, cache=tmp_path)
    assert list(found.pictures) == ["Oz06ZWiO20M/6"]
    (entry,) = (e for e in found.labels.entries if e.id == "Oz06ZWiO20M/6")
    assert (entry.score, entry.split, entry.label) == (-0.8, "train", 0)
    with Image.open(found.pictures[entry.id].path) as picture:
        assert picture.size == (480, 360)
    # One row lacks its clip in every copy: that is known, and no fault of this one.
    assert len(found.dropped) == 2198 and len(found.faults) == 2197
    assert {fault.kind for fault in found.faults} == {"picture"}
    with pytest.raises(DataError, match=r"2,197 rows without a usable picture \(2,199 rows"):
        load(root, cache=tmp_path)
    with pytest.raises(DataError, match="no usable sample is left in valid, test"):
        load(root, cache=tmp_path, accept_faults=True)


def test_a_full_disk_is_not_taken_for_broken_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("evaluators.data.layouts.finding.write_cached", full)
    with pytest.raises(DataError, match=r"cache.*cannot be written .*No space left"):
        load(clip_folder(tmp_path / "set"), cache=tmp_path / "cache", accept_faults=True)
