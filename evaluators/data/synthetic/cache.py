"""A drawn data set in the cache: made once, also by several processes, and read as any other."""

from __future__ import annotations

import csv
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from evaluators.cached_files import folder_faults, report, write_sums
from evaluators.data.errors import DataError
from evaluators.data.loading import load
from evaluators.data.samples import BOTH, DataSet
from search_space.locks import NamedLock
from search_space.modality import Modality


def drawn(
    folder: Path,
    mark: str,
    cache: Path,
    write: Callable[[Path], None],
    modalities: Collection[Modality] = BOTH,
    further: Callable[[], None] | None = None,
) -> DataSet:
    """The data set in `folder`, drawn first where the file `mark` is not in it yet.

    `write` fills an empty folder, the mark last; `further` then adds to the set what these
    modalities need. Raises DataError if files of the set were removed or damaged since, or if
    `cache` cannot be written.
    """
    made(folder, mark, write)
    if further is not None:
        further()
    try:
        return load(folder, cache=cache, modalities=modalities)
    except DataError as error:
        advice = f"remove the folder {folder} to have it drawn again"
        raise DataError(error.heading, error.problems, advice) from error


def made(folder: Path, mark: str, write: Callable[[Path], None]) -> None:
    """Has `folder` filled by `write` where the file `mark`, written last, is not in it yet.

    That happens under a file lock, in a temporary folder that is then renamed. A folder whose files
    are not as they were drawn is drawn again, with a line. Raises DataError where it cannot be
    written.
    """
    try:
        if not _is_whole(folder, mark):
            _make(folder, mark, write)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be drawn there ({error}); free space or use another cache"
        ) from error


def csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """A table as the bytes of a CSV file."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode()


def _is_whole(folder: Path, mark: str, quiet: bool = True) -> bool:
    if not (folder / mark).is_file():
        return False
    faults = folder_faults(folder)
    if faults is None:  # the same seed may give other bytes today, which a study would not know
        report(folder, "has no checksums, as an earlier version drew it", "used as it is")
        write_sums(folder)
    elif faults and not quiet:
        more = f" and {len(faults) - 1:,} more" if len(faults) > 1 else ""
        report(folder, f"is not as it was drawn ({faults[0]}{more})", "drawn again")
    return not faults


def _make(folder: Path, mark: str, write: Callable[[Path], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with NamedLock(f"{folder}.lock"):
        if _is_whole(folder, mark, quiet=False):
            return
        for left in folder.parent.glob(f".tmp-{folder.name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".tmp-{folder.name}-"))
        try:
            write(temporary)
            write_sums(temporary)
            if folder.is_dir():
                shutil.rmtree(folder)
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
