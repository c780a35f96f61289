"""The data sets that are drawn where no data are given, and how a user names them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from evaluators.data.samples import BOTH, DataSet, Kind
from evaluators.data.synthetic.face_set.data_set import faces_data, faces_folder
from evaluators.data.synthetic.shape_set.shapes import shapes_data, shapes_folder
from search_space.modality import Modality

BUILT_IN_PREFIX = "built-in:"
"""What the name of a built-in set begins with instead of a folder's."""


class Draw(Protocol):
    """The samples of a drawn set, drawn first if need be. Raises DataError, as for a modality that
    the set has not."""

    def __call__(self, cache: Path, *, modalities: Collection[Modality] = BOTH) -> DataSet: ...


@dataclass(frozen=True)
class BuiltIn:
    """A drawn set by what a cache holds of it: the samples, drawn first if need be, and where."""

    draw: Draw
    folder: Callable[[Path], Path]
    kind: Kind


BUILT_IN: Mapping[str, BuiltIn] = {
    "built-in:faces": BuiltIn(faces_data, faces_folder, "faces"),
    "built-in:shapes": BuiltIn(shapes_data, shapes_folder, "shapes"),
}
FACES = "built-in:faces"
"""The set that is used where none is named."""
