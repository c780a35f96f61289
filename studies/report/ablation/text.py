"""How a fixed list's figures are put into words, alike on screen and page."""

from collections.abc import Iterator

from studies.results import text as result_text
from studies.results.ablation import (
    CELLS,
    DEPTH_ALONE,
    MERGING_ALONE,
    absent,
    accuracy_of,
    cell,
    difference_of,
    listed,
    split_of,
)
from studies.results.outcome import GridOutcome, GridPoint, Outcome


def place(outcome: Outcome, point: GridPoint) -> str:
    """`over tokens: 4`; in cells `late depth, early merging`."""
    assert outcome.grid is not None
    if outcome.grid.kind == CELLS:
        return cell(str(point.at), point.series)
    return f"{point.series}: {point.at}"


def told(outcome: Outcome) -> Iterator[str]:
    """One line a point: `over tokens: 4: 81.2 % (78.1-84.0), +1.2 points (..) to .., 3.21 ms`."""
    split = split_of(outcome)
    for point, row in listed(outcome):
        parts = [f"{result_text.percent(accuracy_of(row, split), '-')} %"]
        pair = difference_of(outcome, point)
        if pair is not None:
            note = "" if pair.significant else ", not significant"
            parts.append(f"{result_text.difference(pair)} to {point.against}{note}")
        parts.append(f"{result_text.milliseconds(row.latency, '-')} ms")
        yield f"{place(outcome, point)}: {'; '.join(parts)}"


def readings(outcome: Outcome) -> Iterator[str]:
    """How the list's figures are to be read, and what of them is significant."""
    assert outcome.grid is not None
    shown = "that on test" if split_of(outcome) == "test" else result_text.chosen_by(outcome)
    yield f"Accuracy is {shown}, with 95 % intervals."
    yield (
        "Latencies were read one after another: what the device did meanwhile is in no interval of "
        "a difference in ms."
    )
    missing = absent(outcome)
    if missing:
        yield (
            f"Not complete: {', '.join(missing)}. The same command tries again what failed or was "
            "not stable."
        )
    known = outcome.grid.paired
    if not known:
        yield (
            "No differences: it is not known yet which test samples the designs were right about. "
            "Where two intervals overlap, nothing is claimed."
        )
        return
    held = {(p.design, p.against) for p in outcome.grid.points} & known.keys()
    significant = sum(known[pair].significant for pair in held)
    yield (
        f"Differences are over the same {next(iter(known.values())).count} test samples; "
        f"{significant} of {len(held)} are significant at the 5 % level, after Holm's correction "
        f"for {len(known)} comparisons. Intervals are not corrected."
    )
    if outcome.grid.kind == CELLS:
        yield from _which(outcome.grid)


def _which(grid: GridOutcome) -> Iterator[str]:
    """The open question, as far as the data answer it."""
    base = cell("late", "late")
    asked = (
        ("Depth alone", DEPTH_ALONE, base),
        ("Merging alone", MERGING_ALONE, base),
        ("Depth alone against merging alone", DEPTH_ALONE, MERGING_ALONE),
    )
    for words, design, against in asked:
        pair = grid.paired.get((design, against))
        if pair is not None:
            said = result_text.difference(pair) + ("" if pair.significant else ", not significant")
            yield f"{words}: {said} ({design}; compared with {against})."
