"""A data folder looked through: rows, pictures, sounds, and everything that is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluators.data.errors import DataError
from evaluators.data.faults import Tally, label_faults, summary, tallied
from evaluators.data.files import FileIndex
from evaluators.data.layouts.entries import Entry, Labels
from evaluators.data.layouts.finding import Finder, Found, clip_folders
from evaluators.data.layouts.known import Known, known_data
from evaluators.data.layouts.sources import find_labels
from evaluators.data.media.pictures import Pictures
from evaluators.data.media.sounds import Sounds
from evaluators.data.samples import BOTH, SPLITS, Dropped, Fault, FaultKind
from search_space.modality import MODALITIES, Modality

Progress = Callable[[int, int], None]

_SOUGHT: Mapping[Modality, tuple[FaultKind, type[Finder], str]] = {
    "vision": ("picture", Pictures, "leave pictures out with --modality"),
    "audio": ("sound", Sounds, "leave sounds out with --modality"),
}
"""What is looked for in a modality: its name, who finds it, and the way out where it lacks."""


@dataclass(frozen=True)
class Checked:
    """What was found in a data folder.

    known: the published data set that it is a copy of. tallies: what its label files hold.
    pictures, sounds: by the id of a row. dropped: rows that lack a usable one of them. mended: kept
    frames and sounds that were damaged and have been made again, in words.
    """

    root: Path
    labels: Labels
    modalities: tuple[Modality, ...]
    known: Known | None
    tallies: tuple[Tally, ...]
    faults: tuple[Fault, ...]
    pictures: Mapping[str, Found] = field(default_factory=dict)
    sounds: Mapping[str, Found] = field(default_factory=dict)
    dropped: tuple[Dropped, ...] = ()
    mended: tuple[str, ...] = ()

    def refused(self) -> DataError:
        """The faults as an error that names each and says what to do."""
        rows = len(self.labels.entries)
        return DataError(
            f"{self.root}: the data fail the check: {summary(self.faults)} ({rows:,} rows in all)",
            [fault.text for fault in self.faults],
            self.advice(),
        )

    def advice(self) -> str:
        """What to do about the faults."""
        kinds = {fault.kind for fault in self.faults}
        lacking = [sought for sought in _SOUGHT.values() if sought[0] in kinds]
        out = " or ".join(way for _, _, way in lacking)
        lost = {item.id for item in self.dropped}
        left = {entry.split for entry in self.labels.entries if entry.id not in lost}
        if len(left) < len(SPLITS):  # nothing could be trained or judged on what is left
            places = [*clip_folders(self.labels.layout)]
            places += [finder.home(self.labels.layout) for _, finder, _ in lacking]
            absent = not any((self.root / place).is_dir() for place in places)
            hint = f"there is no folder {' or '.join(places)} in it; " if absent else ""
            return f"{hint}put the files there, or {out}"
        rows = f" (rows without a {' or '.join(kind for kind, _, _ in lacking)} are then left out)"
        return (
            f"correct them{f', {out},' if lacking else ''} or take the data as they are with "
            f"--accept-faults{rows if lacking else ''}: every result then says what is wrong"
        )


def check(
    path: Path,
    *,
    cache: Path,
    modalities: Collection[Modality] = BOTH,
    progress: Progress | None = None,
) -> Checked:
    """Look through a data folder as `load` does; faults are found, not raised.

    Raises DataError with every problem of the label files, and where the cache cannot be written;
    ValueError for unknown modalities.
    """
    read = tuple(modality for modality in MODALITIES if modality in modalities)
    if not read or set(modalities) - set(MODALITIES):
        raise ValueError(f"modalities {tuple(modalities)!r}: give some of {', '.join(MODALITIES)}")
    root, labels = find_labels(Path(path))
    if "text" in read and not labels.has_texts:
        raise DataError(
            f"{root}: the label file has no column text; add one, or name what is to be read, "
            "such as --modality vision --modality audio"
        )
    known = known_data(labels.layout, labels.entries)
    tallies = tallied(labels.entries, known)
    faults = label_faults(labels.entries, known, tallies)
    cache = Path(os.path.abspath(cache))
    index = FileIndex(cache, root)
    finders = {
        modality: finder(root, labels.layout, cache, index)
        for modality, (_, finder, _) in _SOUGHT.items()
        if modality in read
    }
    try:
        found, lacks = _find(finders, labels.entries, cache, progress)
    finally:
        index.save()
    return Checked(
        root=root,
        labels=labels,
        modalities=read,
        known=known,
        tallies=tallies,
        faults=faults + _lack_faults(lacks, known),
        pictures=found.get("vision", {}),
        sounds=found.get("audio", {}),
        dropped=tuple(
            Dropped(name, "; ".join(dict.fromkeys(reasons.values())))
            for name, reasons in lacks.items()
        ),
        mended=tuple(text for finder in finders.values() for text in _mended(finder)),
    )


def _mended(finder: Finder) -> list[str]:
    """What a finder has made again, in words."""
    found = list(finder.mended)
    if finder.unverified:
        found.append(
            f"{finder.unverified:,} cached {finder.kind}s of an earlier version have no checksum "
            "and have been made again"
        )
    return found


_Lacks = Mapping[str, Mapping[Modality, str]]
"""Of each row, by its id, that lacks something: why, by modality."""


def _find(
    finders: Mapping[Modality, Finder],
    entries: Sequence[Entry],
    cache: Path,
    progress: Progress | None,
) -> tuple[dict[Modality, dict[str, Found]], _Lacks]:
    found: dict[Modality, dict[str, Found]] = {modality: {} for modality in finders}
    lacks: dict[str, dict[Modality, str]] = {}
    for done, entry in enumerate(entries if finders else (), 1):
        for modality, finder in finders.items():
            try:
                found[modality][entry.id] = finder.find(entry)
            except DataError as error:
                why = f"{entry.where}: {error.heading}"
                lacks.setdefault(entry.id, {})[modality] = why
            except OSError as error:
                raise DataError(
                    f"{cache}: the cache cannot be written ({error}); free space or use another"
                ) from error
        if progress is not None:
            progress(done, len(entries))
    return found, lacks


def _lack_faults(lacks: _Lacks, known: Known | None) -> tuple[Fault, ...]:
    """A fault for each row without a picture or sound, but for those that nobody's copy has."""
    odd = known.odd if known else {}
    return tuple(
        Fault(_SOUGHT[modality][0], f"{name}: {why}")
        for name, reasons in lacks.items()
        for modality, why in reasons.items()
        if name not in odd
    )
