"""The tables of `fusion-nas paper`, on a terminal of 80 columns and as JSON."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Table

from evaluators.evaluation import Evaluation
from evaluators.statistics.paired import Paired
from search_space.space.paper import SOURCE, SeededDesign
from studies.paper.accuracy import Line
from studies.paper.caveats import Caveat
from studies.paper.timing import Timed, published_ratio, rankings, ratio_to_late
from studies.report import json_output
from studies.results import text as result_text
from studies.results.outcome import Split, Value
from studies.results.text import clean

UNKNOWN = "-"


def latency_table(designs: Sequence[SeededDesign], tokens: Sequence[int], timed: Timed) -> Table:
    """A row a design: latency and ratio to the late design at each length, then the paper's."""
    table = _table(f"Latency of the designs of {SOURCE}")
    for heading in (*(f"{length} tokens\nms" for length in tokens), "paper\nms"):
        _number(table, heading)
        _number(table, "of\nlate")
    for seeded in designs:
        cells = [seeded.name]
        for length in tokens:
            cells.append(_milliseconds(timed[seeded.name, length]))
            cells.append(_share(ratio_to_late(seeded, designs, length, timed)))
        cells += [_plain(seeded.design.latency_ms), _share(published_ratio(seeded, designs))]
        table.add_row(*cells)
    return table


def latency_of(lines: Sequence[Line]) -> Table:
    """A row a design: its latency with interval and ratio to late, then the paper's."""
    table = _table(f"Latency of the designs of {SOURCE}")
    for heading in ("ms", "95 %", "of\nlate", "paper\nms", "of\nlate"):
        _number(table, heading)
    for line in lines:
        latency, unstable = line.row.latency, line.row.state == "unstable"
        figure = UNKNOWN if latency is None else result_text.ms(latency.value) + "?" * unstable
        table.add_row(
            clean(line.row.label),
            figure,
            _interval(latency, result_text.ms),
            _share(line.ratio),
            _plain(line.row.published_latency_ms),
            _share(line.published_ratio),
        )
    return table


def accuracy_of(lines: Sequence[Line], majority_percent: float | None, split: Split) -> Table:
    """A row a design, the majority class last: accuracy, and what it gains on late and on text."""
    table = _table("Accuracy, and the paired difference to late fusion and to text alone")
    for heading in (
        "paper\n%",
        f"{split}\n%",
        "95 %",
        "less late\npoints",
        "less text-only\npoints",
    ):
        _number(table, heading)
    for line in lines:
        accuracy = _accuracy(line, split)
        table.add_row(
            clean(line.row.label),
            _plain(line.row.published_accuracy),
            UNKNOWN if accuracy is None else f"{accuracy.value:.1f}",
            _interval(accuracy, "{:.1f}".format),
            _difference(line.to_late),
            _difference(line.to_text),
        )
    if majority_percent is not None:
        table.add_row("majority class", *(UNKNOWN, f"{majority_percent:.1f}"), *[UNKNOWN] * 3)
    return table


def verdict_lines(lines: Sequence[Line], majority_percent: float | None, split: Split) -> list[str]:
    """`late-vit: dominated by ...`, one for each design; the majority is that of the split."""
    return [
        f"{clean(line.row.label)}: {_verdict(line)}"
        + _beside_majority(_accuracy(line, split), majority_percent)
        for line in lines
    ]


def timed_json(
    designs: Sequence[SeededDesign], tokens: Sequence[int], timed: Timed
) -> dict[str, Any]:
    """The latency table as plain JSON values, and the stages fastest first."""
    rows = []
    for seeded in designs:
        for length in tokens:
            evaluation = timed[seeded.name, length]
            rows.append(
                {
                    "design": seeded.name,
                    "text_tokens": length,
                    "infeasible": evaluation.infeasible,
                    "unstable": evaluation.unstable,
                    "measures": {m.name: [m.value, m.low, m.high] for m in evaluation.measures},
                    "ratio_to_late": ratio_to_late(seeded, designs, length, timed),
                    "published_latency_ms": seeded.design.latency_ms,
                    "published_ratio_to_late": published_ratio(seeded, designs),
                }
            )
    fastest = [
        {"vision_encoder": vision, "text_tokens": length, "fastest_first": list(stages)}
        for (vision, length), stages in rankings(designs, tokens, timed).items()
    ]
    return {"rows": rows, "rankings": fastest}


def line_json(line: Line) -> dict[str, Any]:
    """One design of the table as plain JSON values."""
    return {
        **json_output.row_as_json(line.row),
        "ratio_to_late": line.ratio,
        "published_ratio_to_late": line.published_ratio,
        "points_to_late": json_output.paired_as_json(line.to_late),
        "points_to_text_only": json_output.paired_as_json(line.to_text),
        "verdict": json_output.verdict_as_json(line.verdict),
    }


def caveat_json(caveat: Caveat) -> dict[str, Any]:
    """A caveat with its figures."""
    return {"name": caveat.name, "text": caveat.text, **caveat.figures}


def ranking_lines(
    designs: Sequence[SeededDesign], tokens: Sequence[int], timed: Timed
) -> Iterable[str]:
    """`fastest first with MobileNet at 64 tokens: early, intermediate, late`."""
    for (vision, length), stages in rankings(designs, tokens, timed).items():
        yield f"fastest first with {clean(vision)} at {length} tokens: {', '.join(stages)}"


def _table(title: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 0, 0, 1),
        pad_edge=False,
    )
    table.add_column("design", overflow="fold")  # a name may take two lines, and is never cut
    return table


def _number(table: Table, heading: str) -> None:
    table.add_column(heading, justify="right", no_wrap=True)


def _milliseconds(evaluation: Evaluation) -> str:
    if evaluation.infeasible:
        return "infeasible"
    return f"{evaluation['latency_ms'].value:.1f}{'?' if evaluation.unstable else ''}"


def _share(ratio: float | None) -> str:
    return UNKNOWN if ratio is None else f"{ratio:.2f}"


def _plain(published: float | None) -> str:
    return UNKNOWN if published is None else f"{published:g}"


def _interval(value: Value | None, form: Any) -> str:
    if value is None or value.low is None or value.high is None:
        return UNKNOWN
    return f"{form(value.low)}–{form(value.high)}"


def _difference(points: Paired | None) -> str:
    """The difference, and its interval below it."""
    if points is None:
        return UNKNOWN
    return f"{points.points:+.1f}\n{points.low:+.1f} to {points.high:+.1f}"


def _verdict(line: Line) -> str:
    if line.verdict is not None:
        return result_text.verdict(line.verdict)
    if line.row.state == "complete":
        return "not decidable: the results by sample are not stored"
    return f"{line.row.state}: {clean(line.row.reason)}"


def _accuracy(line: Line, split: Split) -> Value | None:
    return line.row.test_accuracy if split == "test" else line.row.accuracy


def _beside_majority(accuracy: Value | None, majority_percent: float | None) -> str:
    if accuracy is None or accuracy.low is None or majority_percent is None:
        return ""
    if accuracy.low > majority_percent:
        return ""
    return "; its interval does not lie above the majority class"
