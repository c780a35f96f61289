"""A whole study: test is sealed until its end, and one honest figure stands in every table."""

import json
import shutil
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from tiny import Place, new_place

from evaluators.data import DataSet, Sample
from evaluators.features.preprocessing import Preprocessing
from studies.cli import study as commands
from studies.config.settings import load_settings
from studies.report.json_output import as_json
from studies.results.study_outcome import correct_answers, outcome_of
from studies.study import context as contexts
from studies.study import run as running

SEEDS = 2


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finished study that chose by cross-validation, without seeded designs."""
    place = new_place(tmp_path_factory.mktemp("crossed") / "place")
    done = place.finish(place.run("--trials", "2", "--cv", "--seeds", str(SEEDS)))
    assert done.returncode == 0, done.stderr
    (place.folder / "said.txt").write_text(done.stdout, encoding="utf-8")
    return place


def study_of(place: Place) -> optuna.Study:
    (name,) = optuna.study.get_all_study_names(place.url)
    return optuna.load_study(study_name=name, storage=place.url)


def reported(place: Place) -> dict[str, Any]:
    """What `report --json` prints."""
    found: dict[str, Any] = json.loads(json.dumps(as_json(outcome_of(study_of(place)))))
    return found


def seeds_of(shown: dict[str, Any]) -> set[int]:
    return {len(row["test_accuracy_percent_by_seed"]) for row in shown["references"]}


# -- test is sealed until the end


class Seal:
    """Lets nothing of a test sample be read but its id, its group and that it is of test."""

    def __init__(self) -> None:
        self.broken = False
        self.counting = False

    def on(self, data: DataSet) -> DataSet:
        """The data with sealed test samples."""
        seal = self

        class SealedSample(Sample):
            def __getattribute__(self, name: str) -> Any:
                readable = seal.broken or (name == "text" and seal.counting)
                if name in ("text", "label", "score", "image") and not readable:
                    raise AssertionError(f"{name} of a test sample was read before the end")
                return super().__getattribute__(name)

        def closed(sample: Sample) -> Sample:
            return SealedSample(**{f.name: getattr(sample, f.name) for f in fields(sample)})

        samples = tuple(closed(s) if s.split == "test" else s for s in data.samples)
        return replace(data, samples=samples)


@pytest.mark.parametrize(
    "flags", [{"rewrites": "all"}, {"rewrites": "none", "cv": True}], ids=["valid", "cv"]
)
def test_nothing_of_the_test_split_is_read_before_the_search_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, Any]
) -> None:
    """But for how many tokens its texts have, where padding is cut to what the data need."""
    place = new_place(tmp_path / "place")
    monkeypatch.chdir(place.folder)
    monkeypatch.setenv("FUSION_NAS_HOME", str(place.home))
    seal = Seal()
    load, finish, count = contexts.load_data, running.finish, Preprocessing.text_lengths

    def finishing(*given: Any) -> None:
        seal.broken = True
        finish(*given)

    def counting(*given: Any) -> tuple[int, ...]:
        seal.counting = flags["rewrites"] == "all"
        try:
            return count(*given)
        finally:
            seal.counting = False

    monkeypatch.setattr(contexts, "load_data", lambda *given, **more: seal.on(load(*given, **more)))
    monkeypatch.setattr(running, "finish", finishing)
    monkeypatch.setattr(Preprocessing, "text_lengths", counting)
    settings = load_settings(
        "pareto",
        {
            "data": str(place.data),
            "space": str(place.folder / "tiny.toml"),
            "trunks": "frozen",
            "threads": 1,
            "trials": 2,
            "seeds": 1,
            "final_readings": 0,
            **flags,
        },
    )
    commands.run_study(settings, place.folder / "page.html", True)
    assert seal.broken
    outcome = outcome_of(study_of(place))
    assert all(row.test_accuracy for row in (*outcome.front, *outcome.references))


# -- one honest figure


def test_the_test_figure_is_a_mean_over_seeds_with_its_interval_and_each_seed(
    crossed: Place,
) -> None:
    shown = reported(crossed)
    tested = [t for t in shown["trials"] if t["number"] in shown["front"]]
    for row in (*tested, *shown["references"]):
        figure, seeds = row["test_accuracy_percent"], row["test_accuracy_percent_by_seed"]
        assert len(seeds) == SEEDS
        assert figure["value"] == pytest.approx(np.mean(seeds))
        assert figure["low"] < figure["value"] < figure["high"] or figure["high"] == 100
    assert shown["conditions"]["test figures"] == "mean over 2 trainings, seeds 0 to 1"


def test_which_samples_were_right_can_be_read_from_the_storage_alone(crossed: Place) -> None:
    study, shown = study_of(crossed), reported(crossed)
    test, valid = correct_answers(study), correct_answers(study, "valid")
    names = {row["name"] for row in shown["references"]}
    assert {*shown["front"], *names} <= set(test)
    assert {t.number for t in study.trials if t.values} | names <= set(valid)
    for row in (*shown["trials"], *shown["references"]):
        who = row["name"] if row["number"] is None else row["number"]
        if row["valid_accuracy_percent"]:
            assert valid[who].shape == (1, 52), "all of train and valid, each judged once"
            assert 100 * valid[who].mean() == pytest.approx(row["valid_accuracy_percent"]["value"])
        if row["test_accuracy_percent"]:
            assert test[who].shape == (SEEDS, 12)
            assert 100 * test[who].mean() == pytest.approx(row["test_accuracy_percent"]["value"])


def test_the_seeds_that_are_asked_for_last_are_those_that_are_shown(
    crossed: Place, tmp_path: Path
) -> None:
    shutil.copytree(crossed.folder, tmp_path / "place", symlinks=True)
    place = Place(tmp_path / "place")
    known = len(place.kept())
    done = place.finish(place.run("--trials", "2", "--cv"))
    assert done.returncode == 0, done.stderr
    assert seeds_of(reported(place)) == {1} and len(place.kept()) == known, "nothing is new in it"


# -- cross-validation is part of the study


def test_a_study_says_how_it_chose_and_cannot_be_resumed_the_other_way(crossed: Place) -> None:
    shown = reported(crossed)
    assert shown["chosen_by"] == "cross-validation"
    assert "5-fold cross-validation over the 52 samples" in shown["conditions"]["selection"]
    assert shown["majority_percent"]["valid"] == pytest.approx(50.0)
    done = crossed.finish(crossed.run("--trials", "4"))
    assert done.returncode == 6
    assert "made with another selection (--cv or not)" in done.stderr
    assert len(study_of(crossed).trials) == 2


def test_data_that_cannot_be_cut_into_folds_start_no_study(tmp_path: Path) -> None:
    place = new_place(tmp_path / "place")
    table = place.data / "label.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    worded = [",".join([line.split(",")[0], "same", *line.split(",")[2:]]) for line in lines[1:]]
    table.write_text("\n".join([lines[0], *worded]) + "\n", encoding="utf-8")
    done = place.finish(place.run("--trials", "1", "--cv"))
    assert done.returncode == 3
    assert "1 groups in train and valid cannot be cut into 5 parts; leave out --cv" in done.stderr
    assert not (place.folder / "runs" / "fusion-nas.db").exists()


# -- what stands beside every front


class Cells(HTMLParser):
    """The first cell of every row of every table."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[str]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        if tag == "th" and ("scope", "row") in attrs:
            self._inside = True
            self.tables[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "th":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.tables[-1][-1] += data


def test_majority_text_only_and_vision_only_stand_in_every_table_and_front(
    crossed: Place,
) -> None:
    held_against = {"text-only", "vision-only-tiny-vit", "majority class"}
    said = (crossed.folder / "said.txt").read_text(encoding="utf-8")
    assert all(name in said for name in held_against)
    page = next((crossed.folder / "runs").glob("*.html")).read_text(encoding="utf-8")
    cells = Cells()
    cells.feed(page)
    held = [held_against <= {cell.strip() for cell in table} for table in cells.tables]
    assert held[0] and held[-1] and len(held) >= 2, "designs in figures, every trial"
    drawn = json.loads(page.split('id="plots">')[1].split("</script>")[0])
    labels = " ".join(label["text"] for label in drawn[0]["labels"])
    assert all(name in labels for name in held_against)
    shown = reported(crossed)
    assert {row["name"] for row in shown["references"]} == held_against - {"majority class"}
    assert shown["majority_percent"]["test"] == pytest.approx(50.0)
