"""Paired embeddings of texts and pictures: drawn or read from a file, checked, and made into tasks.

Nothing is trained here; `evaluators.superfuse.model` does that.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluators.data import SPLITS, DataError, Split

TaskName = Literal["real", "synthetic"]
Floats = NDArray[np.float32]
ARRAYS = ("text", "vision", "labels")
SHARES = (0.6, 0.2)
"""Of the rows for train and for valid where a file does not split them; the rest is test."""
ROWS = 4096
"""Rows that are in double precision at a time."""
HOW = "numpy.savez(FILE, text=..., vision=..., labels=...) writes one"


class WidthError(ValueError):
    """Both modalities have to be of one width and are not; the text says so."""


@dataclass(frozen=True)
class SplitPairs:
    """The pairs of one split: text (N, D1) and vision (N, D2) in float32, labels (N,) in int64."""

    text: Tensor
    vision: Tensor
    labels: Tensor

    def to(self, device: str) -> "SplitPairs":
        """The same on a compute device."""
        return SplitPairs(self.text.to(device), self.vision.to(device), self.labels.to(device))

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Task:
    """Embeddings with one kind of labels: what a network is trained, chosen and tested on."""

    name: TaskName
    classes: tuple[str, ...]
    parts: Mapping[Split, SplitPairs]

    @property
    def widths(self) -> tuple[int, int]:
        """Of text and of vision."""
        train = self.parts["train"]
        return train.text.shape[1], train.vision.shape[1]

    def majority_percent(self, split: Split) -> float:
        """What always naming the most frequent class of a split is right about."""
        labels = self.parts[split].labels
        return 100 * float(labels.bincount().max()) / len(labels)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over all embeddings and labels by split."""
        digest = hashlib.sha256()
        for split in SPLITS:
            part = self.parts[split]
            for tensor in (part.text, part.vision, part.labels):
                digest.update(f"{split} {tuple(tensor.shape)} {tensor.dtype}".encode())
                digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Embeddings:
    """Pairs in rows, by split: `real` with the labels that came with them, `classes` their names.

    Embeddings that were drawn have no labels of their own: there `classes` is empty, and `real`
    holds zeros.
    """

    name: str
    classes: tuple[str, ...]
    real: Mapping[Split, SplitPairs]

    @property
    def widths(self) -> tuple[int, int]:
        """Of text and of vision."""
        return self.real["train"].text.shape[1], self.real["train"].vision.shape[1]

    def real_task(self) -> Task | None:
        """The labels that came with the embeddings; None for drawn ones."""
        return Task("real", self.classes, self.real) if self.classes else None

    def synthetic_task(self) -> Task:
        """Label 1 where the dot product of a pair is above 0, else 0.

        Raises WidthError where the two widths differ, DataError where all pairs of a split get the
        same label.
        """
        if len(set(self.widths)) > 1:
            raise WidthError("the dot product of text {} and vision {} wide".format(*self.widths))
        made: dict[Split, SplitPairs] = {}
        for split, part in self.real.items():
            pairs = zip(
                *(torch.split(each, ROWS) for each in (part.text, part.vision)), strict=True
            )
            dots = torch.cat([(text.double() * vision.double()).sum(1) for text, vision in pairs])
            made[split] = replace(part, labels=(dots > 0).long())
            if _one_label(made[split].labels):
                side = "above" if bool(made[split].labels[0]) else "not above"
                raise DataError(
                    f"synthetic task: every dot product of {split} is {side} 0, so there is one "
                    "class only; give --center, which takes each modality's training mean off"
                )
        return Task("synthetic", ("not above 0", "above 0"), made)

    def centred(self) -> "Embeddings":
        """The same, less each modality's mean over the training rows."""
        train = self.real["train"]
        text, vision = train.text.mean(0), train.vision.mean(0)
        return self._mapped(
            lambda part: replace(part, text=part.text - text, vision=part.vision - vision)
        )

    def projected(self, width: int, seed: int) -> "Embeddings":
        """The same, each modality on `width` orthonormal directions that are drawn from `seed`.

        A modality that is `width` wide already stays as it is. Raises WidthError for a modality
        that is narrower.
        """
        narrow = [
            f"{m} is {w} wide" for m, w in zip(ARRAYS[:2], self.widths, strict=True) if w < width
        ]
        if narrow:
            raise WidthError(" and ".join(narrow))
        rng = np.random.default_rng(seed)
        turns = [_directions(rng, each, width) for each in self.widths]
        return self._mapped(
            lambda part: replace(part, text=part.text @ turns[0], vision=part.vision @ turns[1])
        )

    def _mapped(self, change: Any) -> "Embeddings":
        return replace(self, real={split: change(part) for split, part in self.real.items()})


