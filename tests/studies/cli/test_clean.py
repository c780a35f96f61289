"""`fusion-nas clean` removes what no study needs; what is asked for later is made again."""

import json
import os
import shutil
import time
from pathlib import Path

import optuna
import pytest
from tiny import Place, finished_place

from studies.study.home_contents import CACHES, contents_of
from studies.study.trained_weights import bound_weights, weights_file, weights_in, weights_of


@pytest.fixture
def place(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finished study of five trials: three are named, of the others some are beaten."""
    finished = finished_place(tmp_path_factory.getbasetemp())
    shutil.copytree(finished.folder, tmp_path / "place", symlinks=True)
    return Place(tmp_path / "place")


def study_of(place: Place) -> optuna.Study:
    (name,) = optuna.study.get_all_study_names(place.url)
    return optuna.load_study(study_name=name, storage=place.url)


def files(place: Place) -> set[str]:
    found = (file for file in place.home.rglob("*") if file.is_file())
    return {file.relative_to(place.home).as_posix() for file in found}


def weights(place: Place) -> set[str]:
    return {file.stem for file in (place.home / "weights").glob("*.safetensors")}


def test_everything_in_a_home_has_a_known_kind(place: Place) -> None:
    contents = contents_of(place.home, weights_in(place.url))
    assert {each.kind for each in contents} >= {"results", "trained weights", "features", "locks"}
    assert not [each.path for each in contents if each.kind == "other"]
    assert sum(each.files for each in contents) == len(files(place))


def test_a_dry_run_shows_what_would_go_and_removes_nothing(place: Place) -> None:
    (place.home / "weights" / ".tmp-abcdefgh").touch()
    before = files(place)
    done = place.finish(place.command("clean", "--dry-run", "--older-than", "0"))
    assert done.returncode == 0, done.stderr
    assert "leftovers of killed runs" in done.stdout and "trained weights" in done.stdout
    assert "To remove:" in done.stdout
    assert files(place) == before


def test_nothing_is_removed_where_nobody_can_be_asked(place: Place) -> None:
    before = files(place)
    done = place.finish(place.command("clean", "--older-than", "0"))
    assert done.returncode == 2
    assert "give --yes or --dry-run" in done.stderr
    assert files(place) >= before


def test_a_home_that_is_a_file_is_refused_and_one_that_is_not_there_is_empty(place: Place) -> None:
    (place.folder / "file").touch()
    for name, code, said in (("file", 2, "this is a file"), ("none", 0, "nothing there yet")):
        other = Place(place.folder, {"FUSION_NAS_HOME": str(place.folder / name)})
        done = other.finish(other.command("clean"))
        assert done.returncode == code
        assert said in done.stdout + done.stderr


@pytest.mark.parametrize("days", ["-1", "nan"])
def test_a_time_that_is_none_is_refused(place: Place, days: str) -> None:
    done = place.finish(place.command("clean", "--older-than", days, "--yes"))
    assert done.returncode == 2
    assert "--older-than" in done.stderr and "number of days" in done.stderr


def test_weights_of_designs_that_others_beat_go_and_those_of_the_front_stay(place: Place) -> None:
    known = weights_of(study_of(place))
    assert known.stay <= weights(place)
    done = place.finish(place.command("clean", "--yes"))
    assert done.returncode == 0, done.stderr
    assert known.stay <= weights(place)
    assert not weights(place) & set(known.beaten)
    assert {"evaluations.jsonl"} <= files(place)


def test_without_its_storage_no_weights_of_a_study_go(place: Place, tmp_path: Path) -> None:
    before = weights(place)
    url = f"sqlite:///{tmp_path / 'none.db'}"
    done = place.finish(place.command("clean", "--yes", "--storage", url))
    assert done.returncode == 0, done.stderr
    assert weights(place) == before


def test_only_what_was_unused_for_so_long_goes(place: Place) -> None:
    part = next(place.home.glob("parts/*.part"))
    long_ago = time.time() - 11 * 24 * 3600
    for file in place.home.glob(f"{part.relative_to(place.home)}*"):
        os.utime(file, (long_ago, long_ago))
    before = files(place)
    done = place.finish(place.command("clean", "--yes", "--older-than", "10"))
    assert done.returncode == 0, done.stderr
    gone = before - files(place)
    assert gone == {name for name in before if name.startswith(f"parts/{part.name}")}


def test_a_study_goes_on_and_exports_as_before_after_all_caches_are_gone(place: Place) -> None:
    """The data's cache too: nothing but results and the weights of front and named designs."""
    study = study_of(place)
    whole = place.finish(place.command("export", "0", "--out", "before"))
    assert whole.returncode == 0, whole.stderr
    done = place.finish(place.command("clean", "--yes", "--older-than", "0"))
    assert done.returncode == 0, done.stderr
    left = contents_of(place.home, weights_in(place.url))
    assert not [e.path for e in left if e.kind in CACHES and "front and named" not in e.of]
    shutil.rmtree(place.home / "weights")  # these too are made again
    for arguments in (
        place.run("--trials", "5", "--json"),
        place.command("export", "0", "--out", "after"),
    ):
        done = place.finish(arguments)
        assert done.returncode == 0, done.stderr
    cards = [json.loads((place.folder / n / "card.json").read_text()) for n in ("before", "after")]
    assert cards[0]["sha256"] == cards[1]["sha256"]
    assert len(study.get_trials()) == 5


def test_a_long_study_removes_the_oldest_beaten_weights_beyond_its_bound(tmp_path: Path) -> None:
    from tiny import Bench

    bench = Bench(tmp_path)
    bench.study.set_user_attr("subject", {})
    bench.search.run(30)
    bench.workers.close()
    known = weights_of(bench.study)
    assert known.stay and len(known.beaten) > 4
    for key in (*known.stay, *known.beaten):
        file = weights_file(tmp_path, key)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(1000))
        file.with_name(f"{file.name}.sha256").touch()
    total = 1000 * (len(known.stay) + len(known.beaten))
    assert bound_weights(bench.url, "bench", tmp_path, total) == 0
    assert bound_weights(bench.url, "bench", tmp_path, total - 2500) == 3
    gone = [key for key in known.beaten if not weights_file(tmp_path, key).exists()]
    assert gone == list(known.beaten)[:3]
    assert len(list((tmp_path / "weights").iterdir())) == 2 * (total // 1000 - 3)
    bound_weights(bench.url, "bench", tmp_path, 0)
    left = {file.stem for file in (tmp_path / "weights").glob("*.safetensors")}
    assert left == known.stay
