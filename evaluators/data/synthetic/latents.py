"""What each clip of the faces set was drawn from, as the set keeps it in `latents.csv`.

The tones of its voices stand in a file of their own, `Sounds/voices.csv`, where they were drawn.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from evaluators.data.errors import DataError
from evaluators.data.generative.scenes import Face, Scene, Tone, Words

LATENTS = "latents.csv"
VOICES = "Sounds/voices.csv"


@dataclass(frozen=True)
class Latent:
    """The scene of one clip; `split` as the label file has it."""

    video: str
    number: int
    split: str
    scene: Scene


def read_latents(folder: Path, audio: bool = False) -> list[Latent]:
    """All clips in the order of the label file, with `audio` their tones too.

    Raises DataError for a file that is missing.
    """
    found = [_latent(row) for row in _rows(folder, LATENTS)]
    if not audio:
        return found
    tones = {
        (row["video_id"], int(row["clip_id"])): Tone(int(row["tone"]), int(row["strength"]))
        for row in _rows(folder, VOICES)
    }
    return [
        replace(latent, scene=replace(latent.scene, tone=tones[latent.video, latent.number]))
        for latent in found
    ]


def _latent(row: Mapping[str, str]) -> Latent:
    words = Words(int(row["polarity"]), int(row["word_strength"]))
    face = Face(row["expression"], int(row["face_strength"]))  # type: ignore[arg-type]
    scene = Scene(row["kind"], words, face, row["flipped"] == "1", int(row["label"]))
    return Latent(row["video_id"], int(row["clip_id"]), row["mode"], scene)


def _rows(folder: Path, name: str) -> list[dict[str, str]]:
    try:
        content = (folder / name).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{folder}: {name} cannot be read ({error}); draw it again") from error
    return list(csv.DictReader(io.StringIO(content)))
