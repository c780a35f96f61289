"""One study on two thread counts: the second begins from the first, then both are compared."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from tiny import Place, finished_place, new_place

from studies.comparison.fronts import compare
from studies.config.usage import UsageError
from studies.results.trial_record import TrialRecord
from studies.study import lookup
from studies.study.lookup import find_named_study

NAME = "pareto-data-tiny"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished_place(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def second(finished: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The same data and space on two threads, in a home of its own, from the finished study."""
    place = new_place(tmp_path_factory.mktemp("second") / "place", finished.data)
    given = ("--threads", "2", "--trials", "6", "--name", "two", "--sampler", "ehvi")
    source = f"{NAME}@{finished.folder / 'runs' / 'fusion-nas.db'}"
    done = place.finish(place.run(*given, "--from", source, "--log-file", "logs/run.log"))
    assert done.returncode == 0, done.stderr
    return place


def study_of(place: Place, name: str) -> optuna.Study:
    return find_named_study(place.url, name)


def key_of(trial: optuna.trial.FrozenTrial) -> str:
    return TrialRecord.of(trial).result.key


def compared(place: Place, *arguments: str) -> Any:
    done = place.finish(place.command("compare", *arguments))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def arguments_of(finished: Place) -> tuple[str, str]:
    return f"{NAME}@{finished.folder / 'runs' / 'fusion-nas.db'}", "two"


def test_the_front_of_the_other_study_is_timed_first(finished: Place, second: Place) -> None:
    front = compare([study_of(finished, NAME), study_of(second, "two")]).sides[0].front
    first = [key_of(t) for t in study_of(second, "two").get_trials()][: len(front)]
    earlier = study_of(finished, NAME).get_trials()
    assert first == [key_of(earlier[row.number or 0]) for row in front]


def test_known_accuracies_are_taken_over_and_noted(finished: Place, second: Place) -> None:
    study = study_of(second, "two")
    note = study.user_attrs["carried over"]
    assert note["study"] == NAME and note["accuracies"] == note["designs"] >= 3
    assert 3 <= note["latency_readings"] <= 5
    assert f"from study {NAME}" in study.user_attrs["conditions"]["carried over"]
    kept = [e for e in second.kept() if e["kind"] == "quality"]
    taken = [e for e in kept if e["details"].get("from_study") == NAME]
    assert len(taken) == note["accuracies"]
    trained = {e["key"]: e for e in finished.kept() if e["kind"] == "quality"}
    for each in taken:
        assert each["measures"][0]["value"] == trained[each["key"]]["measures"][0]["value"]


def test_what_the_run_reported_is_in_its_log_file(second: Place) -> None:
    log = (second.folder / "logs" / "run.log").read_text("utf-8")
    assert "all " in log and "accuracies are known: same data and training" in log
    assert "[6/6]" in log and "trial 0: exporting and timing" in log
    assert log.splitlines()[-1].endswith("INFO ended")


def test_two_thread_counts_are_compared_as_two_devices(finished: Place, second: Place) -> None:
    found = compared(second, *arguments_of(finished), "--json")
    assert found["accuracies_comparable"] and found["latency_differs_by"] == ["threads"]
    (ranks,) = found["latency_ranks"]
    note = study_of(second, "two").user_attrs["carried over"]
    assert note["designs"] <= ranks["shared_designs"] <= 5
    assert -1 <= ranks["kendall_tau"] <= 1
    assert found["shared_complete_designs"] >= note["designs"]
    for design in found["good_on_all"]:
        assert len(design["trials"]) == 2


def test_a_comparison_fits_into_the_terminal(finished: Place, second: Place) -> None:
    for width in (40, 80):
        place = Place(second.folder, {"COLUMNS": str(width), "NO_COLOR": "1"})
        said = compared(place, *arguments_of(finished))
        lines = [line for line in said.splitlines() if "@" not in line and "/" not in line]
        assert max(map(len, lines)) <= width
        assert "Kendall's tau" in " ".join(said.split()) and "Good on all" in said


def test_a_page_shows_both_fronts_without_a_network(finished: Place, second: Place) -> None:
    compared(second, *arguments_of(finished), "--page", "both.html")
    page = (second.folder / "both.html").read_text("utf-8")
    assert "A: pareto-data-tiny" in page and "B: two" in page
    assert 'src="http' not in page


def test_studies_of_other_data_are_said_not_to_be_comparable(
    finished: Place, second: Place, tmp_path: Path
) -> None:
    study = study_of(second, "two")
    copied = f"sqlite:///{tmp_path / 'copy.db'}"
    optuna.copy_study(
        from_study_name="two",
        from_storage=study._storage,
        to_storage=copied,
    )
    other = optuna.load_study(study_name="two", storage=copied)
    other.set_user_attr("identity", {**study.user_attrs["identity"], "data": "another"})
    found = compared(second, arguments_of(finished)[0], f"two@{tmp_path / 'copy.db'}")
    assert "accuracies are NOT comparable: data differ" in " ".join(found.split())


def test_a_study_is_not_compared_with_itself_or_with_nothing(finished: Place) -> None:
    done = finished.finish(finished.command("compare", NAME, NAME))
    assert done.returncode == 2 and "give two studies or more" in done.stderr
    empty = optuna.create_study(directions=["maximize", "minimize"], study_name="empty")
    with pytest.raises(UsageError, match="'empty' has no complete trial"):
        compare([study_of(finished, NAME), empty])


def test_a_study_does_not_begin_from_itself(finished: Place) -> None:
    done = finished.finish(finished.run("--trials", "5", "--from", NAME))
    assert done.returncode == 2 and "it is the study itself" in done.stderr
    done = finished.finish(finished.run("--trials", "5", "--from", "nowhere"))
    assert done.returncode == 2 and "no study 'nowhere'" in done.stderr


@pytest.mark.parametrize(
    ("given", "storage", "name"),
    [
        ("old@postgresql://u:p@w@host/db", "postgresql://u:p@w@host/db", "old"),
        ("a@b@postgresql://host/db", "postgresql://host/db", "a@b"),
        ("old@runs/x.db", "sqlite:///runs/x.db", "old"),
        ("old", "sqlite:///own.db", "old"),
    ],
)
def test_a_study_of_another_storage_is_named_with_its_file_or_url(
    monkeypatch: pytest.MonkeyPatch, given: str, storage: str, name: str
) -> None:
    monkeypatch.setattr(lookup, "find_study", lambda *found: found)
    assert find_named_study("sqlite:///own.db", given) == (storage, name)  # type: ignore[comparison-overlap]


def test_a_study_is_compared_with_others_and_not_with_itself(finished: Place) -> None:
    with pytest.raises(UsageError, match="given twice"):
        compare([study_of(finished, NAME), study_of(finished, NAME)])
