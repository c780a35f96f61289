"""A schedule in simulated time, made by the loop that runs real studies."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from studies.cli.app import app
from studies.simulation.case import (
    FREE,
    Case,
    DatabaseCosts,
    SimulationError,
    TrialSeconds,
    given_database,
    given_seconds,
)
from studies.simulation.engine import Engine, Station
from studies.simulation.simulate import Part, Schedule, simulate
from studies.simulation.words import bottleneck, in_words

TRAINED = TrialSeconds(asking=0.0, building=0.0, timing=10.0, training=30.0)
COSTS = DatabaseCosts(call_s=0.001, load_s=0.01, worker_s=0.0)


def case(**changes: object) -> Case:
    made = Case(trials=12, workers=1, seconds=[TRAINED], source="given")
    return replace(made, **changes)  # type: ignore[arg-type]


def use(part: Part, name: str) -> float:
    return next(each.utilisation for each in part.stations if each.name == name)


def only(schedule: Schedule) -> Part:
    (part,) = schedule.parts
    return part


def test_a_station_serves_in_the_order_of_arrival_and_adds_up_what_it_was_held() -> None:
    engine, served = Engine(), []
    station = Station(engine, 1)

    def work(name: str, after_s: float, held_s: float) -> None:
        engine.sleep(after_s)
        with station.held():
            served.append((name, engine.now_s))
            engine.sleep(held_s)

    engine.start(lambda: work("b", 1.0, 2.0))
    engine.start(lambda: work("a", 0.0, 5.0))
    engine.start(lambda: work("c", 2.0, 1.0))
    engine.run()
    assert served == [("a", 0.0), ("b", 5.0), ("c", 7.0)]
    assert station.busy_s() == 8.0 and station.waited_s == 4.0 + 5.0 and engine.now_s == 8.0


def test_what_a_worker_raises_ends_the_simulation() -> None:
    engine = Engine()

    def fail() -> None:
        engine.sleep(1.0)
        raise ValueError("in a worker")

    engine.start(fail)
    with pytest.raises(ValueError, match="in a worker"):
        engine.run()


def test_one_worker_takes_the_sum_of_its_trials() -> None:
    part = only(simulate(case()))
    assert part.trials == 12 and part.seconds == pytest.approx(12 * 40.0)
    assert use(part, "boards") == pytest.approx(0.25) and part.working == pytest.approx(1.0)
    assert bottleneck(part) == "workers"


def test_one_board_is_the_limit_of_many_workers() -> None:
    schedule = simulate(case(trials=80, workers=8))
    part = only(schedule)
    assert part.seconds == pytest.approx(80 * 10.0 + 30.0)
    assert use(part, "boards") == pytest.approx(800 / 830)
    assert bottleneck(part) == "boards"
    assert "2 boards" not in " ".join(in_words(simulate(case(trials=80, workers=2))))
    assert "saturated: boards. 3 boards would keep pace with 8 workers" in " ".join(
        in_words(schedule)
    )


def test_designs_that_were_not_trained_in_the_study_are_not_trained_here() -> None:
    pruned = TrialSeconds(0.0, 0.0, 10.0, None)
    assert only(simulate(case(seconds=[pruned]))).seconds == pytest.approx(12 * 10.0)


def test_workers_of_a_host_ask_one_at_a_time_and_those_of_several_hosts_do_not() -> None:
    slow = [TrialSeconds(asking=10.0, building=0.0, timing=0.0, training=10.0)]
    one, two = (
        only(simulate(case(seconds=slow, trials=60, workers=6, hosts=hosts))) for hosts in (1, 2)
    )
    assert bottleneck(one) == "asking" and use(one, "asking") > 0.95
    assert one.seconds == pytest.approx(60 * 10.0 + 10.0)
    assert two.seconds == pytest.approx(30 * 10.0 + 10.0)


def test_a_database_that_each_worker_reads_each_trial_of_becomes_the_limit() -> None:
    seconds = [TrialSeconds(0.0, 0.0, 0.0, 1.0)]
    few, many = (
        only(
            simulate(
                case(
                    seconds=seconds,
                    trials=10 * n,
                    workers=n,
                    hosts=n,
                    database_cores=1,
                    costs=COSTS,
                )
            )
        )
        for n in (1, 20)
    )
    assert bottleneck(few) == "workers" and bottleneck(many) == "database"


def test_case_and_seed_decide_the_schedule() -> None:
    seconds = [TRAINED, TrialSeconds(0.1, 1.0, 5.0, None), TrialSeconds(0.2, 2.0, 3.0, 50.0)]
    drawn = case(seconds=seconds, trials=30, workers=4, boards=2)
    assert simulate(drawn, 3) == simulate(drawn, 3)
    assert simulate(drawn, 3).seconds != simulate(drawn, 4).seconds


def test_a_long_study_is_simulated_in_parts_and_slows_with_its_sampler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("studies.simulation.simulate.WHOLE_AT_MOST", 60)
    schedule = simulate(case(trials=100_000, workers=4, asking_growth_s=1.0))
    assert [part.before for part in schedule.parts] == [0, 49_990, 99_980]
    assert schedule.simulated == 60
    pace = [part.trials_a_second for part in schedule.parts]
    assert pace[0] > pace[1] > pace[2]
    assert [bottleneck(part) for part in schedule.parts][1:] == ["asking", "asking"]
    assert 100_000 / pace[0] < schedule.seconds < 100_000 / pace[2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"boards": 0}, "--boards 0: give 1 or more"),
        ({"hosts": 2}, "--hosts 2: more than 1 worker"),
        ({"asking_growth_s": -1.0}, "--asking-growth -1"),
    ],
)
def test_a_case_that_cannot_be_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(SimulationError, match=words):
        case(**changes)


@pytest.mark.parametrize(
    ("given", "words"),
    [({"waiting": 1.0}, "choose of"), ({"timing": -1.0}, "0 or more"), ({}, "above 0")],
)
def test_seconds_that_say_nothing_are_refused(given: dict[str, float], words: str) -> None:
    with pytest.raises(SimulationError, match=words):
        given_seconds(given)


def test_costs_of_a_database_are_given_by_name() -> None:
    assert given_database({}) == (0, FREE)
    assert given_database({"cores": 4, "load": 0.01}) == (4, DatabaseCosts(0.0, 0.01, 0.0))
    for wrong in ({"cores": 0}, {"disk": 1}, {"call": -1}):
        with pytest.raises(SimulationError, match="--database"):
            given_database(wrong)


def test_the_command_says_what_is_saturated() -> None:
    given = ["--seconds", "timing=10", "--seconds", "training=30"]
    many = ["--trials", "80", "--workers", "8"]
    done = CliRunner().invoke(app, ["plan", *given, *many])
    assert done.exit_code == 0, done.output
    assert "saturated: boards" in done.output and "the study takes about 14 min" in done.output
    wrong = CliRunner().invoke(app, ["plan", "--seconds", "timing=soon"])
    assert wrong.exit_code == 2 and "not NAME=NUMBER" in wrong.output
