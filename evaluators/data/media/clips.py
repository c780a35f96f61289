"""The middle frame of a video clip.

The rule (`RULE` names it in the cache, so that another rule would never meet old frames):
the frame whose time is nearest to half the duration, the earlier one of two equally near; the
duration is the video stream's, else the file's. Where neither is stated, or is not positive, or
frames carry no times, frames are counted and number n // 2 (from 0) of n is taken, which is the
same frame at a constant rate. The frame is turned upright by the clip's display matrix.
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

RULE = "middle-1"
JPEG_QUALITY = 95


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


def _middle_time(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """Half the duration on the stream's clock, in seconds; None where no duration is stated."""
    import av

    start = Fraction(0)
    if stream.start_time is not None and stream.time_base is not None:
        start = stream.start_time * stream.time_base
    if stream.duration and stream.time_base and stream.duration > 0:
        return start + stream.duration * stream.time_base / 2
    if container.duration and container.duration > 0:
        return start + Fraction(container.duration, av.time_base) / 2
    return None


def _by_time(path: Path) -> VideoFrame | None:
    """The frame nearest to half the duration; None if the clip tells no duration or no times."""
    import av

    with av.open(str(path)) as container:
        stream = _video(container, path)
        middle = _middle_time(container, stream)
        if middle is None or stream.time_base is None:
            return None
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
