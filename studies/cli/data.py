"""What `fusion-nas data` does, once the command line has been read."""

from typing import Any

from rich.console import Console
from rich.table import Table

from evaluators.data import (
    BOTH,
    SPLITS,
    Checked,
    DataError,
    DataSet,
    Modality,
    check,
    data_set,
    most_frequent_share,
    summary,
)
from studies.config.home import home
from studies.config.options import DataOptions
from studies.report import terminal
from studies.results.text import clean

_OTHER_COLUMNS = 45
"""Width in characters of the columns other than classes, with their borders."""
EXAMPLES = 10
"""Faults of a kind that are printed where not all are asked for."""


def show_data(
    path: str,
    text_only: bool,
    sound: bool = False,
    everything: bool = False,
    named: tuple[Any, ...] = (),
) -> None:
    """Look through a data folder, or a built-in set, as a run would, and print what it holds.

    Args:
        path: the folder, its label file, or a built-in set.
        text_only: look for texts alone.
        sound: look for sounds too.
        everything: print every fault, not ten examples of each kind.
        named: modalities to look for, instead of text and vision.

    Raises:
        UsageError: where there is no such folder or modality.
        DataError: for data that a run would refuse.
    """
    options = DataOptions(path, text_only=text_only, modalities=named)
    modalities: tuple[Modality, ...] = options.read or BOTH
    if sound and "audio" not in modalities:
        modalities += ("audio",)
    cache = home(make=True) / "data"
    folder = options.folder(cache)
    if options.built_in is not None:
        options.built_in.draw(cache, modalities=modalities)
        folder = options.built_in.folder(cache)
    sought = [{"vision": "frames", "audio": "sounds"}[m] for m in modalities if m != "text"]
    console = terminal.open_console()
    with terminal.progress(console) as reporter:
        checked = check(
            folder,
            cache=cache,
            modalities=modalities,
            progress=lambda k, n: reporter.step(" and ".join(sought), k, n),
        )
    if checked.known:
        _say(console, f"found / {checked.known.name} as published; ! where they differ:")
        console.print(_beside_known(checked))
    odd = checked.known.odd if checked.known else {}
    _say_some(console, "repaired", list(checked.mended), everything)
    for dropped in checked.dropped:
        if dropped.id in odd:
            _say(console, f"left out of every copy: {dropped.id}: {dropped.why}")
    for kind in dict.fromkeys(fault.kind for fault in checked.faults):
        texts = [fault.text for fault in checked.faults if fault.kind == kind]
        _say_some(console, "fault", texts, everything)
    if checked.faults:
        raise DataError(
            f"{path}: the data fail the check: {summary(checked.faults)}; {checked.advice()}"
        )
    data = data_set(checked)
    for table in _as_used(data, console.width):
        console.print(table)
    _say(console, f"{data.note} The data pass the check.")


def _say(console: Console, text: str) -> None:
    console.print(clean(text), highlight=False, soft_wrap=True, markup=False)


def _say_some(console: Console, word: str, texts: list[str], everything: bool) -> None:
    """A line for each text, or for the first of them and how many there are more."""
    shown = texts if everything else texts[:EXAMPLES]
    for text in shown:
        _say(console, f"{word}: {text}")
    if len(shown) < len(texts):
        _say(console, f"and {len(texts) - len(shown):,} more of the kind: --all prints them")


def _beside_known(checked: Checked) -> Table:
    """What the label files hold, and what was published, split by split."""
    columns = list(dict.fromkeys(tally.what for tally in checked.tallies))
    table = Table("split", *columns)
    for split in SPLITS:
        cells = {
            tally.what: f"{tally.found:,}"
            + ("" if tally.known is None else f" / {tally.known:,}")
            + (" !" if tally.known not in (None, tally.found) else "")
            for tally in checked.tallies
            if tally.split == split
        }
        table.add_row(split, *(cells.get(column, "") for column in columns))
    return table


def _as_used(data: DataSet, width: int) -> list[Table]:
    """Samples, groups and majority of each split as a study would use them, and of each class.

    Classes are columns where they fit in `width`, else rows of a table of their own.
    """
    names = [clean(name) for name in data.classes]
    cells = {split: [f"{n:,}" for n in data.counts(split)] for split in SPLITS}
    wide = sum(max(len(name), len(cells["train"][k])) + 3 for k, name in enumerate(names))
    columns = wide + _OTHER_COLUMNS <= width
    table = Table("split", "samples", *(names if columns else ()), "groups", "majority %")
    if data.multi_label:
        table.columns[-1].header = "majority set %"
    table.title = clean(data.name)
    for split in SPLITS:
        total, share = len(data.split(split)), 100 * most_frequent_share(data.split(split))
        counts = cells[split] if columns else []
        table.add_row(split, f"{total:,}", *counts, f"{len(data.groups(split)):,}", f"{share:.1f}")
    if columns:
        return [table]
    by_class = Table("class", *SPLITS)
    for k, name in enumerate(names):
        by_class.add_row(name, *(cells[split][k] for split in SPLITS))
    return [table, by_class]
