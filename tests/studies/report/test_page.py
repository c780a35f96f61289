"""The page of a study: in a real browser where there is one, and as text."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browsing import Browser, Parsed, headless
from sample_outcome import (
    NOTE,
    SEEDED,
    empty,
    hostile,
    hostile_list,
    only_infeasible,
    sample,
    single,
)

from studies.report import front_plot, page
from studies.report import history_plots as plots
from studies.results.outcome import Outcome, Value

HOSTILE = """</script><script>window.hacked=1</script><img src=x onerror="hacked=1">'"&amp;%{x}"""
SPARSE = [empty, single, only_infeasible]


@pytest.fixture(scope="module")
def parsed() -> Parsed:
    return Parsed(page.render(sample()))


def test_every_complete_sample_is_told(parsed: Parsed) -> None:
    for words in (
        "dominated by trial",
        "points at",
        "on the front",
        "84.25 %, 21.6\N{NO-BREAK SPACE}ms",
        "scaled in proportion",
        "same design as trial 13",
        "over the latency limit of 24 ms",
        "the link to the device was lost",
        "is validation accuracy; test was evaluated once, at the end",
        "Two designs are compared by the paired interval of their difference",
        "non-zero 75.5",
        "Timing protocol",
        "The clock of the board was not locked",
        "52.4 % of validation, 51.7 % of test",
        "text alone 75.0 %",
    ):
        assert words in parsed.words, words
    assert parsed.words.count(NOTE) == 3  # near the top and beside both tables


def test_headings_are_in_order_and_tables_say_what_they_are(parsed: Parsed) -> None:
    levels = [int(tag[1]) for tag, _ in parsed.elements if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert parsed.count("table") == parsed.count("caption") > 2
    assert all("scope" in attrs for tag, attrs in parsed.elements if tag == "th")
    ids = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_without_test_figures_none_are_claimed() -> None:
    words = Parsed(page.render(sample(test=False, ceilings=False))).words
    assert "test has not been evaluated" in words
    assert "evaluated once" not in words and "best that these data allow" not in words


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (empty, "No trial has been run yet."),
        (single, "Only one trial is complete"),
        (only_infeasible, "There are 3 trials, and every one was infeasible"),
    ],
)
def test_a_study_with_little_to_show_says_so(make: Callable[[], Outcome], says: str) -> None:
    words = Parsed(page.render(make())).words
    assert says in words and NOTE in words
    assert "No importances: they compare complete trials" in words


def test_a_trial_whose_latency_is_not_stable_is_on_no_plot_and_says_why() -> None:
    outcome = sample()
    words = Parsed(page.render(outcome)).words
    (row,) = [row for row in outcome.rows if row.state == "unstable"]
    assert "1 unstable" in words and row.reason in words
    assert row.number not in [other.number for other in outcome.front]
    drawn = front_plot.front(outcome)
    assert drawn is not None and row.reason not in str(drawn)


@pytest.mark.parametrize("make", [hostile, hostile_list])
def test_nothing_from_outside_is_markup(make: Callable[[str], Outcome]) -> None:
    harmless, attacked = Parsed(page.render(make("x"))), Parsed(page.render(make(HOSTILE)))
    assert [tag for tag, _ in attacked.elements] == [tag for tag, _ in harmless.elements]
    names = [[*attrs] for _, attrs in harmless.elements]
    assert [[*attrs] for _, attrs in attacked.elements] == names
    assert HOSTILE in attacked.words


def test_the_data_of_plots_cannot_end_the_element_that_holds_them() -> None:
    _, _, rest = page.render(hostile(HOSTILE)).partition('id="plots">')
    data, _, _ = rest.partition("</script>")
    assert not set(data) & set("<>&'")
    labels = [label["text"] for plot in json.loads(data) for label in plot["labels"]]
    assert f"{SEEDED[0]} {HOSTILE}" in labels


def test_control_characters_and_broken_names_are_replaced() -> None:
    text = page.render(hostile("a\x1b[31m\udcff\0b"))
    text.encode()
    assert "\x1b" not in Parsed(text).words and "a�[31m��b" in Parsed(text).words


def test_axis_is_logarithmic_only_where_latencies_range_widely() -> None:
    def axis(outcome: Outcome) -> Any:
        plot = front_plot.front(outcome)
        assert plot
        return plot.figure.layout.xaxis

    assert axis(sample()).type == "log"
    rows = tuple(replace(row, latency=row.latency and Value(20.0)) for row in sample().rows)
    assert axis(replace(sample(), rows=rows, references=(), front=rows[:1])).type is None


def test_parallel_axes_are_few_and_leave_out_what_never_varies() -> None:
    base = sample()
    rows = tuple(replace(r, params={**r.params, "text_pooling": "cls"}) for r in base.rows)
    plot = plots.parallel(replace(base, rows=rows))
    assert plot
    labels = [dimension.label for dimension in plot.figure.data[0].dimensions]
    assert labels[:2] == ["text encoder", "text tap 1"]  # the most important ones
    assert labels[-2:] == ["latency, ms", "accuracy, %"]
    assert len(labels) <= plots.MAX_DIMENSIONS and "text pooling" not in labels


