"""Where results go, looked at before anything takes long."""

import os
import tempfile
from pathlib import Path

from studies.config.usage import UsageError


def default_page(study: str) -> Path:
    """The page of a study where --page is left out."""
    return Path("runs") / f"{study.replace(os.sep, '-')}.html"


def check_page(page: Path) -> None:
    """Raises UsageError for a page that cannot be written."""
    if os.path.isdir(page):
        raise UsageError(f"--page {page}: this is a folder; name a file in it")
    if os.path.exists(page) and not os.path.isfile(page):
        raise UsageError(f"--page {page}: this is no regular file; name another file with --page")
    _check_file(page, f"--page {page}", "name another file with --page")


def check_table(file: Path) -> None:
    """Raises UsageError for a table of another kind, or one that cannot be written."""
    if file.suffix.lower() not in (".csv", ".parquet"):
        raise UsageError(f"--export {file}: give a file that ends in .csv or .parquet")
    if os.path.isdir(file):
        raise UsageError(f"--export {file}: this is a folder; name a file in it")
    _check_file(file, f"--export {file}", "name another file with --export")


def check_folder(out: Path) -> None:
    """Raises UsageError for a folder that cannot be made, or takes no files."""
    if os.path.exists(out) and not os.path.isdir(out):
        raise UsageError(f"--out {out}: this is a file; name a folder")
    _check_file(out / "file", f"--out {out}", "name another folder with --out")


def _check_file(file: Path, said: str, way_out: str) -> None:
    """Makes the file and the folders that are missing on its way in a scratch folder.

    Permissions alone do not tell: root has all of them in /proc, and a name may be too long.
    """
    file = file.absolute()
    try:
        folder = next(parent for parent in file.parents if parent.exists())
        with tempfile.TemporaryDirectory(prefix=".fusion-nas-", dir=folder) as scratch:
            tried = scratch / file.relative_to(folder)
            tried.parent.mkdir(parents=True, exist_ok=True)
            tried.touch()
    except OSError as error:
        raise UsageError(f"{said}: {error.strerror or error}; {way_out}") from error
