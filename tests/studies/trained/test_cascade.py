"""`fusion-nas cascade` on a finished study."""

import json
import shutil
from typing import Any

import pytest
from tiny import Place, finished_place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    base = tmp_path_factory.mktemp("cascade")
    shutil.copytree(finished_place(tmp_path_factory.getbasetemp()).folder, base / "place")
    return Place(base / "place")


def told(place: Place, *arguments: str) -> dict[str, Any]:
    done = place.finish(place.command("cascade", *arguments, "--json"))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def weights(place: Place) -> dict[str, int]:
    files = (place.home / "weights").glob("*.safetensors")
    return {file.name: file.stat().st_mtime_ns for file in files}


def test_the_threshold_is_chosen_on_validation_and_judged_on_test(place: Place) -> None:
    before = weights(place)
    found = told(place, "text-only", "late-tiny-vit")
    assert before and weights(place) == before, "nothing is trained again"
    first, second = found["ms"]
    assert (found["first"], found["second"]) == ("text-only", "late-tiny-vit")
    for one in (found["valid"], found["test"]):
        expected = first + (1 - one["answered_first"]) * second
        assert one["expected_ms"] == pytest.approx(expected)
    best = max(found["curve_on_valid"], key=lambda one: (one["percent"], -one["expected_ms"]))
    assert best == found["valid"]
    assert set(found["test_against"]) == {"text-only", "late-tiny-vit"}
    assert found["risk_coverage_on_test"]["text-only"][-1][0] == 1.0


def test_the_screen_says_what_each_design_and_the_cascade_come_to(place: Place) -> None:
    done = place.finish(place.command("cascade", "text-only", "late-tiny-vit"))
    assert done.returncode == 0, done.stderr
    assert "cascade against late-tiny-vit on test: " in done.stdout
    assert "selective accuracy of text-only on test: " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("9", "late-tiny-vit"), "no trained and timed design '9': give the number"),
        (("text-only", "0", "--latency", "1e-9"), "no threshold within 1e-09 ms"),
    ],
)
def test_what_there_is_not_is_refused(place: Place, arguments: tuple[str, ...], said: str) -> None:
    done = place.finish(place.command("cascade", *arguments))
    assert done.returncode == 2 and said in " ".join(done.stderr.split())
