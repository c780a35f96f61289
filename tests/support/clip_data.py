"""Clips and label files in the layouts that data come in, made for tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from evaluators.data.layouts.known import MOSI

Row = tuple[str, int, float, str]
"""Video, clip, score, split."""
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


def sounding(
    path: Path,
    hz: float = 440.0,
    seconds: float = 1.0,
    rate: int = 44_100,
    layout: str = "stereo",
    codec: str = "aac",
    frames: int = 0,
) -> Path:
    """A tone of half the full scale, silent at 0 Hz; before it pictures, as `film` has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"mono": 1, "stereo": 2}[layout]
    tone = np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate) * 16384
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        heard = container.add_stream(codec, rate=rate, layout=layout)
        if frames:
            seen = container.add_stream("mpeg4", rate=10)
            seen.width, seen.height, seen.pix_fmt = 64, 48, "yuv420p"
            for number in range(frames):
                pixels = np.full((48, 64, 3), STEP * (number % 12), np.uint8)
                container.mux(seen.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(seen.encode())
        if len(tone):
            content = np.repeat(tone, channels).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(content, "s16", layout)
            frame.sample_rate = rate
            container.mux(heard.encode(frame))
        container.mux(heard.encode())
    return path


def number_of(picture: Image.Image) -> int:
    """Which frame of `film` a picture is."""
    return round((np.asarray(picture)[:, -20:].mean() + 3) / STEP)


def clips(root: Path, rows: Sequence[Row]) -> Path:
    """A label.csv in MMSA's layout, without any clip."""
    lines = [f"{video},{clip},text {clip},{score},,{mode}" for video, clip, score, mode in rows]
    root.mkdir(parents=True, exist_ok=True)
    header = "video_id,clip_id,text,label,annotation,mode"
    (root / "label.csv").write_text("\n".join([header, *lines]))
    return root


def mosi_rows() -> list[Row]:
    """Rows with CMU-MOSI's videos, folds and counts; texts and clip numbers are made up."""
    rows: list[Row] = []
    for split, counts in MOSI.counts.items():
        scores = [-1.0] * counts["negative"] + [0.0] * counts["zero"] + [1.0] * counts["positive"]
        videos = [video for video, fold in MOSI.folds.items() if fold == split]
        rows += [(videos[n % len(videos)], n, score, split) for n, score in enumerate(scores)]
    return rows


def film_from(path: Path, form: str, codec: str, start_s: int, frames: int = 11) -> Path:
    """As `film`, 25 frames a second from `start_s` on, with B-frames where the codec has any."""
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = 4
        stream.codec_context.max_b_frames = 2 if codec == "libx264" else 0
        stream.codec_context.time_base = Fraction(1, 25)
        for number in range(frames):
            pixels = np.full((48, 64, 3), STEP * (number % 12), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number + 25 * start_s, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def still(path: Path, form: str, codec: str, held: bool) -> Path:
    """One picture beside five seconds of silence; `held`: it states to last as long."""
    with av.open(str(path), "w", format=form) as container:
        seen = container.add_stream(codec, rate=10)
        seen.width, seen.height, seen.pix_fmt = 64, 48, "yuv420p"
        heard = container.add_stream("aac", rate=16_000, layout="mono")
        picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 100, np.uint8), format="rgb24")
        picture.pts = 0
        for packet in (*seen.encode(picture), *seen.encode()):
            if held:
                packet.duration = 50
            container.mux(packet)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 80_000), np.float32), "fltp", "mono")
        silence.sample_rate = 16_000
        container.mux(heard.encode(silence))
        container.mux(heard.encode())
    return path
