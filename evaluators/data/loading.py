"""A data folder to a DataSet: recognise the layout, check everything, decide on what is missing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from evaluators.data.errors import DataError, short
from evaluators.data.labels import Entry, Labels, read_labels
from evaluators.data.pictures import Picture, Pictures
from evaluators.data.samples import SPLITS, DataSet, Dropped, Kind, Missing, Sample
from evaluators.data.scenes import ceilings

FEW_PERCENT = 1
MARK = "rendered.json"
"""A folder with this file holds the rendered set, which never passes for a recorded one."""
RENDERED_NOTE = (
    "Rendered data, drawn from a seed in CMU-MOSI's layout and split sizes: "
    "these accuracies are not CMU-MOSI's."
)

Progress = Callable[[int, int], None]


def load(
    path: Path, *, cache: Path, missing: Missing = "few", progress: Progress | None = None
) -> DataSet:
    """Load CMU-MOSI in MMSA's layout, or an image+text folder: `path` or its `label.csv`.

    Clips are reduced to their middle frame, kept under `cache`; what is there already is not
    decoded again. `progress(done, total)` is called after each row. Rows without a usable picture
    are left out of every split and listed in `dropped`: with `missing="few"` up to 1 % of the
    rows, with "drop" any number, with "error" none.

    Raises DataError with every problem of the label file; with every row that lacks a picture
    where there are too many; where a split, or a class in train, would be left empty; and where
    the cache cannot be written. ValueError for an unknown `missing`.
    """
    if missing not in get_args(Missing):
        raise ValueError(f"missing={missing!r} is unknown; use {', '.join(get_args(Missing))}")
    root, file = _places(Path(path))
    labels = read_labels(_content(file), file.name, clips=_looks_like_clips(root))
    found, dropped = _pictures(root, labels, Path(cache), progress)
    _enforce(root, labels, dropped, missing)
    kept = [(entry, picture) for entry in labels.entries if (picture := found.get(entry.names))]
    samples = tuple(_sample(entry, picture) for entry, picture in kept)
    _nothing_emptied(root, labels.classes, samples, dropped)
    kind: Kind = "mosi" if labels.layout == "clips" else "folder"
    drawn = (root / MARK).is_file()
    return DataSet(
        name=root.name,
        kind="rendered" if drawn else kind,
        classes=labels.classes,
        samples=samples,
        note=RENDERED_NOTE if drawn else _note(labels, samples, dropped),
        fingerprint=_fingerprint(labels.classes, samples, [picture.key for _, picture in kept]),
        dropped=dropped,
        ceilings=ceilings() if drawn else None,
    )


def _places(path: Path) -> tuple[Path, Path]:
    """The absolute folder and its label file."""
    path = Path(os.path.abspath(path))
    if path.is_file():
        return path.parent, path
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder; give the folder that holds label.csv")
    if not (path / "label.csv").is_file():
        raise DataError(f"{path}: there is no label.csv in it; give the folder that holds one")
    return path, path / "label.csv"


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error}); mend its permissions") from error


def _looks_like_clips(root: Path) -> bool:
    return (root / "Raw").is_dir() or (root / "Frames").is_dir()


def _pictures(
    root: Path, labels: Labels, cache: Path, progress: Progress | None
) -> tuple[dict[tuple[str, ...], Picture], tuple[Dropped, ...]]:
    pictures = Pictures(root, labels.layout, Path(os.path.abspath(cache)))
    found: dict[tuple[str, ...], Picture] = {}
    dropped: list[Dropped] = []
    try:
        for done, entry in enumerate(labels.entries, 1):
            try:
                found[entry.names] = pictures.find(entry)
            except DataError as error:
                dropped.append(Dropped(entry.id, f"row {entry.row}: {error.heading}"))
            except OSError as error:
                raise DataError(
                    f"{cache}: the cache cannot be written ({error}); free space or use another"
                ) from error
            if progress is not None:
                progress(done, len(labels.entries))
    finally:
        pictures.save()
    return found, tuple(dropped)


def _enforce(root: Path, labels: Labels, dropped: Sequence[Dropped], missing: Missing) -> None:
    rows = len(labels.entries)
    allowed = {"few": rows * FEW_PERCENT // 100, "drop": rows - 1, "error": 0}[missing]
    if len(dropped) <= allowed:
        return
    what = "clip" if labels.layout == "clips" else "image"
    rule = f"at most {allowed:,} may lack one" if allowed else "none may lack one"
    folders = ("Raw", "Frames") if labels.layout == "clips" else ("images",)
    if not any((root / folder).is_dir() for folder in folders):
        rule += f"; there is no folder {' or '.join(folders)} in it"
    raise DataError(
        f"{root}: {len(dropped):,} of {rows:,} rows have no usable {what} ({rule})",
        [f"{item.id}: {item.why}" for item in dropped],
        "put the files there"
        if len(dropped) == rows
        else "put the files there, or leave those rows out with --missing drop",
    )


def _nothing_emptied(
    root: Path, classes: Sequence[str], samples: Sequence[Sample], dropped: Sequence[Dropped]
) -> None:
    """Raises DataError for a split without samples, or a class without training samples."""
    filled = {sample.split for sample in samples}
    trained = {sample.label for sample in samples if sample.split == "train"}
    empty = [split for split in SPLITS if split not in filled]
    lost = [short(name) for index, name in enumerate(classes) if index not in trained]
    if not empty and not lost:
        return
    of = "" if empty else f" of class {', '.join(lost)}"
    raise DataError(
        f"{root}: no usable sample{of} is left in {', '.join(empty) or 'train'}",
        [f"{item.id}: {item.why}" for item in dropped],
        "put those files there; what is empty cannot be trained or judged on",
    )


def _sample(entry: Entry, picture: Picture) -> Sample:
    return Sample(
        id=entry.id,
        group=entry.names[0],
        text=entry.text,
        label=entry.label,
        score=entry.score,
        split=entry.split,
        image=picture.path,
    )


def _note(labels: Labels, samples: Sequence[Sample], dropped: Sequence[Dropped]) -> str:
    if labels.layout == "clips":
        note = "One middle frame per clip; non-negative means a score of 0 or more"
    else:
        note = f"One image and one text per sample, {len(labels.classes)} classes"
    if dropped:
        rows = len(labels.entries)
        note += f"; {len(dropped):,} of {rows:,} rows left out for want of a usable picture"
    places: dict[str, set[str]] = {}
    for sample in samples:
        places.setdefault(sample.group, set()).add(sample.split)
    shared = sum(len(splits) > 1 for splits in places.values())
    if shared:
        videos = "video occurs" if shared == 1 else "videos occur"
        note += f"; {shared:,} {videos} in more than one split"
    return note + "."


def _fingerprint(classes: Sequence[str], samples: Sequence[Sample], keys: Sequence[str]) -> str:
    """SHA-256 over what a model could see or be judged by; file paths are not part of it."""
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for sample, key in zip(samples, keys, strict=True):
        row = [sample.id, sample.group, sample.text, sample.label, sample.score, sample.split, key]
        digest.update(b"\n" + json.dumps(row).encode())
    return digest.hexdigest()
