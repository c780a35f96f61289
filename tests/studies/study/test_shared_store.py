"""`--store`: what one home has trained and timed is not made again in another."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from s3_server import SECRET, S3Server, missing, start_s3
from tiny import Place, new_place

from search_space.errors import STORAGE
from studies.results.trial_record import TrialRecord

pytestmark = pytest.mark.slow
RUN = ("--trials", "2", "--name", "shared", "--json")
WORK = ("training", "timing", "building", "compiling")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if why := missing():
        pytest.skip(why)
    with start_s3(tmp_path_factory.mktemp("s3") / "log") as server:
        server.make_bucket("lab")
        yield server


@pytest.fixture(scope="module", params=["folder", "s3"])
def homes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Place, Place]:
    """Two places with a study each, run one after the other on one store."""
    base = tmp_path_factory.mktemp("two-homes")
    more = {"FUSION_NAS_STORE": f"file://{base / 'store'}"}
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3")
        more = {**server.environment, "FUSION_NAS_STORE": "s3://lab/shared"}
    first = new_place(base / "first", **more)
    second = new_place(base / "second", data=first.data, **more)
    for place in (first, second):
        done = place.finish_stable(place.run(*RUN, "--store", more["FUSION_NAS_STORE"]))
        assert done.returncode == 0, done.stderr
        (place.folder / "result.json").write_text(done.stdout)
        assert SECRET not in done.stdout + done.stderr
    return first, second


def study_of(place: Place) -> optuna.Study:
    return optuna.load_study(study_name="shared", storage=place.url)


def test_the_second_home_trains_and_times_nothing(homes: tuple[Place, Place]) -> None:
    first, second = (study_of(place).get_trials() for place in homes)
    assert [t.params for t in first] == [t.params for t in second]
    assert [t.values for t in first] == [t.values for t in second]
    spent = [TrialRecord.of(trial).result.seconds for trial in second]
    assert not any(stage in seconds for seconds in spent for stage in WORK)
    kept = [{each["key"]: each for each in place.kept() if not each["unstable"]} for place in homes]
    assert kept[0] == kept[1]
    assert not list((homes[1].home / "features").glob("*")), "nothing was even encoded"


def test_a_design_of_another_home_is_exported_without_training(homes: tuple[Place, Place]) -> None:
    first, second = homes
    trained = {file.name: file.read_bytes() for file in (first.home / "weights").glob("*.sha256")}
    number = next(t.number for t in study_of(second).get_trials() if t.values)
    done = second.finish(second.command("export", str(number), "--name", "shared"))
    assert done.returncode == 0, done.stderr
    fetched = {file.name: file.read_bytes() for file in (second.home / "weights").glob("*.sha256")}
    assert fetched and fetched.items() <= trained.items()


def test_the_url_of_the_store_is_in_no_study_and_no_page(homes: tuple[Place, Place]) -> None:
    first, _ = homes
    url = first.env["FUSION_NAS_STORE"]
    stored = json.dumps(study_of(first).user_attrs) + (first.folder / "result.json").read_text()
    pages = "".join(page.read_text() for page in (first.folder / "runs").glob("*.html"))
    assert pages and url not in stored + pages and SECRET not in stored + pages


def test_a_store_that_cannot_be_reached_ends_the_run_before_it_begins(
    homes: tuple[Place, Place], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    place = replace(homes[0], env={})
    done = place.finish(place.run("--trials", "9", "--store", str(tmp_path / "file" / "store")))
    assert done.returncode == STORAGE
    assert "--store" in done.stderr and "cannot be used" in done.stderr
