"""Designs on the page: drawn, with their figures, found by click, key and link."""

import csv
import gzip
import io
import json
import xml.etree.ElementTree as ElementTree
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browsing import Browser, Parsed, headless
from sample_outcome import empty, hostile, only_infeasible, sample, single

from search_space.design.genotype import FusionPoint, Genotype
from search_space.operators.definitions import FUSION_OPERATORS
from studies.report import page, themes
from studies.report.designs import analysis
from studies.report.designs.drawing import draw, svg
from studies.report.designs.files import write_table
from studies.report.designs.notation import OPERATOR_WORDS, notation
from studies.report.designs.payload import payload
from studies.results.outcome import Outcome

HOSTILE = """</script><script>window.hacked=1</script><img src=x onerror="hacked=1">'"&amp;%{x}"""
THREE = Genotype(
    "bert",
    "mobilenet",
    32,
    (
        FusionPoint(2, 4, "cross-attention", 32, 1),
        FusionPoint(6, 9, "sum", 16, 3),
        FusionPoint(12, 17, "concatenation", 24, 6),
    ),
    2,
    "pooled",
    "mean",
    "conv-max",
    "int8-dynamic",
    "wav",
    "attention",
)


def words_of(genotype: Genotype) -> list[str]:
    return [shape.text for shape in draw(genotype).shapes if shape.kind == "text"]


def data_of(outcome: Outcome) -> dict[str, Any]:
    _, _, rest = page.render(outcome).partition('id="data">')
    packed = json.loads(rest.partition("</script>")[0])
    found: dict[str, Any] = json.loads(gzip.decompress(b64decode(packed)))
    return found


def test_the_layer_0_of_a_modality_that_is_not_read_is_explained() -> None:
    silent = replace(THREE, audio_encoder=None, points=(FusionPoint(2, 4, "sum", 32),))
    assert "0x3" not in notation([THREE, silent])
    assert "0: not read" in notation([THREE, replace(THREE, text_encoder=None)])["0x3"]


def test_an_infeasible_design_without_an_encoder_has_a_page_and_no_drawing() -> None:
    nothing = replace(THREE, text_encoder=None, vision_encoder=None, audio_encoder=None)
    assert draw(nothing).shapes == ()
    outcome = sample()
    rows = tuple(replace(row, genotype=nothing) for row in outcome.rows)
    designs = data_of(replace(outcome, rows=rows))["designs"]
    assert all(height == 0 and shapes == [] for _, _, height, shapes, _ in designs[: len(rows)])


def test_a_drawing_names_everything_that_a_design_decides() -> None:
    words = words_of(THREE)
    for layer in (1, 2, 3, 4, 6, 9, 12, 17):
        assert f"layer {layer}" in words
    for said in ("bert", "mobilenet", "wav", "cross-attention", "sum", "concatenation"):
        assert said in words
    for said in (
        "attention",
        "mean",
        "conv-max",
        "attention ×2",
        "to width 24",
        "each to width 16",
    ):
        assert said in words
    assert "runs in int8-dynamic" in words and any("32 tokens" in said for said in words)


@pytest.mark.parametrize("genotype", [THREE, Genotype("bert", None, 16, (FusionPoint(3, 0),))])
def test_shapes_lie_inside_their_drawing(genotype: Genotype) -> None:
    drawing = draw(genotype)
    for shape in drawing.shapes:
        if shape.kind == "box":
            x, y, wide, high = shape.at
            assert x >= 0 and x + wide <= 420 and y >= 0 and y + high <= drawing.height


@pytest.mark.parametrize("theme", themes.THEMES)
def test_a_drawing_by_itself_is_well_formed_with_names_of_any_kind(theme: str) -> None:
    named = replace(THREE, text_encoder=HOSTILE)
    parsed = ElementTree.fromstring(themes.drawing(named, theme))
    assert parsed.tag.endswith("svg")
    assert not parsed.findall(".//{*}script") and not parsed.findall(".//{*}img")
    assert svg(draw(THREE)).count("<rect") == sum(s.kind == "box" for s in draw(THREE).shapes)


