"""A study of the latency to expect where pictures repeat says what its latencies are."""

import json

import optuna
import pytest
from tiny import Place, new_place

from studies.config.settings import Settings, load_settings
from studies.results.study_outcome import SETTINGS

WORDS = "expected latency with 80 % of images cached"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A study of two designs under `--reuse image=0.8`."""
    made = new_place(tmp_path_factory.mktemp("reuse") / "place")
    flags = ("--sampler", "random", "--trials", "2")
    done = made.finish(made.run(*flags, "--reuse", "image=0.8", "--page", "page.html"))
    assert done.returncode == 0, done.stderr
    assert f"Latencies: {WORDS}." in done.stdout
    return made


def stored(place: Place) -> optuna.Study:
    (name,) = optuna.study.get_all_study_names(place.url)
    return optuna.load_study(study_name=name, storage=place.url)


def test_an_old_study_has_no_shares_and_does_not_store_them() -> None:
    settings = load_settings("pareto")
    assert "reuse" not in settings.to_stored()
    assert Settings.from_stored(settings.to_stored()).search.reuse == ()
    shares = load_settings("pareto", {"reuse": ("image=0.8", "text=0.5")})
    assert Settings.from_stored(shares.to_stored()) == shares


@pytest.mark.slow
def test_page_and_json_name_the_latency(place: Place) -> None:
    done = place.finish(place.command("report", "--json"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["latency_is"] == WORDS and found["conditions"]["latency"].startswith(WORDS)
    assert f"{WORDS}, ms" in (place.folder / "page.html").read_text("utf-8")
    assert stored(place).user_attrs[SETTINGS]["reuse"] == ["image=0.8"]


@pytest.mark.slow
def test_each_design_was_timed_by_its_parts(place: Place) -> None:
    kept = [one for one in place.kept() if one["kind"] == "latency" and "parts" in one["details"]]
    assert kept
    for one in kept:
        (taken,) = (m["value"] for m in one["measures"] if m["name"] == "latency_ms")
        parts = one["details"]["parts"].values()
        by_hand = sum((1 - part["share_cached"]) * part["ms"] for part in parts)
        assert taken == pytest.approx(by_hand)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--reuse", "image=0.5"), "made with another reuse"),
        (("run",), "made with another reuse"),
        (("cascade",), f"has the {WORDS}, not that of one inference"),
    ],
)
def test_what_its_latencies_do_not_allow_is_refused(
    place: Place, arguments: tuple[str, ...], said: str
) -> None:
    command, *flags = arguments
    made = place.run(*flags) if command == "run" else place.command(command)
    done = place.finish(made)
    assert done.returncode != 0 and said in done.stderr and done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_dry_run_says_what_the_latency_is(place: Place) -> None:
    done = place.finish(place.run("--reuse", "image=0.8", "--dry-run"))
    assert done.returncode == 0, done.stderr
    assert f"latency: {WORDS}; the parts of each design are timed one by one" in done.stdout
