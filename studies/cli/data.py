"""What `fusion-nas data` does, once the command line has been read."""

from pathlib import Path

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
    summary,
)
from studies.config.home import home
from studies.config.options import DataOptions
from studies.report import terminal
from studies.results.text import clean


def show_data(path: str, text_only: bool, sound: bool = False) -> None:
    """Looks through a data folder, or a built-in set, as a run would, with `sound` for its sounds
    too; prints what it holds and each fault.

    Raises UsageError where there is no such folder, DataError for data that a run would refuse.
    """
    options = DataOptions(path)  # raises for no such data
    modalities: tuple[Modality, ...] = ("text",) if text_only else BOTH
    if sound:
        modalities += ("audio",)
    cache = home() / "data"
    folder = Path(path).expanduser()
    if options.built_in is not None:
        options.built_in.draw(cache, modalities=modalities)
        folder = options.built_in.folder(cache)
    sought = [*([] if text_only else ["frames"]), *(["sounds"] if sound else [])]
    console = Console()
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
    for text in checked.mended:
        _say(console, f"mended: {text}")
    for dropped in checked.dropped:
        if dropped.id in odd:
            _say(console, f"left out of every copy: {dropped.id}: {dropped.why}")
    for fault in checked.faults:
        _say(console, f"fault: {fault.text}")
    if checked.faults:
        raise DataError(
            f"{path}: the data fail the check: {summary(checked.faults)}; {checked.advice()}"
        )
    data = data_set(checked)
    console.print(_as_used(data))
    _say(console, f"{data.note} The data pass the check.")


def _say(console: Console, text: str) -> None:
    console.print(clean(text), highlight=False, soft_wrap=True, markup=False)


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


def _as_used(data: DataSet) -> Table:
    """Samples, classes, groups and majority of each split as a study would use them."""
    table = Table("split", "samples", *data.classes, "groups", "majority %", title=data.name)
    for split in SPLITS:
        counts = [str(n) for n in data.counts(split)]
        total, share = len(data.split(split)), 100 * data.majority(split)[1]
        table.add_row(split, str(total), *counts, str(len(data.groups(split))), f"{share:.1f}")
    return table
