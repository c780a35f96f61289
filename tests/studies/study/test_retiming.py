"""The front and the named designs are read again at the end, in turns, and compared by that."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
from tiny import Place, finished_place

from device_agent.wire.request import TimingProtocol
from evaluators.evaluation import Evaluation, Measure
from evaluators.latency.evaluator import LOCAL_TIMING, LatencyEvaluator, brief, waited
from evaluators.latency.readings import Reading
from evaluators.latency.turns import read_in_turns
from evaluators.onnx.builder import GRAPH_VERSION
from evaluators.statistics.ratio import ratio_in_turns
from search_space.design.genotype import Genotype
from search_space.errors import STORAGE
from studies.config.options import DeviceOptions
from studies.config.usage import UsageError
from studies.results.outcome import DesignResult, Timing, Turns, Value
from studies.results.study_outcome import IDENTITY, TURNS, outcome_of, turns_json
from studies.results.verdict import speed
from studies.study.identity import GRAPHS

# The ratio of two networks that were read in turns


def test_a_load_on_both_networks_cancels_out() -> None:
    other = [1.0, 1.1, 4.0, 1.0]
    found = ratio_in_turns([2 * ms for ms in other], other)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))


def test_the_interval_is_students_over_the_logarithms_of_the_rounds() -> None:
    found = ratio_in_turns([1.0, 2.0, 4.0], [1.0, 1.0, 1.0])
    assert found is not None
    # Logarithms to base 2: mean 1, standard deviation 1, and 4.3027 by Student's table.
    half = 4.302653 / 3**0.5
    assert (found.value, found.low, found.high) == pytest.approx(
        (2, 2 ** (1 - half), 2 ** (1 + half))
    )


def test_rounds_without_a_stable_reading_of_both_do_not_count() -> None:
    assert ratio_in_turns([1.0, None, 1.0, 1.0], [1.0, 1.0, None, 1.0]) is None
    assert ratio_in_turns([1.0, None, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]) is not None


def row(number: int, readings: Sequence[float | None], session: int = 1) -> DesignResult:
    turns = Turns(session, tuple(None if ms is None else Reading(ms, ms, ms) for ms in readings))
    return DesignResult(number, "complete", f"design {number}", latency=turns.latency, turns=turns)


def test_designs_that_differ_by_less_than_two_sessions_do_are_ordered_by_their_rounds() -> None:
    slow, fast = row(1, [1.10, 2.21, 1.09, 1.11]), row(2, [1.00, 2.00, 1.00, 1.00])
    found = speed(slow, fast)
    assert found is not None and found.low is not None
    assert found.low > 1


def test_readings_of_two_sessions_are_not_paired() -> None:
    slow, fast = row(1, [1.10, 1.10, 1.10, 1.10]), row(2, [1.00, 1.00, 1.00, 1.00], session=2)
    found = speed(slow, fast)
    assert found is not None and found.low is not None
    assert found.low < 1


def test_a_latency_is_the_median_of_its_stable_readings() -> None:
    readings = [Reading(1.0, 0.9, 1.1), None, Reading(3.0, 2.8, 3.2), Reading(1.2, 1.1, 1.3)]
    assert Turns(1, tuple(readings)).latency == Value(1.2, 0.9, 3.2)
    assert Turns(1, (None, None)).latency is None


def test_a_disturbed_reading_counts_only_where_all_are() -> None:
    disturbed = Reading(31.0, 27.3, 31.7, crowded="95 % of it was waiting for a processor")
    turns = Turns(1, (disturbed, Reading(1.6, 1.5, 1.7), disturbed))
    assert (turns.latency, turns.crowded) == (Value(1.6, 1.5, 1.7), "")
    turns = Turns(1, (disturbed, disturbed))
    assert (turns.latency, turns.crowded) == (Value(31.0, 27.3, 31.7), disturbed.crowded)


def test_on_a_shared_device_the_processor_times_of_the_rounds_are_compared() -> None:
    def timed(cpu_ms: float, timing: Timing, *wall_ms: float) -> DesignResult:
        turns = Turns(1, tuple(Reading(ms, ms, ms, cpu_ms=cpu_ms) for ms in wall_ms))
        return DesignResult(1, "complete", "", latency=turns.latency, turns=turns, timing=timing)

    for timing, expected in (("shared", 1.5), ("alone", 6.0**0.25)):
        slow = timed(1.5, timing, 1.5, 9.0, 1.5, 1.5)  # type: ignore[arg-type]
        fast = timed(1.0, timing, 1.5, 1.5, 1.5, 1.5)  # type: ignore[arg-type]
        found = speed(slow, fast)
        assert found is not None
        assert found.value == pytest.approx(expected)


def test_a_latency_that_was_mostly_waiting_is_called_disturbed() -> None:
    assert waited(31.0, 1.6) == "95 % of it was waiting for a processor"
    assert waited(1.7, 1.6) == ""
    assert waited(31.0, None) == ""


# How readings are taken


class Recorded:
    """A latency evaluator that answers at once and records what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.held: set[str] = set()

    def key(self, design: Any) -> str:
        return str(design).upper()

    def build(self, design: str) -> Any:
        self.held.add(design)
        made = {"path": design, "discard": lambda _: self.held.discard(design)}
        return type("Artifact", (), made)()

    def as_sent(self, artifact: Any) -> Any:
        return artifact

    protocol = LOCAL_TIMING

    def time(self, design: str, artifact: Any, timing: TimingProtocol) -> Evaluation:
        assert design in self.held and timing == brief(self.protocol)
        self.asked.append(design)
        unstable = "moved" if self.asked.count("b") == 2 and design == "b" else ""
        ms = float(len(self.asked))
        tail = [Measure(f"latency_{n}_ms", ms, "ms", "lower") for n in ("p95", "p99", "jitter")]
        measures = (Measure("latency_ms", ms, "ms", "lower", ms - 0.5, ms + 0.5), *tail)
        details = {"crowded": "", "cpu_ms": None, "device": "local"}
        return Evaluation("", "latency", measures, details, unstable=unstable)

    def settle(self) -> None:
        pass


