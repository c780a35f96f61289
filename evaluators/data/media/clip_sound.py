"""The sound of a clip, or of any file with sound.

The rule (`RULE` names it in the cache, so that another rule would never meet old sounds): the first
audio stream, decoded whole, its channels mixed to one, resampled to 16 kHz, in 16 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evaluators.data.errors import DataError
from evaluators.data.media.waves import Wave, wav_bytes
from search_space.design.encoder import SOUND_HZ

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

RULE = "mono-16k-1"
_MOST_LACKING = 0.5
"""Seconds by which a sound may be shorter than its stream states: what encoders pad it with."""
_ESTIMATED = ("mp3", "aac")
"""Formats without an index: what they state of their duration is FFmpeg's estimate."""


def clip_sound(path: Path) -> Wave:
    """The sound (N,) at 16 kHz.

    Raises DataError, naming the file, if it cannot be opened, holds no sound, or breaks off or is
    damaged before its end. Silence is a sound. An MP3 or a WAV file that was cut short passes for
    a shorter one, as its length is told by its size.
    """
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise _unusable(path, "it has no audio stream")
            stream = container.streams.audio[0]
            sound = np.concatenate([np.zeros(0, np.int16), *_resampled(container, stream, path)])
            stated = _stated(container, stream)
    # FFmpegError covers what FFmpeg reports; OSError, ValueError what the file system or PyAV do.
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _unusable(path, str(error)) from error
    if not len(sound):
        raise _unusable(path, "its audio stream is empty")
    seconds = len(sound) / SOUND_HZ
    if seconds < stated - _MOST_LACKING:
        raise _unusable(path, f"it breaks off at {seconds:.2f} s of {stated:.2f}")
    return sound


def sound_wav(path: Path) -> bytes:
    """The sound as a WAV file of one channel, 16 kHz and 16 bits; raises DataError."""
    return wav_bytes(clip_sound(path))


def _unusable(path: Path, why: str) -> DataError:
    return DataError(f"{path}: no usable sound ({why}); replace the file")


def _resampled(container: InputContainer, stream: AudioStream, path: Path) -> Iterator[Wave]:
    import av

    resampler = av.AudioResampler("s16", "mono", SOUND_HZ)
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise _unusable(path, f"damaged at {frame.time or 0:.2f} s")
        for part in resampler.resample(frame):
            yield part.to_ndarray()[0]
    for part in resampler.resample(None):
        yield part.to_ndarray()[0]


def _stated(container: InputContainer, stream: AudioStream) -> float:
    """Seconds that the stream states to last, 0 where it does not say."""
    if not stream.duration or stream.time_base is None or container.format.name in _ESTIMATED:
        return 0.0
    return float(stream.duration * stream.time_base)
