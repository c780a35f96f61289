"""A data folder looked through: its rows, its pictures, and everything that is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluators.data.entries import Entry, Labels
from evaluators.data.errors import DataError
from evaluators.data.faults import Tally, label_faults, summary, tallied
from evaluators.data.known import Known, known_data
from evaluators.data.pictures import Picture, Pictures, folders
from evaluators.data.samples import SPLITS, Dropped, Fault, Modality
from evaluators.data.sources import find_labels

BOTH: tuple[Modality, ...] = ("text", "vision")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Checked:
    """What was found in a data folder.

    known: the published data set that it is a copy of. tallies: what its label files hold.
    pictures: by the id of a row. dropped: rows without a usable picture. mended: kept frames that
    were damaged and have been made again, in words.
    """

    root: Path
    labels: Labels
    modalities: tuple[Modality, ...]
    known: Known | None
    tallies: tuple[Tally, ...]
    faults: tuple[Fault, ...]
    pictures: Mapping[str, Picture]
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
        texts = "use the texts alone with --text-only"
        lost = {item.id for item in self.dropped}
        left = {entry.split for entry in self.labels.entries if entry.id not in lost}
        if len(left) < len(SPLITS):  # nothing could be trained or judged on what is left
            places = folders(self.labels.layout)
            absent = not any((self.root / place).is_dir() for place in places)
            hint = f"there is no folder {' or '.join(places)} in it; " if absent else ""
            return f"{hint}put the files there, or {texts}"
        out = " (rows without a picture are then left out)" if lost else ""
        return (
            f"mend them{f', {texts},' if lost else ''} or take the data as they are with "
            f"--accept-faults{out}: every result then says what is wrong"
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
    read = tuple(modality for modality in BOTH if modality in modalities)
    if not read or set(modalities) - set(BOTH):
        raise ValueError(f"modalities {tuple(modalities)!r}: give some of {', '.join(BOTH)}")
    root, labels = find_labels(Path(path))
    known = known_data(labels.layout, labels.entries)
    tallies = tallied(labels.entries, known)
    faults = label_faults(labels.entries, known, tallies)
    if "vision" not in read:
        return Checked(root, labels, read, known, tallies, faults, {})
    pictures = Pictures(root, labels.layout, Path(os.path.abspath(cache)))
    found, dropped = _find(pictures, labels.entries, Path(cache), progress)
    faults += _picture_faults(dropped, known)
    mended = tuple(pictures.mended)
    return Checked(root, labels, read, known, tallies, faults, found, dropped, mended)


def _find(
    pictures: Pictures, entries: Sequence[Entry], cache: Path, progress: Progress | None
) -> tuple[dict[str, Picture], tuple[Dropped, ...]]:
    found: dict[str, Picture] = {}
    dropped: list[Dropped] = []
    try:
        for done, entry in enumerate(entries, 1):
            try:
                found[entry.id] = pictures.find(entry)
            except DataError as error:
                dropped.append(Dropped(entry.id, f"{entry.where}: {error.heading}"))
            except OSError as error:
                raise DataError(
                    f"{cache}: the cache cannot be written ({error}); free space or use another"
                ) from error
            if progress is not None:
                progress(done, len(entries))
    finally:
        pictures.save()
    return found, tuple(dropped)


def _picture_faults(dropped: Sequence[Dropped], known: Known | None) -> tuple[Fault, ...]:
    """A fault for each row without a picture, but for those that nobody's copy has."""
    odd = known.odd if known else {}
    return tuple(
        Fault("picture", f"{item.id}: {item.why}") for item in dropped if item.id not in odd
    )
