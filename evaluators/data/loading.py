"""A data folder to a DataSet, if it passes the check or is taken as it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from evaluators.data.checking import Checked, Progress, check
from evaluators.data.errors import DataError, short
from evaluators.data.faults import summary
from evaluators.data.generative import scenes
from evaluators.data.generative import statements as shape_statements
from evaluators.data.layouts.entries import Entry, Labels, Layout
from evaluators.data.layouts.finding import Found
from evaluators.data.samples import BOTH, SPLITS, DataSet, Dropped, Kind, Sample, class_counts
from search_space.modality import Modality

MARK = "rendered.json"
"""A folder with this file holds the faces set, which never passes for a recorded one."""
FACES_NOTE = (
    "Synthetic data, drawn from a seed with CMU-MOSI's layout and split sizes: "
    "these accuracies are not CMU-MOSI's."
)
SHAPES_MARK = "shapes.json"
"""The same for the shapes set."""
SHAPES_NOTE = (
    "Synthetic data, drawn from a seed: pictures of coloured shapes and statements about them, "
    "true or false; these accuracies say nothing about real data."
)
_WANTED: Mapping[Modality, str] = {"vision": "picture", "audio": "sound"}
_KINDS: dict[Layout, Kind] = {"clips": "mosi", "folder": "folder", "meld": "meld"}
_Drawn = tuple[Kind, str, Callable[[bool], Mapping[str, float]]]
_DRAWN: Mapping[str, _Drawn] = {
    MARK: ("faces", FACES_NOTE, scenes.ceilings),
    SHAPES_MARK: ("shapes", SHAPES_NOTE, lambda _: shape_statements.ceilings()),
}
"""Kind, note and ceilings (told whether sound is read) of a drawn set, by its mark."""


def load(
    path: Path,
    *,
    cache: Path,
    modalities: Collection[Modality] = BOTH,
    accept_faults: bool = False,
    progress: Progress | None = None,
) -> DataSet:
    """Load CMU-MOSI in MMSA's layout, MELD as published, or a folder of images with texts.

    `path` is the folder or its label file. Clips are reduced to their middle frame and, where
    `modalities` hold "audio", their sound, both kept under `cache`; what is there already is not
    decoded again. `progress(done, total)` is called after each row. Without "vision" no picture is
    looked for, and samples have none. A folder's label file may do without texts where "text" is
    not among the modalities.

    Data that fail the check are refused, with every fault in a line of its own: a row in another
    split than its video or picture, or than CMU-MOSI's standard folds, counts that are not those
    published, a row without a usable picture or sound. `accept_faults` takes them as they are: such
    rows are left out of every split (`dropped`), and the set says what is wrong (`faults`, `note`).

    Raises DataError for data with faults that are not accepted; with every problem of the label
    files, which are never accepted; where a split, or a class in train, would be left empty; and
    where the cache cannot be written. ValueError for unknown modalities.
    """
    checked = check(path, cache=cache, modalities=modalities, progress=progress)
    if checked.faults and not accept_faults:
        raise checked.refused()
    return data_set(checked)


def data_set(checked: Checked) -> DataSet:
    """The samples of checked data, faults or not.

    Raises DataError where a split, or a class in train, would be left empty.
    """
    labels, known = checked.labels, checked.known
    lost = {item.id for item in checked.dropped}
    kept = [entry for entry in labels.entries if entry.id not in lost]
    pictures = [checked.pictures.get(entry.id) for entry in kept]
    sounds = [checked.sounds.get(entry.id) for entry in kept]
    samples = tuple(map(_sample, kept, pictures, sounds))
    _nothing_emptied(checked.root, labels.classes, samples, checked.dropped)
    kind, note, ceilings = _KINDS[labels.layout], _note(checked), None
    for mark, drawn in _DRAWN.items():
        if (checked.root / mark).is_file():
            kind, note, ceilings = drawn[0], drawn[1], drawn[2]("audio" in checked.modalities)
    if checked.faults:
        note += f" The data fail the check and were used all the same: {summary(checked.faults)}."
    return DataSet(
        name=checked.root.name,
        kind=kind,
        classes=labels.classes,
        samples=samples,
        note=note,
        fingerprint=_fingerprint(checked, samples, pictures, sounds),
        modalities=checked.modalities,
        published=known.name if known else "",
        faults=checked.faults,
        dropped=checked.dropped,
        mended=checked.mended,
        ceilings=ceilings,
    )


def _nothing_emptied(
    root: Path, classes: Sequence[str], samples: Sequence[Sample], dropped: Sequence[Dropped]
) -> None:
    """Raises DataError for a split without samples, or a class without training samples."""
    filled = {sample.split for sample in samples}
    trained = class_counts([s for s in samples if s.split == "train"], len(classes))
    empty = [split for split in SPLITS if split not in filled]
    lost = [short(name) for name, count in zip(classes, trained, strict=True) if not count]
    if not empty and not lost:
        return
    of = "" if empty else f" of class {', '.join(lost)}"
    raise DataError(
        f"{root}: no usable sample{of} is left in {', '.join(empty) or 'train'}",
        [f"{item.id}: {item.why}" for item in dropped],
        "put those files there; an empty split cannot be trained or evaluated on",
    )


def _sample(entry: Entry, picture: Found | None, sound: Found | None) -> Sample:
    return Sample(
        id=entry.id,
        group=entry.group,
        text=entry.text,
        label=entry.label,
        score=entry.score,
        split=entry.split,
        image=picture.path if picture else None,
        sound=sound.path if sound else None,
        labels=entry.labels,
    )


def _note(checked: Checked) -> str:
    """What a reader must know of the data, in one sentence."""
    labels, read = checked.labels, checked.modalities
    note = _what_is_read(labels.layout, read)
    if labels.layout == "clips":
        note += "; non-negative means a score of 0 or more"
    else:
        note += " per sample" if labels.layout == "folder" else ""
        note += _how_many_classes(labels)
    if checked.dropped:
        rows = len(labels.entries)
        wanted = " or ".join(_WANTED[modality] for modality in read if modality in _WANTED)
        note += (
            f"; {len(checked.dropped):,} of {rows:,} rows left out for want of a usable {wanted}"
        )
    if "text" in read and len({entry.text for entry in labels.entries}) == 1:
        note += "; all texts are alike and say nothing of the class"
    odd = checked.known.odd if checked.known and read != ("text",) else {}
    for name in sorted({entry.id for entry in labels.entries} & odd.keys()):
        note += f"; {name}: {odd[name]}"
    return note + "."


def _how_many_classes(labels: Labels) -> str:
    sets = [entry.labels for entry in labels.entries if entry.labels is not None]
    if not sets:
        return f", {len(labels.classes)} classes"
    mean = sum(map(len, sets)) / len(sets)
    return (
        f", any number of {len(labels.classes)} classes each ({mean:.2f} on average); accuracy is "
        "subset accuracy, so a sample is right where all of its classes are"
    )


def _what_is_read(layout: Layout, read: Sequence[Modality]) -> str:
    if layout == "folder":
        if read == ("text",):
            return "Texts alone, no pictures"
        named = {"vision": "image", "audio": "sound", "text": "text"}
        parts = [f"one {named[m]}" for m in ("vision", "audio", "text") if m in read]
        listed = ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]
        return listed[0].upper() + listed[1:]
    if "audio" in read:
        sounds = (
            "One middle frame and the sound of each clip"
            if "vision" in read
            else "The sound of each clip, no pictures"
        )
        return sounds if "text" in read else f"{sounds}, no texts"
    if "vision" not in read:
        return "Texts alone, no pictures"
    return "One middle frame per clip" if "text" in read else "One middle frame per clip, no texts"


def _fingerprint(
    checked: Checked,
    samples: Sequence[Sample],
    pictures: Sequence[Found | None],
    sounds: Sequence[Found | None],
) -> str:
    """SHA-256 over what a model could see or be judged by; file paths are not part of it."""
    digest = hashlib.sha256(json.dumps(list(checked.labels.classes)).encode())
    if checked.modalities != BOTH or checked.faults:
        said = [list(checked.modalities), summary(checked.faults)]
        digest.update(b"\n" + json.dumps(said).encode())
    for sample, picture, sound in zip(samples, pictures, sounds, strict=True):
        label = sample.label if sample.labels is None else list(sample.labels)
        row = [sample.id, sample.group, sample.text, label, sample.score, sample.split]
        row.append(picture.key if picture else "")
        if sound:
            row.append(sound.key)
        digest.update(b"\n" + json.dumps(row).encode())
    return digest.hexdigest()