def test_every_trial_and_reference_is_in_the_page_with_its_figures() -> None:
    outcome = sample()
    found = payload(outcome, {})
    keys = [design[0] for design in found["designs"]]
    assert keys == [
        *(str(row.number) for row in outcome.rows),
        *(r.name for r in outcome.references),
    ]
    for (_, _, height, shapes, told), row in zip(found["designs"], outcome.rows, strict=False):
        assert height > 0 and shapes and max(shapes) < len(found["shapes"])
        terms = dict(zip(*[iter(found["words"][k] for k in told)] * 2, strict=True))
        assert terms["In words"] == row.design.replace("->", "→")
        if row.latency:
            assert "p95" in terms["Latency"]
        if row.state != "complete":
            assert row.reason in terms["State"]


def test_shapes_and_words_are_stored_once() -> None:
    found = payload(sample(trials=24), {})
    assert len({json.dumps(s) for s in found["shapes"]}) == len(found["shapes"])
    assert len(set(found["words"])) == len(found["words"])


def test_the_csv_of_the_page_has_every_trial() -> None:
    outcome = sample()
    rows = list(csv.DictReader(io.StringIO(data_of(outcome)["csv"])))
    assert len(rows) == len(outcome.rows) + len(outcome.references)
    complete = [row for row in outcome.rows if row.state == "complete" and row.accuracy]
    by_number = {row["number"]: row for row in rows}
    for row in complete:
        assert row.accuracy and float(by_number[str(row.number)]["accuracy"]) == row.accuracy.value


def test_designs_are_written_as_csv_and_parquet(tmp_path: Path) -> None:
    import pyarrow.parquet

    write_table(sample(), tmp_path / "designs.csv")
    write_table(sample(), tmp_path / "designs.parquet")
    rows = list(csv.DictReader((tmp_path / "designs.csv").open()))
    table = pyarrow.parquet.read_table(tmp_path / "designs.parquet")
    assert table.num_rows == len(rows) and table.column_names == list(rows[0])


def test_the_notation_explains_every_operator_that_is_used() -> None:
    assert set(OPERATOR_WORDS) == set(FUSION_OPERATORS)
    found = notation([THREE])
    assert {"cross-attention", "sum", "concatenation", "int8-dynamic"} <= set(found)
    assert "tensor" not in found and "fp16" not in found


def test_fewer_image_tokens_are_in_a_design_s_words_drawing_and_notation() -> None:
    fewer = replace(THREE, image_tokens=4)
    assert "4 image tokens" in fewer.describe() and "4 image tokens" in words_of(fewer)
    assert "16 image tokens" in notation([fewer])
    assert "image tokens" not in THREE.describe() + " ".join(words_of(THREE))
    assert "16 image tokens" not in notation([THREE])


def test_merging_of_tokens_is_in_the_notation() -> None:
    merging = replace(THREE, vision_encoder="vit-96px-merge4")
    assert "-merge8" in notation([merging]) and "-merge8" not in notation([THREE])


def test_a_rank_of_adapters_is_in_a_design_s_words_drawing_and_notation() -> None:
    adapted = replace(THREE, lora_rank=4)
    assert "LoRA rank 4" in adapted.describe() and "LoRA rank 4" in " ".join(words_of(adapted))
    assert "LoRA rank 8" in notation([adapted])
    assert "LoRA" not in THREE.describe() + " ".join(words_of(THREE))
    assert "LoRA rank 8" not in notation([THREE])


def test_near_misses_are_listed_with_what_they_miss() -> None:
    words = Parsed(page.render(sample())).words
    assert "Near misses" in words and "2 infeasible" not in words
    table = analysis.misses(sample())
    assert table and table.groups[0].title == "3 infeasible"
    first = table.groups[0].rows[0].cells[1]
    assert first.text == "33.9" and "+9.90" in first.notes


def test_a_large_study_lists_its_likeliest_designs_and_holds_all() -> None:
    outcome = sample(trials=450)
    text = page.render(outcome)
    assert "400 of 450 trials" in Parsed(text).words
    assert len(data_of(outcome)["designs"]) == 450 + len(outcome.references)


def test_the_command_that_repeats_a_study_is_on_its_page() -> None:
    command = "fusion-nas run --study pareto --trials 60"
    assert command in Parsed(page.render(replace(sample(), command=command))).words


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from headless()


