"""Studies of a fixed list: which designs they hold, how they run, and what they show."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from browsing import Browser, Parsed, headless
from listed import listed_outcome
from rich.console import Console
from tiny import SPACE, Bench, Place, new_place, tiny_space

from evaluators.latency.evaluator import MeasureError
from search_space.space.named import SpaceError, load_space
from search_space.space.paper import seeded_designs
from search_space.space.space import SearchSpace
from studies.ablations.designs import grid_in, grid_on, kinds
from studies.cli.app import app
from studies.config.settings import load_settings, preset_names
from studies.config.usage import UsageError
from studies.infra.workers import Workers
from studies.report import page, terminal
from studies.report.ablation import plots as ablation_plots
from studies.report.json_output import as_json
from studies.results.ablation import DEPTH_ALONE, MERGING_ALONE, TRIMODAL
from studies.results.trial_record import TrialRecord
from studies.search.trial_runner import SearchStopped

SMALL = Path(__file__).parents[2] / "support" / "small_space.toml"


@cache
def space_of(name: str, kind: str = "") -> SearchSpace:
    """A space by name; for the list of three modalities with an encoder of sound beside its own."""
    space = load_space(str(SMALL) if name == "small" else name, weights="random")
    if kind != TRIMODAL:
        return space
    heard = load_space("trimodal")
    (sound,) = heard.audio_encoders
    encoders = (*space.encoders, heard.encoder(sound))
    return replace(space, encoders=encoders, shapes={**space.shapes, sound: heard.shapes[sound]})


@pytest.mark.parametrize("name", ["demo", "small", "paper"])
@pytest.mark.parametrize("kind", kinds())
def test_every_design_of_every_list_can_be_built_and_asked_for(kind: str, name: str) -> None:
    space, grid = grid_in(kind, space_of(name, kind))
    names = [design.name for design in grid.designs]
    assert len(set(names)) == len({d.genotype.key for d in grid.designs}) == len(names) > 1
    for design in grid.designs:
        assert space.violations(design.genotype) == ()
        assert space.decode(space.encode(design.genotype)) == design.genotype
    for point in grid.points:
        assert point.design in names and point.against in ("", *names)
        assert point.design != point.against


def test_the_lists_at_full_size_hold_the_papers_own_designs_and_as_many_as_they_say() -> None:
    space = space_of("paper")
    sizes = {kind: len(grid_on(kind, space_of("paper", kind)).designs) for kind in kinds()}
    assert sizes == {
        "ablation-attention": 9,
        "stage-sweep": 24,
        "tokens": 12,
        "depth-or-merge": 9,
        "tap-marginals": 27,
        "stages": 6,
        "trimodal": 12,
    }
    own = {s.name: s.genotype for s in seeded_designs(space)}
    late, early = own["late-mobilenetv2"], own["early-mobilenetv2"]
    expected = {
        ("ablation-attention", "4 blocks over the vector"): early,
        ("stage-sweep", "mobilenet_v2_1.4_224 12x16"): late,
        ("stage-sweep", "vit-base-patch16-224 12x12"): own["late-vit"],
        ("tokens", "late at 512 tokens"): late,
        ("tokens", "early at 512 tokens"): early,
        ("depth-or-merge", "late depth, late merging"): late,
        ("depth-or-merge", "early depth, early merging"): early,
        ("depth-or-merge", "intermediate depth, intermediate merging"): own[
            "intermediate-mobilenetv2"
        ],
        ("tap-marginals", "both in full"): late,
    }
    for (kind, name), genotype in expected.items():
        found = {d.name: d.genotype for d in grid_on(kind, space).designs}
        assert found[name] == genotype, (kind, name)


def test_depth_and_merging_change_one_at_a_time() -> None:
    grid = grid_on("depth-or-merge", space_of("paper"))
    cells = {d.name: d.genotype for d in grid.designs}
    for merging in ("late", "intermediate", "early"):
        same = [cells[f"{depth} depth, {merging} merging"] for depth in ("late", "early")]
        assert len({(len(g.points), g.attention_blocks, g.vision_pooling) for g in same}) == 1
    for depth, ends in (("late", (12, 16)), ("intermediate", (8, 8)), ("early", (6, 6))):
        for merging in ("late", "intermediate", "early"):
            g = cells[f"{depth} depth, {merging} merging"]
            assert (g.deepest_tap("text"), g.deepest_tap("vision")) == ends
    taps = [(p.text_tap, p.vision_tap) for p in cells["late depth, intermediate merging"].points]
    assert taps == [(6, 8), (10, 14), (12, 16)]


def test_what_the_space_does_not_offer_widens_it_and_is_named() -> None:
    space, grid = grid_in("ablation-attention", space_of("demo"))
    assert space.attention_blocks == (0, 8)
    assert "The search space was widened for this study by attention blocks 5, 6, 7, 8." in (
        grid.notes
    )
    space, grid = grid_in("tokens", space_of("demo"))
    assert space.text_tokens == (16, 24, 32, 64)
    assert "128, 256, 512 tokens are left out: small-bert takes at most 64" in grid.notes


def test_a_list_of_designs_with_all_image_tokens_widens_a_space_of_fewer() -> None:
    fewer = replace(space_of("demo"), image_tokens=(1, 4))
    space, _ = grid_in("ablation-attention", fewer)
    assert space.image_tokens == (0, 1, 4)
    assert grid_in("ablation-attention", space_of("demo"))[0].image_tokens == ()


def test_a_list_of_designs_without_adapters_widens_a_space_of_ranks() -> None:
    space, _ = grid_in("ablation-attention", replace(space_of("demo"), lora_ranks=(4,)))
    assert space.lora_ranks == (0, 4)
    assert grid_in("ablation-attention", space_of("demo"))[0].lora_ranks == ()


def test_what_cannot_be_built_is_left_out_and_named(tmp_path: Path) -> None:
    uneven = tiny_space(tmp_path, SPACE.replace("hidden_size = 16", "hidden_size = 18", 1))
    grid = grid_on("ablation-attention", uneven)
    assert [design.name for design in grid.designs] == ["no blocks"]
    assert [n for n in grid.notes if n.startswith("8 blocks over tokens is left out: ")]
    assert {point.against for point in grid.points} == {""}


def test_a_space_of_one_modality_is_refused() -> None:
    space = space_of("demo")
    texts = replace(space, encoders=tuple(e for e in space.encoders if e.modality == "text"))
    with pytest.raises(SpaceError, match=r"no vision encoder.*--vision-encoder"):
        grid_in("tokens", texts)


def test_a_list_runs_in_the_first_precision_asked_for() -> None:
    space = replace(space_of("demo"), precisions=("int8-dynamic", "fp32"))
    grid = grid_on("tap-marginals", space)
    assert {design.genotype.precision for design in grid.designs} == {"int8-dynamic"}
    assert "All run in int8-dynamic; --precision names another." in grid.notes


# The preset


def test_every_list_has_a_preset_that_says_what_it_compares() -> None:
    assert set(kinds()) < set(preset_names())
    for kind in kinds():
        settings = load_settings(kind)
        assert (
            settings.preset.grid == kind
            and settings.search.trials is None
            and len(settings.preset.about) > 100
        )


@pytest.mark.parametrize("flag", ["sampler", "seed_paper"])
def test_flags_of_a_search_are_refused_for_a_list(flag: str) -> None:
    with pytest.raises(UsageError, match=f"--{flag.replace('_', '-')}: .* fixed list of designs"):
        load_settings("tokens", {flag: "tpe"})


def test_a_preset_of_an_unknown_list_names_those_there_are(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('title = "t"\nabout = "a"\ngrid = "depths"\nseed = 0\ntrunks = "auto"\n')
    with pytest.raises(UsageError, match="grid 'depths': choose one of ablation-attention"):
        load_settings(str(file))


# The run


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "bench", grid="depth-or-merge")


def names(bench: Bench) -> list[str]:
    return [TrialRecord.of(trial).name for trial in bench.trials if trial.state.is_finished()]


def test_a_list_is_tried_in_order_once_and_nothing_is_drawn_beside_it(bench: Bench) -> None:
    wanted = [design.name for design in bench.listed]
    bench.search.seed(bench.listed)
    bench.search.run(2)
    assert names(bench) == wanted[:2]
    total = len(wanted)
    assert bench.told.lines[-1].endswith(f"listed designs still wait: --trials {total} or more")
    for _ in range(2):
        bench.search.seed(bench.listed)
        bench.search.run(total + 5)
    assert names(bench) == wanted
    keys = [TrialRecord.of(trial).result.key for trial in bench.trials]
    assert keys == [design.genotype.key for design in bench.listed]


def test_a_design_whose_reading_was_unstable_is_timed_again_by_the_same_command(
    bench: Bench,
) -> None:
    bench.latency.unstable = lambda genotype: "31 % apart" if len(genotype.points) == 1 else ""
    for _ in range(2):
        bench.search.seed(bench.listed)
        bench.search.run(len(bench.listed))
        bench.latency.unstable = lambda genotype: ""
    complete = [TrialRecord.of(t).name for t in bench.trials if t.state.name == "COMPLETE"]
    assert sorted(complete) == sorted(design.name for design in bench.listed)


def test_a_design_that_failed_is_tried_again_by_the_same_command(bench: Bench) -> None:
    bench.latency.fails = lambda: MeasureError("the board is hot")
    bench.search.seed(bench.listed)
    with pytest.raises(SearchStopped):
        bench.search.run(len(bench.listed))
    bench.latency.fails = lambda: None
    bench.search.seed(bench.listed)
    bench.search.run(len(bench.listed))
    complete = [TrialRecord.of(t).name for t in bench.trials if t.state.name == "COMPLETE"]
    assert sorted(complete) == sorted(design.name for design in bench.listed)


def test_a_listed_trial_whose_worker_was_killed_is_finished_as_the_same_design(
    bench: Bench,
) -> None:
    bench.search.seed(bench.listed)
    program = (
        "import os, sys; from pathlib import Path; from studies.infra.workers import Workers\n"
        "print(Workers(Path(sys.argv[1])).name, flush=True); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", program, str(bench.home / "workers")]
    worker = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    trial = bench.study.ask()
    TrialRecord(worker=worker).store(trial)
    bench.search.run(len(bench.listed))
    assert names(bench) == [design.name for design in bench.listed]
    assert TrialRecord.of(bench.trials[0]).result.key == bench.listed[0].genotype.key


def test_several_workers_share_a_list(bench: Bench) -> None:
    other = bench.new_search(Workers(bench.home / "workers"))
    for search in (bench.search, other):
        search.seed(bench.listed)
    total = len(bench.listed)
    for at in range(1, total + 3):
        (bench.search, other)[at % 2].run(min(at, total))
    assert names(bench) == [design.name for design in bench.listed]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One place for all studies: what one has measured and trained the others take from it."""
    return new_place(tmp_path_factory.mktemp("lists") / "place")


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({*kinds()} - {TRIMODAL}))
def test_the_command_runs_a_list_and_shows_it(
    kind: str,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # In this process: starting another for each list would take most of the test's time. One list
    # is run to its end, of the others the first designs: what is run is the same for all.
    count = None if kind == "depth-or-merge" else 3
    some = () if count is None else ("--trials", str(count))
    monkeypatch.chdir(place.folder)
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        flags = ["run", "--study", kind, "--json", *place.flags(), *some]
        app(flags, standalone_mode=False)
        told = json.loads(capsys.readouterr().out)
        evaluations = len(place.kept())
    # A reading that was unstable is kept as well, and that design is timed again.
    trusted = [one["key"] for one in place.kept() if not one["unstable"]]
    assert evaluations == len(place.kept()) and len(trusted) == len(set(trusted))
    grid = grid_on(kind, load_space(str(place.folder / "tiny.toml")))
    # On a busy machine a reading may be unstable; the second run tries such a design again.
    states: dict[str, str] = {row["name"]: row["state"] for row in told["trials"]}
    assert sorted(states) == sorted(design.name for design in grid.designs[:count])
    unstable = {name for name, state in states.items() if state == "unstable"}
    assert set(states.values()) - {"unstable"} == {"complete"}
    run = set(states) - unstable
    for point in told["list"]["points"]:
        if {point["name"], point["against"]} <= run:
            assert point["test_points"]["samples"] == 12
    assert told["conditions"]["designs"].startswith(f"a fixed list of {len(grid.designs)},")
    assert told["references"] and "sampler" not in told["conditions"]
    text = (place.folder / "runs" / f"{told['study']}.html").read_text(encoding="utf-8")
    assert "plot-grid" in text and "What was compared" in text


# What is shown


@pytest.mark.parametrize("kind", kinds())
def test_a_list_is_shown_with_every_figure(kind: str) -> None:
    outcome = listed_outcome(kind, space_of("small", kind))
    assert outcome.grid is not None
    parsed = Parsed(page.render(outcome))
    assert parsed.count("table") == 3 and "Course of the search" not in parsed.words
    console = Console(width=80, record=True, file=io.StringIO())
    terminal.show(outcome, console)
    said = " ".join(console.export_text().split())
    told = as_json(outcome)
    assert len(told["list"]["points"]) == len(outcome.grid.points)
    cells = {(point.design, point.against) for point in outcome.grid.points}
    for (design, against), pair in outcome.grid.paired.items():
        figures = f"{pair.points:+.1f}", f"({pair.low:+.1f} to {pair.high:+.1f})"
        assert " points ".join(figures) in said, (design, against)
        between = "" if (design, against) in cells else " points "
        assert between.join(figures) in parsed.words


@pytest.mark.parametrize("kind", kinds())
def test_only_significant_differences_are_filled(kind: str) -> None:
    outcome = listed_outcome(kind, space_of("small", kind))
    assert outcome.grid is not None
    plot = ablation_plots.plot(outcome)
    assert plot is not None
    held = [(p.design, p.against) for p in outcome.grid.points if p.against]
    significant = sum(outcome.grid.paired[pair].significant for pair in held)
    assert significant > 0
    if kind == "depth-or-merge":
        (heat,) = plot.figure.data
        assert sum(shade != 0 for row in heat.z for shade in row) == significant
        return
    axis = "y" if kind == "tap-marginals" else "y2"
    traces = [t for t in plot.figure.data if t.yaxis == axis]
    filled = [s for t in traces for s in t.marker.symbol if not s.endswith("-open")]
    assert len(filled) == significant


def test_published_figures_stand_in_the_ablation_as_marks() -> None:
    plot = ablation_plots.plot(listed_outcome("ablation-attention", space_of("small")))
    assert plot is not None
    (marks,) = [t for t in plot.figure.data if t.marker.symbol == "star"]
    assert list(marks.y) == [67.89, 69.09] and marks.yaxis == "y"


def test_the_open_question_is_answered_as_far_as_the_data_decide_it() -> None:
    outcome = listed_outcome("depth-or-merge", space_of("small"))
    words = Parsed(page.render(outcome)).words
    for start in ("Depth alone:", "Merging alone:", "Depth alone against merging alone:"):
        assert words.count(start) == 1
    assert outcome.grid is not None
    pair = outcome.grid.paired[DEPTH_ALONE, MERGING_ALONE]
    assert f"Depth alone against merging alone: {pair.points:+.1f} points" in words


@pytest.mark.parametrize("complete", [0, 1, 4])
@pytest.mark.parametrize("kind", kinds())
def test_a_list_that_is_not_finished_is_shown_as_far_as_it_is(kind: str, complete: int) -> None:
    outcome = listed_outcome(kind, space_of("small", kind), complete)
    words = Parsed(page.render(outcome)).words
    said = "No design of the list is complete yet." if complete == 0 else "Not complete: "
    assert said in words
    json.dumps(as_json(outcome), allow_nan=False)


def test_without_test_figures_validation_is_shown_and_nothing_claimed() -> None:
    base = listed_outcome("tokens", space_of("small"))
    assert base.grid is not None
    rows = tuple(replace(row, test_accuracy=None) for row in base.rows)
    outcome = replace(base, rows=rows, grid=replace(base.grid, paired={}))
    words = Parsed(page.render(outcome)).words
    assert "Accuracy is that on validation" in words and "No differences:" in words
    plot = ablation_plots.plot(outcome)
    assert plot is not None and not any(t.yaxis == "y3" for t in plot.figure.data)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from headless()


@pytest.mark.parametrize("kind", kinds())
def test_the_page_of_a_list_opens_without_network(
    browser: Browser, tmp_path: Path, kind: str
) -> None:
    for width, dark in ((1100, False), (400, True)):
        outcome = listed_outcome(kind, space_of("small", kind))
        browser.open(page.render(outcome), tmp_path, width, dark)
        assert browser.complaints() == []
        requested = browser.requested()
        assert [u for u in requested if not u.startswith(("file:", "data:", "blob:"))] == []
        drawn = browser.run(
            "return document.querySelectorAll('#plot-grid .cartesianlayer .subplot').length"
        )
        assert drawn == {"depth-or-merge": 1, "tap-marginals": 2}.get(kind, 3)
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
