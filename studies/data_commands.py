"""What `fusion-nas data` does, once the command line has been read."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from evaluators.data import SPLITS, Checked, DataError, DataSet, Modality, check, data_set, summary
from studies import screen
from studies.settings import Settings, home
from studies.wording import clean


def show_data(path: str, text_only: bool) -> None:
    """Looks through a data folder, or a built-in set, as a run would; prints what it holds and
    each fault.

    Raises UsageError where there is no such folder, DataError for data that a run would refuse.
    """
    settings = Settings("check", "", 1, "tpe", 0, "auto", data=path)  # raises for no such data
    cache = home() / "data"
    folder = Path(path).expanduser()
    if settings.built_in is not None:
        settings.built_in.draw(cache)
        folder = settings.built_in.folder(cache)
    modalities: tuple[Modality, ...] = ("text",) if text_only else ("text", "vision")
    console = Console()
    with screen.progress(console) as reporter:
        checked = check(
            folder,
            cache=cache,
            modalities=modalities,
            progress=lambda k, n: reporter.step("frames", k, n),
        )
    if checked.known:
        _say(console, f"found / {checked.known.name} as published; ! where they differ:")
        console.print(_beside_known(checked))
    faulty = {fault.text for fault in checked.faults}
    for text in checked.mended:
        _say(console, f"mended: {text}")
    for dropped in checked.dropped:
        text = f"{dropped.id}: {dropped.why}"
        if text not in faulty:
            _say(console, f"left out of every copy: {text}")
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