def _directions(rng: np.random.Generator, wide: int, width: int) -> Tensor:
    """(wide, width): orthonormal columns, uniformly drawn; the identity where nothing narrows."""
    drawn = rng.normal(size=(wide, width))
    if wide == width:
        return torch.eye(wide)
    q, r = np.linalg.qr(drawn)
    return torch.from_numpy((q * np.sign(np.diag(r))).astype(np.float32))


def drawn(width: int, counts: Mapping[Split, int], seed: int) -> Embeddings:
    """Pairs of independent Gaussian directions: unit vectors, no label of their own."""
    rng = np.random.default_rng(seed)

    def rows(count: int) -> Tensor:
        found = torch.empty(count, width)
        for part in torch.split(found, ROWS):  # never all of them in double precision
            made = rng.normal(size=tuple(part.shape))
            part.copy_(torch.from_numpy(made / np.linalg.norm(made, axis=1, keepdims=True)))
        return found

    real = {
        split: SplitPairs(rows(n), rows(n), torch.zeros(n, dtype=torch.int64))
        for split, n in counts.items()
    }
    return Embeddings(f"drawn pairs of unit vectors of width {width}", (), real)


def load_embeddings(file: Path, seed: int, least: int) -> Embeddings:
    """Embeddings from a file of numpy.savez: `text` (N, D1), `vision` (N, D2), `labels` (N,).

    An array `split` (N,) of train, valid and test divides the rows; without it `seed` does, 60 to
    20 to 20. `least` is how many training rows it takes. Pickled objects are never loaded. Raises
    DataError that names what is wrong in one line.
    """
    arrays = _read(file)
    text, vision = (_floats(file, name, arrays[name]) for name in ARRAYS[:2])
    if len(text) != len(vision):
        raise DataError(
            f"{file}: text has {len(text)} rows and vision {len(vision)}; give one row of each "
            "a pair"
        )
    classes, labels = _labels(file, arrays["labels"], len(text))
    rows = _rows(file, arrays.get("split"), len(text), seed)
    real = {
        split: SplitPairs(
            torch.from_numpy(text[at]), torch.from_numpy(vision[at]), torch.from_numpy(labels[at])
        )
        for split, at in rows.items()
    }
    check_rows(str(file), real, least)
    return Embeddings(file.name, classes, real)


def check_rows(name: str, real: Mapping[Split, SplitPairs], least: int) -> None:
    """Raises DataError for a split with too few rows, or training rows of one class."""
    train = len(real["train"])
    if train < least:
        raise DataError(
            f"{name}: {train} rows for training are fewer than the smallest training size of "
            f"{least}; give more rows"
        )
    for split in SPLITS:
        if not len(real[split]):
            raise DataError(f"{name}: no rows for {split}; give rows for train, valid and test")
    if _one_label(real["train"].labels):
        raise DataError(
            f"{name}: all {train} training rows have the same label; give rows of two classes "
            "or more"
        )


def _one_label(labels: Tensor) -> bool:
    return bool((labels == labels[0]).all())


