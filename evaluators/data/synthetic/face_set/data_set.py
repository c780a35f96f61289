"""The faces set: data of CMU-MOSI's form, drawn from a seed, for use where no data are given.

A folder in MOSI's layout (`label.csv`, `Frames/VIDEO/CLIP.jpg`) with MOSI's split sizes, read by
the same loader. Beside it `latents.csv` keeps what each clip was drawn from; the loader leaves it
alone, and `measured_ceilings` holds the stated ceilings against it. Voices are added where sound is
asked for, see `voice_track`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluators.cached_files import write_whole
from evaluators.data.generative.scenes import Scene, decisions, draw, score, views
from evaluators.data.loading import MARK
from evaluators.data.measures import Share, wilson
from evaluators.data.samples import BOTH, SPLITS, DataSet, Split
from evaluators.data.synthetic.cache import csv_bytes, drawn
from evaluators.data.synthetic.face_set.faces import draw_face, speaker
from evaluators.data.synthetic.face_set.sentences import sentence
from evaluators.data.synthetic.face_set.voice_track import add_voices
from evaluators.data.synthetic.latents import LATENTS, read_latents
from search_space.modality import Modality

VERSION = 1
"""Part of the folder's name: raised whenever the same seed would draw something else."""

SIZES: Mapping[Split, tuple[int, int]] = {
    "train": (1284, 52),
    "valid": (229, 10),
    "test": (686, 31),
}
"""Clips and videos of each split, CMU-MOSI's own."""

_FEWEST_CLIPS = 5
_JPEG_QUALITY = 95
_LABEL_COLUMNS = ("video_id", "clip_id", "text", "label", "annotation", "mode")
_LATENT_COLUMNS = (
    "video_id",
    "clip_id",
    "mode",
    "kind",
    "polarity",
    "word_strength",
    "expression",
    "face_strength",
    "flipped",
    "label",
)


@dataclass(frozen=True)
class _Clip:
    video: str
    number: int
    split: Split
    scene: Scene
    text: str
    score: float


def faces_folder(cache: Path, seed: int = 0) -> Path:
    """Where the faces set of this seed lies, made or not."""
    return Path(os.path.abspath(cache)) / "rendered" / f"rendered-v{VERSION}-seed{seed}"


def faces_data(cache: Path, seed: int = 0, *, modalities: Collection[Modality] = BOTH) -> DataSet:
    """The faces set of this seed, drawn first if it is not in `cache` yet.

    Drawing takes a few seconds and happens once, also with several processes; so does that of the
    voices, where `modalities` hold "audio" for the first time. The same seed gives the same
    samples; the bytes of pictures and voices, and with them the fingerprint, hold for one version
    of Pillow, NumPy and SciPy. Raises DataError if files of it were removed or damaged since, or if
    `cache` cannot be written; ValueError for a negative seed.
    """
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; give 0 or more")
    folder = faces_folder(cache, seed)

    def voices() -> None:
        if "audio" in modalities:
            add_voices(folder, seed)

    return drawn(folder, MARK, cache, lambda empty: _write(empty, seed), modalities, voices)


def measured_ceilings(folder: Path, split: Split, audio: bool = False) -> dict[str, Share]:
    """How often the Bayes-optimal decision is right on one split as it was drawn.

    Keys are those of the stated ceilings: "text", "vision", "both"; with `audio` also "audio" and
    "all". The decision sees the latent words, face and tone, or some of them, never the label.
    Raises DataError if the file that keeps them is missing.
    """
    scenes = [one.scene for one in read_latents(folder, audio) if one.split == split]
    measured = {}
    for name, view in views(audio).items():
        best = decisions(view, audio)
        measured[name] = wilson(sum(best[view(s)] == s.label for s in scenes), len(scenes))
    return measured


def _write(folder: Path, seed: int) -> None:
    clips: list[_Clip] = []
    for number, (split, scenes) in enumerate(_videos(seed), 1):
        rng = np.random.default_rng([seed, VERSION, number])
        clips += _video(folder, f"speaker{number:03d}", split, scenes, rng)
    write_whole(folder / "label.csv", csv_bytes(_LABEL_COLUMNS, map(_label_row, clips)))
    write_whole(folder / LATENTS, csv_bytes(_LATENT_COLUMNS, map(_latent_row, clips)))
    write_whole(folder / MARK, json.dumps({"version": VERSION, "seed": seed}).encode())


def _videos(seed: int) -> Iterator[tuple[Split, list[Scene]]]:
    """The scenes of each video: one speaker each, of uneven length, every split of its size."""
    rng = np.random.default_rng([seed, VERSION, 0])
    for split in SPLITS:
        clips, videos = SIZES[split]
        scenes = draw(rng, clips)
        shares = rng.dirichlet(np.full(videos, 8.0))
        counts = _FEWEST_CLIPS + rng.multinomial(clips - _FEWEST_CLIPS * videos, shares)
        for end, count in zip(np.cumsum(counts), counts, strict=True):
            yield split, scenes[end - count : end]


def _video(
    folder: Path, video: str, split: Split, scenes: Sequence[Scene], rng: np.random.Generator
) -> Iterator[_Clip]:
    """The clips of one video; their frames are written on the way."""
    frames = folder / "Frames" / video
    frames.mkdir(parents=True)
    person = speaker(rng)
    for number, scene in enumerate(scenes, 1):
        text, told = sentence(scene.words, rng), score(scene, rng)
        picture = draw_face(person, scene.face, rng)
        picture.save(frames / f"{number}.jpg", quality=_JPEG_QUALITY, subsampling=0)
        yield _Clip(video, number, split, scene, text, told)


def _label_row(clip: _Clip) -> tuple[object, ...]:
    annotation = "Neutral" if clip.score == 0 else "Negative" if clip.score < 0 else "Positive"
    told = f"{clip.score:.1f}"
    return clip.video, clip.number, clip.text, told, annotation, clip.split


def _latent_row(clip: _Clip) -> tuple[object, ...]:
    scene = clip.scene
    words, face = scene.words, scene.face
    return (
        *(clip.video, clip.number, clip.split, scene.kind, words.polarity, words.strength),
        *(face.expression, face.strength, int(scene.flipped), scene.label),
    )
