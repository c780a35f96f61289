"""A study on a terminal and as JSON: what is said, and that it fits."""

import io
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console
from sample_outcome import SEEDED, empty, hostile, only_infeasible, sample, single

from studies.report import terminal
from studies.report.json_output import as_json
from studies.report.tables import designs
from studies.results.outcome import DesignResult, Outcome, Standing, Value, Verdict
from studies.results.text import count, ms, overlap, standing


def shown(outcome: Outcome, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    terminal.show(outcome, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("make", [sample, empty, single, only_infeasible])
def test_no_line_is_longer_than_the_terminal(make: Callable[[], Outcome]) -> None:
    for width in (80, 100, 160):
        lines = shown(make(), width).splitlines()
        assert max(map(len, lines)) <= width
        assert all(line == line.rstrip() for line in lines)


def test_the_sample_is_told_with_figures_and_standings() -> None:
    said = " ".join(shown(sample()).split())
    for words in (
        "are not CMU-MOSI's and say nothing about it.",
        "24 trials: 19 complete, 3 infeasible, 1 unstable, 1 failed; 6 designs on the front.",
        "late-small-mobilenet 61.7 (55.4-68.0) 60.4 1.86 114 k",
        "late-small-mobilenet: on the front",
        "late-small-vit: dominated by trial 13: +12.7 points at 0.87x the latency",
        "text-only 74.5 (68.9-80.1) 73.5 6.40 576 k",
        "Majority class: 52.4 % of validation, 51.7 % of test.",
        "reference point 50.0 % at 24.0 ms",
        "test was evaluated once, at the end",
        "Two designs are compared by the paired interval of their difference",
        "neighbouring pairs overlap: their order is not settled",
        "- The clock of the board was not locked: latencies may drift by some percent.",
    ):
        assert words in said, words
    assert all(f"{name}: " in said for name in SEEDED)


def test_a_design_that_was_timed_again_is_listed_once() -> None:
    outcome = sample()
    late = next(row for row in outcome.rows if row.name == SEEDED[0])
    first = replace(late, number=-1, state="unstable", reason="the blocks are 31 % apart")
    again = replace(outcome, rows=(first, *outcome.rows))
    named = shown(again).partition("Named designs")[2].partition("References")[0]
    assert named == shown(outcome).partition("Named designs")[2].partition("References")[0]
    assert [row.number for row in (first, *outcome.rows) if row.name == late.name] == [-1, 0]
    table = designs(again, {})
    assert table is not None and table == designs(outcome, {})


def test_long_names_move_to_a_line_of_their_own() -> None:
    name = "intermediate-mobilenet_v2_1.4_224@66e1abc0d5b3"
    base = sample()
    front = (replace(base.front[0], name=name), *base.front[1:])
    lines = shown(replace(base, front=front)).splitlines()
    assert name in lines and max(map(len, lines)) <= 80


def test_markup_and_escape_sequences_are_only_words() -> None:
    said = shown(hostile("[bold]x[/] \x1b[31mred\udcff"))
    assert "[bold]x[/]" in said and "\x1b" not in said


@pytest.mark.parametrize(
    ("points", "slower", "words"),
    [
        (3.14, 1 / 0.7, "dominated by trial 12: +3.1 points at 0.70x the latency"),
        (0.0, 2.0, "dominated by trial 12: the same accuracy at 0.50x the latency"),
        (5.0, 1.0, "dominated by trial 12: +5.0 points at the same latency"),
    ],
)
def test_standing_in_words(points: float, slower: float, words: str) -> None:
    better = DesignResult(12, "complete", "d", accuracy=Value(80, 75, 85))
    row = DesignResult(3, "complete", "d", accuracy=Value(70, 65, 74))
    assert standing(Standing(row, False, better, points, slower)) == words
    near = replace(row, accuracy=Value(78, 73, 83))
    told = standing(Standing(near, False, better, points, slower))
    assert told == words + " (accuracy intervals overlap)"
    assert standing(Standing(replace(row, duplicate_of=1), True)).endswith("as trial 1)")


def test_a_design_behind_the_drawn_front_is_not_said_to_be_on_it() -> None:
    found = Verdict("on the front", "test", held_against=7)
    row = sample().rows[0]
    decided = "each of 7 others is significantly slower or less accurate"
    assert standing(Standing(row, True, verdict=found)) == f"on the front: {decided}"
    assert standing(Standing(row, False, verdict=found)) == (
        f"behind the front as drawn, but not dominated: {decided}"
    )


def test_numbers_in_words() -> None:
    assert [ms(v) for v in (0.0123, 0.0916, 0.1094, 0.1142, 0.9876)] == [
        "0.0123", "0.0916", "0.109", "0.114", "0.988",
    ]  # fmt: skip
    assert [ms(v) for v in (1.234, 12.34, 123.4)] == ["1.23", "12.3", "123"]
    assert [count(n) for n in (None, 12, 3_400, 1_200_000, 345_000_000)] == [
        "", "12", "3.4 k", "1.2 M", "345 M",
    ]  # fmt: skip
    assert overlap(Value(1, 0, 2), Value(3, 2, 4)) and not overlap(Value(1), Value(1, 0, 2))


def test_progress_in_a_pipe_is_one_line_a_trial() -> None:
    out = io.StringIO()
    now = [0.0]
    console = Console(file=out, width=80)
    with terminal.progress(console, clock_s=lambda: now[0]) as reporter:
        for trial in range(2):
            for done in range(100):
                reporter.step("train", done, 100)  # quick: not worth a line
            reporter.trial(trial + 1, 2, "71.2 %, [3.4] ms")
        for done in range(140):
            reporter.step("download", done, 140)
            now[0] += 1.0
        reporter.line("done " + "x" * 100)
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["[1/2] 71.2 %, [3.4] ms", "[2/2] 71.2 %, [3.4] ms"]
    assert lines[2:] == [
        "  download: 10 of 140, about 2 min left",
        "  download: 70 of 140, about 70 s left",
        "  download: 130 of 140, about 10 s left",
        "done " + "x" * 100,
    ]


def test_many_short_steps_in_a_pipe_take_a_line_a_minute() -> None:
    out, now = io.StringIO(), [0.0]
    with terminal.progress(Console(file=out, width=80), clock_s=lambda: now[0]) as reporter:
        for number in range(20):
            reporter.step(f"test of trial {number}", number, 20)
            now[0] += 9.0
            reporter.step("training", 0, 8)
    assert out.getvalue().splitlines() == [
        "  training: 0 of 8",
        "  training: 0 of 8",
    ]


def test_progress_on_a_terminal_leaves_only_what_was_to_stay() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, _environ={"TERM": "xterm"})
    with terminal.progress(console) as reporter:
        reporter.step("train", 3, 10)
        reporter.trial(1, 4, "71.2 %, 3.4 ms")
        reporter.step("measure", 0, 2)
        reporter.line("kept")
    assert "71.2 %" in out.getvalue() and "measure" in out.getvalue()
    assert "kept" in out.getvalue()


def test_the_time_left_is_estimated_from_the_trials_of_this_run() -> None:
    out, now = io.StringIO(), [0.0]
    with terminal.progress(Console(file=out, width=80), clock_s=lambda: now[0]) as reporter:
        reporter.trial(10, 20, "")
        now[0] += 100
        reporter.trial(11, 20, "71.2 %")
        now[0] += 8100
        reporter.trial(19, 20, "71.3 %")
        reporter.trial(20, 20, "71.4 %")
    assert out.getvalue().splitlines() == [
        "[11/20] 71.2 %; about 15 min left",
        "[19/20] 71.3 %; about 15 min left",
        "[20/20] 71.4 %",
    ]


@pytest.mark.parametrize("width", [40, 80])
def test_a_terminal_has_the_total_at_once_and_a_line_for_each_trial(width: int) -> None:
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=True, no_color=True, _environ={"TERM": "xterm"}
    )
    with terminal.progress(console) as reporter:
        reporter.trial(0, 24, "")
        reporter.step("trial 0: exporting and timing", 0, 1)
        time.sleep(0.3)
        assert "0/24" in out.getvalue()
        reporter.trial(1, 24, "71.2 %, 3.4 ms")
        reporter.trial(2, 24, "70.0 %, 2.1 ms")
    stays = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "[1/24] 71.2 %, 3.4 ms" in stays and "[2/24] 70.0 %, 2.1 ms" in stays
    assert "trial 0: exp" in stays