def test_rounds_go_forwards_backwards_backwards_forwards() -> None:
    latency = Recorded()
    designs = cast(list[Genotype], ["a", "b", "A", "c"])  # `A` is timed by the graph of `a`
    found = read_in_turns(cast(LatencyEvaluator, latency), designs, 4)
    assert "".join(latency.asked).lower() == "abc" + "cba" + "cba" + "abc"
    bounds = [r and (r.low_ms, r.median_ms, r.high_ms, r.tail["p95"]) for r in found["B"]]
    assert bounds == [(1.5, 2, 2.5, 2), None, (7.5, 8, 8.5, 8), (10.5, 11, 11.5, 11)]
    assert not latency.held


# What a study makes of them


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The finished study, whose end is run again with three readings of each design."""
    base = tmp_path_factory.mktemp("retimed")
    shutil.copytree(finished_place(tmp_path_factory.getbasetemp()).folder, base / "place")
    return Place(base / "place")


def shown(place: Place, *more: str) -> dict[str, Any]:
    done = place.finish(place.run("--trials", "5", "--json", *more))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_front_named_designs_and_references_are_read_in_one_session(place: Place) -> None:
    found = shown(place, "--final-readings", "3")
    rows = found["trials"] + found["references"]
    read = [each for each in rows if "final_latency" in each]
    front = set(found["front"])
    assert front <= {each["number"] for each in read}
    assert {each["name"] for each in rows if each["name"] and each["state"] == "complete"} <= {
        each["name"] for each in read
    }
    assert len({each["final_latency"]["session"] for each in read}) == 1
    for each in read:
        readings = [Reading(**one) for one in each["final_latency"]["readings"] if one]
        assert len(each["final_latency"]["readings"]) == 3
        assert all(one.cpu_ms is not None and one.cpu_ms > 0 for one in readings)
        if each["final_latency"]["latency_ms_in_search"] is not None:
            assert each["latency_ms"]["value"] == Turns(1, tuple(readings)).latency.value  # type: ignore[union-attr]
    assert found["conditions"]["final latency"].startswith("front and named designs read 3 times")
    again = shown(place, "--final-readings", "3")
    assert again["trials"] == found["trials"], "the same study is not read again"


def study_of(place: Place) -> optuna.Study:
    return optuna.load_study(study_name="pareto-data-tiny", storage=place.url)


def test_a_design_that_was_read_too_fast_leaves_the_front(place: Place, tmp_path: Path) -> None:
    shutil.copytree(place.folder, tmp_path / "place")
    study = study_of(Place(tmp_path / "place"))
    fastest = outcome_of(study).front[0]
    slow = Reading(1e4, 1e4, 1e4)
    stored = {**study.user_attrs.get(TURNS, {}), str(fastest.number): turns_json(9, (slow,) * 3)}
    study.set_user_attr(TURNS, stored)
    outcome = outcome_of(study)
    assert fastest.number not in {each.number for each in outcome.front[:-1]}
    [retimed] = [each for each in outcome.rows if each.number == fastest.number]
    assert retimed.latency == Value(1e4, 1e4, 1e4)
    assert any("had another latency when timed again" in said for said in outcome.cautions)
    study.set_user_attr("subject", {**study.user_attrs["subject"], "latency_limit_ms": 100.0})
    [over] = [each for each in outcome_of(study).rows if each.number == fastest.number]
    assert over.state == "infeasible"
    assert over.reason.startswith("10000.000 ms, when timed again at the end, is over the latency")


def test_readings_that_give_no_interval_are_refused() -> None:
    for count in (-1, 1, 2, 101):
        with pytest.raises(UsageError, match="--final-readings"):
            DeviceOptions(final_readings=count)
    with pytest.raises(UsageError, match="--retime with --final-readings 0"):
        DeviceOptions(final_readings=0, retime=True)


def test_a_study_whose_graphs_were_exported_otherwise_is_not_resumed(
    place: Place, tmp_path: Path
) -> None:
    shutil.copytree(place.folder, tmp_path / "place")
    old = Place(tmp_path / "place")
    study = study_of(old)
    study.set_user_attr(IDENTITY, {**study.user_attrs[IDENTITY], GRAPHS: GRAPH_VERSION - 1})
    done = old.finish(old.run("--trials", "6"))
    assert done.returncode == STORAGE
    assert "a version that exported other graphs cannot be resumed" in done.stderr