def _read(file: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file by name; those that are needed, and `split` where there is one."""
    with open(file, "rb") as opened:
        begins_as_one = opened.read(4) == b"PK\x03\x04"
    if not begins_as_one or not zipfile.is_zipfile(file):
        raise DataError(f"{file}: not a .npz file; {HOW}")
    found: dict[str, NDArray[Any]] = {}
    name = ""
    try:
        with np.load(file, allow_pickle=False) as held:
            missing = [repr(name) for name in ARRAYS if name not in held.files]
            if missing:
                there = ", ".join(map(repr, held.files)) or "nothing"
                raise DataError(
                    f"{file}: no array {' nor '.join(missing)} (it holds {there}); {HOW}"
                )
            for name in (*ARRAYS, "split"):
                if name in held.files:
                    found[name] = held[name]
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{file}: {name} holds pickled objects, which are never loaded; save it as numbers "
                "or text, as with .astype(str)"
            ) from error
        raise DataError(
            f"{file}: {name or 'the file'} cannot be read, it is damaged; {HOW}"
        ) from error
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{file}: {name} is no array; {HOW}")
    return found


def _floats(file: Path, name: str, array: NDArray[Any]) -> Floats:
    """(N, D) in float32, every value finite."""
    if array.ndim != 2 or not array.shape[1]:
        raise DataError(
            f"{file}: {name} has the shape {array.shape}; give one row a pair: (rows, width)"
        )
    if array.dtype.kind not in "fiu":
        raise DataError(f"{file}: {name} is of type {array.dtype}; give real numbers")
    with np.errstate(over="ignore"):
        made = np.ascontiguousarray(array, dtype=np.float32)
    finite = np.isfinite(made).all(1)
    if not finite.all():
        raise DataError(
            f"{file}: {name} has NaN or infinite values in {(~finite).sum()} of {len(made)} rows, "
            f"the first in row {int(finite.argmin())} (from 0); leave these rows out of every array"
        )
    return made


def _labels(
    file: Path, array: NDArray[Any], rows: int
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The classes' names, sorted, and each row's class."""
    if array.shape != (rows,):
        raise DataError(
            f"{file}: labels has the shape {array.shape} and there are {rows} pairs; give one "
            f"label a pair: ({rows},)"
        )
    if array.dtype.kind not in "fiubU":
        raise DataError(f"{file}: labels is of type {array.dtype}; give whole numbers or text")
    if array.dtype.kind == "f":
        odd = ~(np.isfinite(array) & (array == np.round(array)))
        if odd.any():
            row = int(odd.argmax())
            raise DataError(
                f"{file}: labels has {array[row]} in row {row} (from 0), which is no class; give "
                "whole numbers or text"
            )
        array = array.astype(np.int64)
    names, labels = np.unique(array, return_inverse=True)
    if len(names) < 2:
        raise DataError(
            f"{file}: labels holds one class only ({names[0] if len(names) else 'none'}); give "
            "rows of two classes or more"
        )
    if len(names) > rows // 2:
        raise DataError(
            f"{file}: labels has {len(names)} different values in {rows} rows; give classes, each "
            "of several rows"
        )
    return tuple(str(name) for name in names), labels.astype(np.int64)


def _rows(
    file: Path, split: NDArray[Any] | None, count: int, seed: int
) -> dict[Split, NDArray[np.int64]]:
    """Which rows each split has."""
    if split is None:
        order = np.random.default_rng(seed).permutation(count)
        ends = [round(SHARES[0] * count), round(sum(SHARES) * count)]
        return dict(zip(SPLITS, map(np.sort, np.split(order, ends)), strict=True))
    if split.shape != (count,) or split.dtype.kind != "U":
        raise DataError(
            f"{file}: split has the shape {split.shape} and the type {split.dtype}; give text, "
            f"{', '.join(SPLITS)}, for each of the {count} pairs"
        )
    unknown = sorted(set(split.tolist()) - set(SPLITS))
    if unknown:
        raise DataError(f"{file}: split holds {_few(unknown)}; give {', '.join(SPLITS)} alone")
    return {name: np.flatnonzero(split == name) for name in SPLITS}


def _few(values: Sequence[str]) -> str:
    return ", ".join(map(repr, values[:3])) + (" and others" if len(values) > 3 else "")
