"""The last rung: who earns it, what it leaves, and that no front mixes it with another."""

import json
import shutil
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import Place, finished_place, new_place

from studies.config.settings import load_settings
from studies.config.usage import UsageError
from studies.report import page
from studies.results import text as result_text
from studies.results.fine_tuned import ATTRIBUTE, earn_it
from studies.results.outcome import DesignResult, Value
from studies.results.pareto import dominates, pareto_front
from studies.results.study_outcome import outcome_of

POINTS = st.lists(st.tuples(st.integers(50, 60), st.integers(1, 12)), min_size=1, max_size=25)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished_place(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, finished: Place) -> Place:
    """The finished study, gone on with: two of its designs are fine-tuned, by two seeds each."""
    base = tmp_path_factory.mktemp("tuned")
    shutil.copytree(finished.folder, base / "place")
    place = Place(base / "place")
    done = place.finish(fine_tune(place))
    assert done.returncode == 0, done.stderr
    return place


def fine_tune(place: Place, *more: str) -> list[str]:
    return place.run("--trials", "5", "--fine-tune", "2", *more)


def study_of(place: Place) -> optuna.Study:
    return optuna.load_study(study_name="pareto-data-tiny", storage=place.url)


def rows(points: list[tuple[int, int]]) -> list[DesignResult]:
    return [
        DesignResult(
            k, "complete", f"design {k}", accuracy=Value(float(a)), latency=Value(float(ms))
        )
        for k, (a, ms) in enumerate(points)
    ]


# Who earns it


@given(POINTS, st.integers(1, 30))
def test_no_design_is_fine_tuned_before_one_that_beats_it(
    points: list[tuple[int, int]], count: int
) -> None:
    given_rows = rows(points)
    chosen = earn_it(given_rows, count)
    assert len(chosen) == len({row.number for row in chosen}) == min(count, len(points))
    left = [row for row in given_rows if row not in chosen]
    assert not any(dominates(out, row) for out in left for row in chosen)


def test_of_a_front_that_is_too_long_its_ends_come_first_then_the_gaps() -> None:
    front = rows([(50, 1), (51, 2), (52, 3), (58, 9), (60, 12)])
    assert [row.number for row in earn_it(front, 2)] == [0, 4]
    assert [row.number for row in earn_it(front, 3)] == [0, 4, 3]


# What it leaves


def test_fine_tuned_designs_are_a_front_of_their_own(tuned: Place) -> None:
    study = study_of(tuned)
    outcome = outcome_of(study)
    assert len(outcome.fine_tuned) == 2 and len(outcome.rows) == 5
    assert {row.fidelity for row in outcome.rows} == {"fusion on frozen trunks"}
    assert {each.row.fidelity for each in outcome.fine_tuned} == {"whole network"}
    assert outcome.front == pareto_front(outcome.rows)
    earned = {row.number for row in earn_it(outcome.rows, 2)}
    assert {each.row.number for each in outcome.fine_tuned} == earned
    for each in outcome.fine_tuned:
        assert each.before == next(r for r in outcome.rows if r.number == each.row.number)
        assert each.row.latency == each.before.latency
        assert each.row.accuracy and each.before.accuracy
        gained = each.row.accuracy.value - each.before.accuracy.value
        assert each.gained.points == pytest.approx(gained)
        assert (each.row.test_accuracy is not None) == each.on_front
    # Optuna's own values, which the dashboard and samplers read, are those of the search.
    for trial in study.trials:
        assert trial.values is None or trial.values[0] == trial.user_attrs["record"]["accuracy"][0]


def test_screen_page_and_json_tell_what_fine_tuning_brought(tuned: Place) -> None:
    done = tuned.finish(tuned.command("report", "--json"))
    told = json.loads(done.stdout)
    assert [each["fidelity"] for each in told["fine_tuned"]] == ["whole network"] * 2
    assert told["rungs"]["fine_tuned"] == 2
    done = tuned.finish(tuned.command("report"))
    assert "Fine-tuned whole, compared with each other only" in done.stdout
    assert "2 designs fine-tuned whole; too few or too alike" in " ".join(done.stdout.split())
    outcome = outcome_of(study_of(tuned))
    html = page.render(outcome)
    assert "fine-tuned whole, with their front" in html
    for each in outcome.fine_tuned:
        assert result_text.fine_tuned(each).split(";")[0] in html


