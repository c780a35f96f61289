"""Sounds as WAV files of one form: one channel, 16 kHz, 16-bit PCM."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evaluators.data.errors import DataError
from evaluators.data.samples import Sample
from search_space.design.encoder import SOUND_HZ

FULL_SCALE = 32_768
"""The 16-bit value that stands for 1."""
_FORM = (1, 2, SOUND_HZ)
_UNREADABLE = (wave.Error, EOFError, OSError)

Wave = npt.NDArray[np.int16]


def read_sound(source: Sample | Path) -> npt.NDArray[np.float32]:
    """The sound of a sample, or of a WAV file as samples name it: (N,) float32 in -1..1, 16 kHz.

    Raises DataError, naming the file, if it is missing, broken or of another form, and for a
    sample whose sound was not read.
    """
    path = source.recording if isinstance(source, Sample) else source
    return _read(path).astype(np.float32) / np.float32(FULL_SCALE)


def longest_seconds(samples: Iterable[Sample]) -> float:
    """The duration of the longest sound of some samples; 0 where none has one.

    Raises DataError, naming the file, for a sound that is missing or broken.
    """
    longest = 0
    for path in {sample.recording for sample in samples}:
        try:
            with wave.open(str(path), "rb") as file:
                longest = max(longest, file.getnframes())
        except _UNREADABLE as error:
            raise DataError(f"{path}: no usable sound ({error})") from error
    return longest / SOUND_HZ


def check_sound(path: Path) -> None:
    """Raises DataError, naming the file, for a WAV file that is empty, or less than it states."""
    _read(path)


def in_form(path: Path) -> bool:
    """Whether a file states to be a WAV file of one channel, 16 kHz and 16 bits."""
    try:
        with wave.open(str(path), "rb") as file:
            return _form(file) == _FORM
    except _UNREADABLE:
        return False


def wav_bytes(sound: Wave) -> bytes:
    """A sound (N,) as the bytes of a WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SOUND_HZ)
        file.writeframes(sound.astype("<i2").tobytes())
    return buffer.getvalue()


def _form(file: wave.Wave_read) -> tuple[int, int, int]:
    return file.getnchannels(), file.getsampwidth(), file.getframerate()


def _read(path: Path) -> Wave:
    try:
        with wave.open(str(path), "rb") as file:
            form, stated = _form(file), file.getnframes()
            content = file.readframes(stated)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such sound; load the data set again") from error
    except _UNREADABLE as error:
        raise DataError(f"{path}: not a readable sound ({error}); replace the file") from error
    if form != _FORM:
        raise DataError(
            f"{path}: {form[0]} channels of {8 * form[1]} bits at {form[2]:,} Hz, where one of 16 "
            f"bits at {SOUND_HZ:,} is read; load the data set again"
        )
    if not stated or len(content) < 2 * stated:
        held = f"{len(content) // 2:,} of {stated:,} samples" if stated else "no samples"
        raise DataError(f"{path}: holds {held}; replace the file")
    return np.frombuffer(content, "<i2").astype(np.int16)