OPEN = "return document.getElementById('design').open"
DRAWN = """const d = document.getElementById('design'); return [d.querySelector('h2').textContent,
  d.querySelectorAll('svg rect').length, d.querySelector('dl').textContent]"""
POINT = """const b = document.querySelector('#plot-front .point')
  .getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2]"""
CUT = """return [...document.querySelectorAll('main *, dialog *')].filter(e => {
  const b = e.getBoundingClientRect();
  return b.width && b.right > innerWidth + 1 && !e.closest('.scroll, svg'); }).length"""

SCROLLING = """return [...document.querySelectorAll('.scroll')].filter(
  e => e.querySelector('table') && e.scrollWidth > e.clientWidth + 1).map(e => e.ariaLabel)"""


def click(browser: Browser, x: float, y: float) -> None:
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
        browser.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)


def press(browser: Browser, key: str, code: int) -> None:
    text = {"text": "\r"} if key == "Enter" else {}
    for kind in ("keyDown", "keyUp"):
        event = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, **text}
        browser.driver.execute_cdp_cmd("Input.dispatchKeyEvent", event)


def test_a_click_on_a_mark_draws_its_design(browser: Browser, tmp_path: Path) -> None:
    browser.open(page.render(sample()), tmp_path)
    browser.run("document.getElementById('plot-front').scrollIntoView({block: 'center'})")
    assert browser.run(OPEN) is False
    click(browser, *browser.run(POINT))
    browser.wait_until(OPEN)
    label, boxes, told = browser.run(DRAWN)
    assert label and boxes > 3 and "Latency" in told
    press(browser, "ArrowRight", 39)
    browser.wait_until(f"return document.querySelector('#design h2').textContent !== {label!r}")
    press(browser, "Escape", 27)
    browser.wait_until("return !document.getElementById('design').open")
    assert browser.complaints() == []


def test_a_design_opens_by_key_and_by_link(browser: Browser, tmp_path: Path) -> None:
    browser.open(page.render(sample()), tmp_path)
    browser.run("document.querySelector('a[href=\"#design-0\"]').focus()")
    press(browser, "Enter", 13)
    browser.wait_until("return location.hash === '#design-0'")
    browser.wait_until(OPEN)
    browser.run("location.hash = '#design-20'")
    browser.wait_until("return document.querySelector('#design h2').textContent === 'trial 20'")
    browser.run("location.hash = '#design-%'")
    browser.wait_until("return !document.getElementById('design').open")
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_nothing_is_cut(browser: Browser, tmp_path: Path, width: int) -> None:
    browser.open(page.render(sample()), tmp_path, width)
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.run(CUT) == 0
    if width > 390:  # where tables are cards
        assert browser.run(SCROLLING) == []
    browser.run("location.hash = '#design-0'")
    browser.wait_until(OPEN)
    assert browser.run(CUT) == 0
    if width == 390:
        shown = "return getComputedStyle(document.querySelector('td')).display"
        assert browser.run(shown) == "grid"


def test_hostile_names_stay_words_in_a_drawing(browser: Browser, tmp_path: Path) -> None:
    browser.open(page.render(hostile(HOSTILE)), tmp_path)
    browser.run("location.hash = '#design-0'")
    browser.wait_until(OPEN)
    label, boxes, _ = browser.run(DRAWN)
    assert HOSTILE in label and boxes > 3
    assert browser.run("return window.hacked") is None
    assert browser.run("return document.querySelectorAll('img').length") == 0
    assert browser.complaints() == []


@pytest.mark.parametrize("make", [single, only_infeasible])
def test_a_small_study_draws_its_designs_too(browser: Browser, tmp_path: Path, make: Any) -> None:
    outcome = make()
    browser.open(page.render(outcome), tmp_path)
    browser.run(f"location.hash = '#design-{outcome.rows[0].number}'")
    browser.wait_until(OPEN)
    assert browser.run(DRAWN)[1] > 3
    assert browser.complaints() == []


def test_a_study_without_trials_has_no_dialog() -> None:
    assert 'id="design"' not in page.render(empty())