def test_quiet_is_silent() -> None:
    out = io.StringIO()
    for screen in (True, False):
        console = Console(file=out, force_terminal=screen)
        with terminal.progress(console, quiet=True) as reporter:
            reporter.trial(1, 2, "x")
            reporter.step("x", 1, 2)
            reporter.line("x")
    assert out.getvalue() == ""


@pytest.mark.parametrize("make", [sample, empty, single, only_infeasible])
def test_json_holds_everything_and_no_nan(make: Callable[[], Outcome]) -> None:
    outcome = make()
    nan = float("nan")
    outcome = replace(outcome, importances={**outcome.importances, "nothing": {"x": nan}})
    said = json.loads(json.dumps(as_json(outcome), allow_nan=False))
    assert len(said["trials"]) == len(outcome.rows)
    assert said["front"] == [row.number for row in outcome.front]
    assert said["importances"]["nothing"] == {"x": None}
    for trial, row in zip(said["trials"], outcome.rows, strict=True):
        assert trial["latency_ms"] == (row.latency and vars(row.latency))


def test_a_latency_limit_that_nothing_meets_is_told_with_the_designs_that_came_nearest() -> None:
    rejected = only_infeasible()
    timed = [
        replace(
            rejected.rows[0], number=k, name="", design=f"design {k}", latency=Value(90.0 - 10 * k)
        )
        for k in range(6)
    ]
    said = " ".join(shown(replace(rejected, rows=(*timed, timed[5]))).split())
    assert (
        "no front yet. Nearest to the latency limit of 24 ms: trial 5 at 40.0 ms, design 5; "
        "trial 4 at 50.0 ms, design 4; trial 3 at 60.0 ms, design 3."
    ) in said