def test_what_was_fine_tuned_is_not_fine_tuned_again(tuned: Place) -> None:
    before = [evaluation["key"] for evaluation in tuned.kept()]
    done = tuned.finish(fine_tune(tuned))
    assert done.returncode == 0, done.stderr
    assert [evaluation["key"] for evaluation in tuned.kept()] == before


@pytest.mark.slow
def test_workers_that_end_together_share_the_designs(
    tmp_path: Path, finished: Place, tuned: Place
) -> None:
    place = Place(tmp_path / "place")
    shutil.copytree(finished.folder, place.folder)
    workers = [place.start(fine_tune(place)) for _ in range(2)]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    keys = [evaluation["key"] for evaluation in place.kept()]
    assert len(keys) == len(set(keys))
    assert outcome_of(study_of(place)).fine_tuned == outcome_of(study_of(tuned)).fine_tuned


def test_a_fine_tuned_network_is_exported_as_it_was_judged(tuned: Place) -> None:
    study = study_of(tuned)
    best = next(each.row for each in outcome_of(study).fine_tuned if each.on_front)
    done = tuned.finish(tuned.command("export", str(best.number), "--fine-tuned"))
    assert done.returncode == 0, done.stderr
    card = json.loads((tuned.folder / f"export-{best.number}" / "card.json").read_text("utf-8"))
    assert card["fine_tuned_whole"] is True and best.accuracy and best.test_accuracy
    assert card["valid"]["accuracy"][0] == best.accuracy.value
    assert card["test"]["accuracy"][0] == best.test_accuracy.value
    assert f"{best.number} fine-tuned" in study.user_attrs["artifacts"]


def test_a_trial_that_was_not_fine_tuned_is_not_exported_as_such(tuned: Place) -> None:
    study = study_of(tuned)
    kept = {name for name in study.user_attrs if name.startswith(ATTRIBUTE)}
    other = next(t.number for t in study.trials if f"{ATTRIBUTE}{t.number}" not in kept)
    done = tuned.finish(tuned.command("export", str(other), "--fine-tuned"))
    assert done.returncode == 2
    assert done.stderr.strip().endswith(f"trial {other} was not fine-tuned: leave --fine-tuned out")


# What cannot be meant


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"fine_tune": -1}, "--fine-tune -1"),
        ({"fine_tune": 2, "trunks": "by-stage"}, "--trunks by-stage"),
        ({"fine_tune": 2, "protocol": "paper"}, "--protocol paper"),
    ],
)
def test_fine_tuning_that_cannot_be_meant_is_refused(flags: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_settings("pareto", flags)


@pytest.mark.slow
def test_a_study_that_began_by_training_whole_is_not_fine_tuned(tmp_path: Path) -> None:
    place = new_place(tmp_path / "place")
    frozen = place.run()
    began = [*frozen[: frozen.index("--trunks")], "--threads", "1"]
    done = place.finish([*began, "--trials", "2", "--trunks", "by-stage"])
    assert done.returncode == 0, done.stderr
    done = place.finish([*began, "--trials", "2", "--fine-tune", "1"])
    assert done.returncode == 2
    assert "began by training designs whole as it is; leave it out" in done.stderr


def test_a_design_that_could_not_be_fine_tuned_is_told(tmp_path: Path, finished: Place) -> None:
    place = Place(tmp_path / "place")
    shutil.copytree(finished.folder, place.folder)
    study = study_of(place)
    study.set_user_attr(f"{ATTRIBUTE}1", {"reason": "training loss is nan in epoch 1"})
    outcome = outcome_of(study)
    assert not outcome.fine_tuned
    assert any("Trial 1 has earned fine-tuning" in caution for caution in outcome.cautions)
