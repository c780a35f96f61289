"""The voice track of the faces set: `Sounds/VIDEO/CLIP.wav`, drawn where sound is asked for.

It has random generators of its own and is made of the set as it lies there, so nothing else of the
set changes by it. `Sounds/voices.csv` keeps the tone of each clip; the loader leaves it alone.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from evaluators.cached_files import write_whole
from evaluators.data.generative.scenes import Tone, draw_tones
from evaluators.data.media.waves import wav_bytes
from evaluators.data.synthetic.cache import csv_bytes, made
from evaluators.data.synthetic.face_set.voices import speak, voice
from evaluators.data.synthetic.latents import VOICES, Latent, read_latents

VERSION = 1
"""Part of the mark's name: raised whenever the same seed would draw other voices."""

_MARK = f"voices-v{VERSION}.json"
_COLUMNS = ("video_id", "clip_id", "mode", "tone", "strength")


def add_voices(folder: Path, seed: int) -> None:
    """Draw the voice track into a faces set, where it is not there yet: whole or not at all.

    Raises DataError where it cannot be written, or the set lacks its latents.
    """
    made(folder / "Sounds", _MARK, lambda empty: _write(empty, read_latents(folder), seed))


def _write(sounds: Path, latents: list[Latent], seed: int) -> None:
    tones = _tones(latents, seed)
    videos = list(dict.fromkeys(latent.video for latent in latents))
    for number, video in enumerate(videos, 1):
        (sounds / video).mkdir()
        rng = _generator(seed, number)
        person = voice(rng)
        for latent in latents:
            if latent.video == video:
                sound = speak(person, tones[latent], rng)
                (sounds / video / f"{latent.number}.wav").write_bytes(wav_bytes(sound))
    rows = (
        (one.video, one.number, one.split, tone.polarity, tone.strength)
        for one, tone in tones.items()
    )
    write_whole(sounds / Path(VOICES).name, csv_bytes(_COLUMNS, rows))
    write_whole(sounds / _MARK, json.dumps({"version": VERSION, "seed": seed}).encode())


def _tones(latents: list[Latent], seed: int) -> dict[Latent, Tone]:
    """Tones by clip, in the order of the label file; each split keeps to the table."""
    rng = _generator(seed, 0)
    splits: dict[str, list[Latent]] = defaultdict(list)
    for latent in latents:
        splits[latent.split].append(latent)
    return {
        latent: tone
        for part in splits.values()
        for latent, tone in zip(part, draw_tones(rng, [one.scene for one in part]), strict=True)
    }


def _generator(seed: int, number: int) -> np.random.Generator:
    # Four numbers, the last not zero: no generator of pictures and texts begins with these.
    return np.random.default_rng([seed, VERSION, number, 1])
