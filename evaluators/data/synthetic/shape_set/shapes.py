"""The shapes set: pictures of coloured shapes and statements about them, drawn from a seed.

Neither a picture nor a statement tells anything alone; what is true is to be seen. A folder of
images with texts (`label.csv`, `images/PICTURE.jpg`), two rows to a picture, read by the same
loader. Its column `topic` and `scenes.csv`, which keeps what each picture shows, the loader leaves
alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from evaluators.cached_files import write_whole
from evaluators.data.errors import DataError
from evaluators.data.generative.statements import Shown, draw
from evaluators.data.loading import SHAPES_MARK
from evaluators.data.samples import BOTH, SPLITS, DataSet, Split
from evaluators.data.synthetic.cache import csv_bytes, drawn
from evaluators.data.synthetic.shape_set.pictures import draw_picture
from search_space.modality import Modality

VERSION = 1
"""Part of the folder's name: raised whenever the same seed would draw something else."""

PICTURES: Mapping[Split, int] = {"train": 3000, "valid": 300, "test": 600}
"""Pictures of each split; there are twice as many samples."""

_JPEG_QUALITY = 95
_LABEL_COLUMNS = ("id", "image", "text", "label", "mode", "topic")
_SCENE_COLUMNS = ("image", "colour", "shape", "column", "row")
_SAID = {True: "true", False: "false"}


def shapes_folder(cache: Path, seed: int = 0) -> Path:
    """Where the shapes set of this seed lies, made or not."""
    return Path(os.path.abspath(cache)) / "shapes" / f"shapes-v{VERSION}-seed{seed}"


def shapes_data(cache: Path, seed: int = 0, *, modalities: Collection[Modality] = BOTH) -> DataSet:
    """The shapes set of this seed, drawn first if it is not in `cache` yet.

    Drawing takes a few seconds and happens once, also with several processes. The same seed gives
    the same samples; the bytes of the pictures, and with them the fingerprint, hold for one
    version of Pillow and NumPy. Raises DataError if files of it were removed or damaged since, or
    if `cache` cannot be written; ValueError for a negative seed.
    """
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; give 0 or more")
    if "audio" in modalities:
        raise DataError(
            "built-in:shapes has no sound; choose built-in:faces or data of your own, or leave out "
            "the audio encoder"
        )
    folder = shapes_folder(cache, seed)
    return drawn(folder, SHAPES_MARK, cache, lambda empty: _write(empty, seed), modalities)


def _write(folder: Path, seed: int) -> None:
    found: list[tuple[str, Split, Shown]] = []
    (folder / "images").mkdir()
    for part, split in enumerate(SPLITS):
        rng = np.random.default_rng([seed, VERSION, part])
        for number, shown in enumerate(draw(rng, PICTURES[split]), 1):
            name = f"{split}{number:04d}"
            picture = draw_picture(shown.scene, rng)
            picture.save(folder / "images" / f"{name}.jpg", quality=_JPEG_QUALITY, subsampling=0)
            found.append((name, split, shown))
    labels = (row for one in found for row in _label_rows(*one))
    scenes = (
        (name, thing.colour, thing.shape, thing.column, thing.row)
        for name, _, shown in found
        for thing in shown.scene
    )
    write_whole(folder / "label.csv", csv_bytes(_LABEL_COLUMNS, labels))
    write_whole(folder / "scenes.csv", csv_bytes(_SCENE_COLUMNS, scenes))
    write_whole(folder / SHAPES_MARK, json.dumps({"version": VERSION, "seed": seed}).encode())


def _label_rows(name: str, split: Split, shown: Shown) -> Iterator[tuple[str, ...]]:
    for true, text in shown.said.items():
        said = _SAID[true]
        yield f"{name}-{said}", name, text, said, split, shown.topic
