"""One fixed list on two sets of data: whether the order of its designs turns over."""

import json
from pathlib import Path

import pytest
from quick_evaluators import demo, design, image_folder, quality
from tiny import new_place, write_data

from evaluators.statistics.paired import Paired
from evaluators.training.config import TrainingProtocol
from evaluators.training.plan import WHOLE
from studies.cli.dominance import Turn

FASTER, SLOWER = Paired(4.0, 1.0, 7.0, 400), Paired(-3.0, -5.0, -1.0, 300)
UNDECIDED = Paired(-1.0, -3.0, 1.0, 300)


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (FASTER, SLOWER, "turns over"),
        (SLOWER, FASTER, "turns over"),
        (FASTER, FASTER, "does not turn over"),
        (SLOWER, SLOWER, "does not turn over"),
        (FASTER, UNDECIDED, "not decided"),
        (UNDECIDED, SLOWER, "not decided"),
    ],
)
def test_an_order_turns_over_where_both_differences_are_decided_and_opposite(
    first: Paired, second: Paired, kind: str
) -> None:
    assert Turn("early", "late", first, second).kind == kind


def test_variances_of_both_sets_add_in_the_difference_of_differences() -> None:
    more = Turn("early", "late", FASTER, SLOWER).more
    assert (more.value, more.low, more.high) == pytest.approx(
        (-7.0, -7.0 - (2**2 + 3**2) ** 0.5, -7.0 + (2**2 + 3**2) ** 0.5)
    )


@pytest.mark.slow
def test_both_sets_are_run_and_told_side_by_side_and_the_command_goes_on(tmp_path: Path) -> None:
    place = new_place(tmp_path / "place")
    other = write_data(place.folder / "other")
    command = place.run("--study", "dominance", "--beside", str(other))
    done = place.finish([*command, "--json"])
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["first"]["data"]["name"] == "data" and told["second"]["data"]["name"] == "other"
    assert {turn["place"].partition(", ")[2] for turn in told["turns"]} == {"intermediate", "early"}
    for turn in told["turns"]:
        value = turn["second_points"]["value"] - turn["first_points"]["value"]
        assert turn["more_points"]["value"] == pytest.approx(value)
    kept = [evaluation["key"] for evaluation in place.kept()]
    done = place.finish(command)
    assert done.returncode == 0, done.stderr
    assert [evaluation["key"] for evaluation in place.kept()] == kept
    assert done.stdout.count("against tiny-vit late") == 2
    assert len(list((place.folder / "runs").glob("*.html"))) == 2


def test_a_search_has_no_data_beside_its_own(tmp_path: Path) -> None:
    place = new_place(tmp_path / "place")
    done = place.finish(place.run("--beside", str(place.data)))
    assert done.returncode == 2 and "for a fixed list of designs" in done.stderr


def test_where_one_modality_teaches_nothing_every_design_is_trained_whole(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "set")
    trial_runner = quality(data, tmp_path / "home", TrainingProtocol(trunks="whole"))
    depth = {name: demo().shapes[name].depth for name in ("small-bert", "small-xcit")}
    late = design("concatenation", *depth.values())
    assert (
        trial_runner.trainer.plan.stage(late) == "late"
        and trial_runner.trainer.plan.fidelity(late) == WHOLE
    )
    protocol = trial_runner.protocol
    assert protocol.whole_config("late", False) == protocol.alone_config("text", False)
    assert trial_runner.evaluate(late).details["fidelity"] == WHOLE
    assert not list((tmp_path / "home").glob("features/*")), "no trunk is frozen"