def test_choices_that_a_design_has_no_use_for_are_not_shown_as_made() -> None:
    base = sample()
    made = {"fusion_points": 1, "attention_blocks": 0, "operator_1": "gated"}
    dead = {"operator_2": "gated", "attention_over": "tokens"}
    rows = tuple(
        replace(r, params={**made, **dead, "operator_1": "tensor" if k % 2 else "gated"})
        for k, r in enumerate(base.rows)
    )
    plot = plots.parallel(replace(base, rows=rows))
    assert plot
    assert len(plot.figure.data[0].dimensions) == 3


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "new folder" / "page.html"
    page.write(empty(), target)
    before = target.read_text()

    def broken(outcome: Outcome) -> str:
        raise ValueError(outcome.study)

    monkeypatch.setattr(page, "render", broken)
    with pytest.raises(ValueError):
        page.write(sample(), target)
    assert target.read_text() == before
    assert list(target.parent.iterdir()) == [target]


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from headless()


LABELS = """return [...document.querySelectorAll('#plot-front .annotation-text-g')].map(e => {
  const b = e.getBoundingClientRect();
  return [e.textContent, b.left, b.top, b.right, b.bottom]; })"""
MARKS = """return [...document.querySelectorAll('#plot-front .point')].map(e => {
  const b = e.getBoundingClientRect();
  return ['mark', b.left + 2, b.top + 2, b.right - 2, b.bottom - 2]; })"""


def overlaps(a: list[Any], b: list[Any]) -> bool:
    return a[1] < b[3] and b[1] < a[3] and a[2] < b[4] and b[2] < a[4]


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (400, True)])
def test_page_opens_without_network_and_labels_are_legible(
    browser: Browser, tmp_path: Path, width: int, dark: bool
) -> None:
    browser.open(page.render(sample()), tmp_path, width, dark)
    assert browser.complaints() == []
    foreign = [u for u in browser.requested() if not u.startswith(("file:", "data:", "blob:"))]
    assert foreign == []
    labels, marks = browser.run(LABELS), browser.run(MARKS)
    assert marks
    written = {label[0] for label in labels}
    assert {*SEEDED, "text-only", "majority class 52.4 %", "limit 24 ms"} <= written
    found = [row.label for row in sample().front if not row.name]
    assert found and written.issuperset(found[-front_plot.MOST_LABELLED :])
    close = [(a[0], b[0]) for k, a in enumerate(labels) for b in labels[:k] if overlaps(a, b)]
    assert close == []
    hidden = {label[0] for label in labels for mark in marks if overlaps(label, mark)}
    assert hidden == set()
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.run("return document.querySelector('#plot-parallel .parcoords') !== null")
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")


def test_the_legend_names_what_the_plot_shows() -> None:
    words = "other complete trial"
    assert words in page.render(sample()) and words not in page.render(single())


def test_the_front_is_sketched_at_once_and_other_plots_wait_until_they_are_near(
    browser: Browser, tmp_path: Path
) -> None:
    browser.open(page.render(sample()), tmp_path, whole=False)
    browser.wait_until("return 'drawn' in document.getElementById('plot-front').dataset")
    front = "document.getElementById('plot-front')"
    assert browser.run(f"return Number({front}.dataset.sketched) > 0")
    assert browser.run(f"return {front}.querySelectorAll('canvas.sketch').length") == 0
    last = "document.getElementById('plot-parallel')"
    assert browser.run(f"return 'drawn' in {last}.dataset || {last}.clientHeight") == 440
    browser.run(f"{last}.scrollIntoView()")
    browser.wait_until(f"return 'drawn' in {last}.dataset")
    assert browser.complaints() == []


def test_plots_offer_no_way_to_send_the_data_away(browser: Browser, tmp_path: Path) -> None:
    browser.open(page.render(sample()), tmp_path)
    titles = "return [...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)"
    offered = set(browser.run(titles))
    assert offered == {"Download plot", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"}
    assert browser.run("return document.querySelectorAll('a[href^=http]').length") == 0


@pytest.mark.parametrize("make", [hostile, hostile_list])
def test_hostile_names_stay_words_in_the_browser(
    browser: Browser, tmp_path: Path, make: Callable[[str], Outcome]
) -> None:
    browser.open(page.render(make(HOSTILE)), tmp_path)
    assert browser.complaints() == []
    assert browser.run("return document.querySelectorAll('img').length") == 0
    assert browser.run("return window.hacked") is None
    assert f"{SEEDED[0]} {HOSTILE}" in {label[0] for label in browser.run(LABELS)}


@pytest.mark.parametrize("make", SPARSE)
def test_pages_with_little_to_show_open(
    browser: Browser, tmp_path: Path, make: Callable[[], Outcome]
) -> None:
    browser.open(page.render(make()), tmp_path)
    assert browser.complaints() == []


def test_a_page_on_a_full_disk_names_its_path_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from studies.report.document import write_whole

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left") as told:
        write_whole("page", tmp_path / "page.html")
    assert told.value.filename == str(tmp_path / "page.html")
    assert told.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())


def test_a_page_never_replaces_what_is_no_regular_file(tmp_path: Path) -> None:
    import os

    from studies.config.paths import check_page
    from studies.config.usage import UsageError

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "link"):
        with pytest.raises(UsageError, match="no regular file"):
            check_page(tmp_path / name)
