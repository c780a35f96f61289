"""The middle frame of a video clip.

The rule (`RULE` names it in the cache, so that another rule would never meet old frames):
the frame whose time is nearest to the middle of the video stream, the earlier one of two equally
near. MP4 and AVI state a start and a duration. In other formats (MPEG-TS, Matroska) the
stream lasts from its first packet to the end of its last; a Matroska file that ends too early
was cut short, and the middle is that of the whole. Where packets carry no times, frames are
counted and number n // 2 (from 0) of n is taken, which is the same frame at a constant rate. The
frame is turned upright by the clip's display matrix.
"""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.data.errors import DataError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from PIL.Image import Image

RULE = "middle-2"
JPEG_QUALITY = 95
_INDEXED = ("mov", "avi")
"""Formats (the first of FFmpeg's names) that state the duration of each stream."""
_SEEKABLE = (*_INDEXED, "matroska")
"""Formats in which seeking finds the key frame before a time; others are decoded from the start."""
_CUT_SHORT = Fraction(1, 2)
"""Seconds by which a file may end before it states to."""


def middle_frame(path: Path) -> Image:
    """The middle frame, upright, RGB, in the clip's own size.

    Raises DataError, naming the file, if it cannot be opened, holds no video, or breaks off or is
    damaged before its middle.
    """
    import av

    try:
        frame = _by_time(path) or _by_count(path)
    # FFmpegError covers what FFmpeg reports; OSError, ValueError what the file system or PyAV do.
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _broken(path, str(error)) from error
    turned = frame.rotation % 360
    picture: Image = frame.to_image()  # type: ignore[no-untyped-call]
    return picture.rotate(turned, expand=True) if turned else picture


def middle_jpeg(path: Path) -> bytes:
    """The middle frame as JPEG of quality 95 with full colour; raises DataError."""
    buffer = io.BytesIO()
    middle_frame(path).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _broken(path: Path, why: str) -> DataError:
    return DataError(f"{path}: not a usable clip ({why}); fetch the file again or remove its row")


def _video(container: InputContainer, path: Path) -> VideoStream:
    if not container.streams.video:
        raise _broken(path, "it has no video stream")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return stream


def _format(container: InputContainer) -> str:
    return container.format.name.partition(",")[0]


def _middle_time(path: Path) -> tuple[Fraction, Fraction | None] | None:
    """The middle of the video stream and the time of its last frame, on its own clock, in seconds.

    None for the last frame where it is not known, or missing; None where the stream has no times.
    """
    import av

    with av.open(str(path)) as container:
        stream = _video(container, path)
        if _format(container) in _INDEXED and stream.duration and stream.time_base:
            start = stream.start_time or 0
            return (start + Fraction(stream.duration, 2)) * stream.time_base, None
        stated = Fraction(container.duration or 0, av.time_base)
        first: Fraction | None = None
        last: Fraction | None = None
        end = end_of_all = Fraction(0)
        for packet in container.demux():  # subtitles too: the stated duration is that of all
            if packet.pts is None or packet.time_base is None:
                continue
            time = packet.pts * packet.time_base
            shown = (packet.duration or 0) * packet.time_base
            if packet.stream.index == stream.index:
                if not shown and stream.average_rate:
                    shown = 1 / Fraction(stream.average_rate)
                first = time if first is None else min(first, time)
                last = time if last is None else max(last, time)
                end = max(end, time + shown)
            end_of_all = max(end_of_all, time + shown)
        if first is None:
            return None
        if _format(container) == "matroska" and end_of_all < stated - _CUT_SHORT:
            end, last = stated, None
        return (first + end) / 2, last


def _by_time(path: Path) -> VideoFrame | None:
    """The frame nearest to the middle; None if the clip has no times."""
    import av

    found = _middle_time(path)
    if found is None:
        return None
    with av.open(str(path)) as container:
        return _nearest(path, container, *found)


def _nearest(
    path: Path, container: InputContainer, middle: Fraction, last: Fraction | None
) -> VideoFrame | None:
    """The frame nearest to the middle; `last` is the time of the last frame, if known."""
    stream = _video(container, path)
    if stream.time_base and _format(container) in _SEEKABLE:
        container.seek(int(middle / stream.time_base), stream=stream, backward=True)
    before: tuple[Fraction, VideoFrame] | None = None
    for frame in container.decode(stream):
        if frame.pts is None or frame.time_base is None:
            return None
        if frame.is_corrupt:
            raise _broken(path, f"damaged at {float(frame.pts * frame.time_base):.2f} s")
        time = frame.pts * frame.time_base
        if time >= middle:
            earlier = before is not None and middle - before[0] <= time - middle
            return before[1] if earlier and before is not None else frame
        before = (time, frame)
    if before is not None and last is not None and before[0] >= last:
        return before[1]  # a still picture, on show for as long as there is sound
    return _last(path, stream, middle, before)


def _last(
    path: Path,
    stream: VideoStream,
    middle: Fraction,
    last: tuple[Fraction, VideoFrame] | None,
) -> VideoFrame:
    """The last frame, if it is still on show at the middle (clips of one frame); else broken."""
    if last is None:
        raise _broken(path, "no frame can be decoded")
    time, frame = last
    shown = 1 / stream.average_rate if stream.average_rate else Fraction(0)
    if time + shown < middle:
        raise _broken(
            path, f"it breaks off at {float(time):.2f} s, before its middle at {float(middle):.2f}"
        )
    return frame


def _by_count(path: Path) -> VideoFrame:
    """Frame n // 2 of n, by decoding twice: clips without a duration are rare and short."""
    import av

    with av.open(str(path)) as container:
        count = sum(1 for _ in container.decode(_video(container, path)))
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(_video(container, path))):
            if number == count // 2:
                if frame.is_corrupt:
                    raise _broken(path, f"frame {number} of {count} is damaged")
                return frame
    raise _broken(path, "no frame can be decoded")
