"""What `fusion-nas clean` does: shows what lies in the home and removes what is not needed."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from evaluators.cached_files import SUFFIX
from search_space.redaction import redacted_url
from studies.config.home import home_path
from studies.config.usage import UsageError
from studies.infra.home.leftovers import remove
from studies.infra.home.lock import alone
from studies.infra.locations import default_url
from studies.infra.storage import quiet_optuna
from studies.report.progress import open_console
from studies.results.text import clean, counted, size
from studies.study.home_contents import SHOWN_AS, Content, contents_of
from studies.study.trained_weights import weights_in

DAY_S = 24 * 3600.0


def clean_home(storage: str | None, older_than: float | None, dry_run: bool, yes: bool) -> None:
    """Print what lies in the home; then remove what may go, once a person or `yes` agrees.

    `older_than` in days: caches that were last used before. Raises UsageError for a negative time,
    or where nobody can be asked; StorageError where another process uses the home.
    """
    if older_than is not None and not older_than >= 0:
        raise UsageError(f"--older-than {older_than:g}: give a number of days, 0 or more")
    folder, now = home_path(), time.time()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"FUSION_NAS_HOME {folder}: this is a file; name a folder")
    if not folder.is_dir():
        print(clean(f"{folder}: nothing there yet"))
        return
    before = None if older_than is None else now - older_than * DAY_S
    url = storage or default_url()
    quiet_optuna()
    contents = contents_of(folder, weights_in(url))
    _show(folder, url, contents, before, now)
    going = [each for each in contents if each.may_go(before)]
    if not going or dry_run:
        return
    with alone(folder):
        pass  # said before anybody is asked
    if not yes and not _agreed(going):
        print("Nothing was removed.")
        return
    agreed = {each.path for each in going}
    with alone(folder):
        # A run may have ended meanwhile, whose front needs what a beaten design left.
        contents = contents_of(folder, weights_in(url))
        going = [each for each in contents if each.path in agreed and each.may_go(before)]
        for each in going:
            remove_content(each)
    print(f"Removed {_told(going)}.")


def remove_content(content: Content) -> None:
    """Remove a file or folder of a home with its checksum and lock."""
    remove(content.path)
    for suffix in (SUFFIX, ".lock"):
        remove(content.path.with_name(content.path.name + suffix))


def _show(
    folder: Path, url: str, contents: Sequence[Content], before: float | None, now: float
) -> None:
    console = open_console()
    total = sum(each.bytes for each in contents)
    console.print(clean(f"{folder}: {size(total)}; studies of {redacted_url(url)}"), soft_wrap=True)
    grid = Table("kind", "study")
    for heading in ("files", "size", "days unused", "to remove"):
        grid.add_column(heading, justify="right")
    groups: dict[tuple[int, str], list[Content]] = {}
    for each in contents:
        groups.setdefault((SHOWN_AS.index(each.kind), each.of), []).append(each)
    for (kind, of), group in sorted(groups.items()):
        days = sorted(max(0, int((now - each.used) / DAY_S)) for each in group)
        going = [each for each in group if each.may_go(before)]
        grid.add_row(
            SHOWN_AS[kind],
            clean(of),
            f"{sum(each.files for each in group):,}",
            size(sum(each.bytes for each in group)),
            f"{days[0]}" if days[0] == days[-1] else f"{days[0]}–{days[-1]}",
            size(sum(each.bytes for each in going)) if going else "–",
        )
    console.print(grid)
    going = [each for each in contents if each.may_go(before)]
    if going:
        console.print(f"To remove: {_told(going)}. Removed caches are made again when needed.")
    else:
        console.print("Nothing to remove.")
    if before is None:
        console.print("--older-than DAYS also removes caches that were not used for so long.")


def _told(contents: Sequence[Content]) -> str:
    files = counted(sum(each.files for each in contents), "file")
    return f"{files}, {size(sum(each.bytes for each in contents))}"


def _agreed(going: Sequence[Content]) -> bool:
    """Raises UsageError where nobody can be asked."""
    if not sys.stdin.isatty():
        raise UsageError(
            "clean: this is not a terminal, so nothing can be confirmed; give --yes or --dry-run"
        )
    try:
        return input(f"Remove {_told(going)}? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
