"""A study on two unlike boards, each a real SSH server on the loopback with its own threads."""

import json
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
import sshd
from desk import Desk, one_line
from sshd import start_sshd
from tiny import new_place

import fusion_nas
from search_space import errors as codes
from studies.results.study_outcome import IDENTITY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(sshd.missing()), reason=sshd.missing()),
]
BOARDS = "first,nano:cpu:2"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A place that knows the boards orin, whose tag is `first`, and nano."""
    folder = tmp_path_factory.mktemp("boards")
    with start_sshd(folder / "orin") as first, start_sshd(folder / "nano") as second:
        place = new_place(folder / "place", COLUMNS="100")
        for name, server in (("orin", first), ("nano", second)):
            board = Desk(place, server)
            board.add(name)
            board.install(name)
        assert Desk(place, first).device("tag", "orin", "first").returncode == 0
        yield Desk(place, first)


@pytest.fixture(scope="module")
def outcome(desk: Desk) -> Any:
    """What a study of six trials on both boards came to."""
    command = desk.place.run(
        "--device", BOARDS, "--threads", "1", "--timing", "shared", "--trials", "5", "--seed-paper",
        "--name", "both", "--seeds", "1", "--final-readings", "0", "--json",
    )  # fmt: skip
    done = desk.place.finish(command)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_complete_design_is_timed_on_both_boards(outcome: Any) -> None:
    complete = [trial for trial in outcome["trials"] if trial["state"] == "complete"]
    assert len(complete) >= 3
    for trial in complete:
        assert trial["device"] == "orin" and trial["boards"]["nano"]["device"] == "nano"
        assert trial["latency_ms"]["value"] > 0
        assert trial["further"]["latency@nano"]["value"] > 0
    assert outcome["objectives"] == ["accuracy", "latency", "latency@nano"]
    assert "2 threads" in outcome["conditions"]["board nano"]


def test_each_board_has_a_front_and_designs_are_good_on_both(outcome: Any) -> None:
    trials = {trial["number"]: trial for trial in outcome["trials"]}
    ms = {
        "first": lambda trial: trial["latency_ms"]["value"],
        "nano": lambda trial: trial["further"]["latency@nano"]["value"],
    }
    found = outcome["boards"]
    for board, of in ms.items():
        front = [trials[number] for number in found["fronts"][board]]
        assert front
        assert sorted(front, key=of) == front
        for row in front:
            for other in trials.values():
                if other["state"] == "complete" and other["duplicate_of"] is None:
                    accuracy = "valid_accuracy_percent"
                    better = other[accuracy]["value"] > row[accuracy]["value"]
                    assert not (better and of(other) <= of(row)), (board, row, other)
    (ranks,) = found["latency_ranks"]
    assert ranks["boards"] == ["first", "nano"] and -1 <= ranks["kendall_tau"] <= 1
    on_both = set(found["fronts"]["first"]) & set(found["fronts"]["nano"])
    assert on_both <= {each["trial"] for each in found["good_on_all"]}


def test_report_compare_and_python_read_the_boards(desk: Desk, outcome: Any) -> None:
    shown = desk.place.finish(desk.place.command("report", "--name", "both"))
    assert shown.returncode == 0, shown.stderr
    assert "Front on nano, fastest first" in shown.stdout and "Good on all boards" in shown.stdout
    page = next((desk.place.folder / "runs").glob("*.html")).read_text("utf-8")
    assert "Front on nano, fastest first" in page
    compared = desk.place.finish(desk.place.command("compare", "both", "--json"))
    assert compared.returncode == 0, compared.stderr
    sides = json.loads(compared.stdout)
    assert [side["study"] for side in sides["studies"]] == ["both on first", "both on nano"]
    assert sides["latency_differs_by"] == ["threads"]
    for side, board in zip(sides["studies"], ("first", "nano"), strict=True):
        assert [row["number"] for row in side["front"]] == outcome["boards"]["fronts"][board]
    study = fusion_nas.load(desk.place.url, "both")
    assert study.boards == ("first", "nano")
    assert [each.number for each in study.front_on("nano")] == outcome["boards"]["fronts"]["nano"]
    good = [each["trial"] for each in outcome["boards"]["good_on_all"]]
    assert [each.number for each in study.good_on_all_boards] == good
    fastest = min(each.latency_on("nano") for each in study.front_on("nano"))
    best = study.best(latencies_ms={"nano": fastest})
    assert best.latency_on("nano") == fastest
    with pytest.raises(ValueError, match="no board 'xavier'; there are first, nano"):
        study.front_on("xavier")


def test_a_design_is_chosen_by_either_board(desk: Desk, outcome: Any) -> None:
    nano = {
        trial["number"]: trial["further"]["latency@nano"]["value"]
        for trial in outcome["trials"]
        if trial["state"] == "complete"
    }
    limit = f"{sorted(nano.values())[1]:.6f}9"
    for flags in (("--board", "nano", "--latency", limit), ("--limit", f"latency@nano={limit}")):
        done = desk.place.finish(desk.place.command("choose", "--name", "both", "--json", *flags))
        assert done.returncode == 0, done.stderr
        assert nano[json.loads(done.stdout)["trial"]] <= float(limit)
    done = desk.place.finish(desk.place.command("choose", "--name", "both", "--board", "xavier"))
    one_line(done, codes.USAGE, "--board xavier", "first, nano")


def test_a_limit_alone_makes_a_board_a_constraint(desk: Desk, outcome: Any) -> None:
    values = [
        trial["further"]["latency@nano"]["value"]
        for trial in outcome["trials"]
        if trial["state"] == "complete"
    ]
    limit = sorted(values)[len(values) // 2]
    command = desk.place.run(
        "--device", BOARDS, "--threads", "1", "--timing", "shared", "--trials", "5", "--seed-paper",
        "--name", "bounded", "--seeds", "1", "--final-readings", "0", "--limit",
        f"latency@nano={limit}", "--json",
    )  # fmt: skip
    done = desk.place.finish(command)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["objectives"] == ["accuracy", "latency"]
    states = {"complete": 0, "infeasible": 0}
    for trial in found["trials"]:
        states[trial["state"]] = states.get(trial["state"], 0) + 1
        on_nano = trial["further"].get("latency@nano")
        if trial["state"] == "complete":
            assert on_nano["value"] <= limit
        elif on_nano is not None and on_nano["value"] > limit:
            assert "latency on nano" in trial["reason"] and trial["valid_accuracy_percent"] is None
    assert states["complete"] and states["infeasible"]


def test_a_study_is_resumed_on_the_same_boards_alone(desk: Desk, outcome: Any) -> None:
    study = optuna.load_study(study_name="both", storage=desk.place.url)
    _, runtime, threads = study.user_attrs[IDENTITY]["boards"]["nano"]
    assert (runtime, threads) == ("cpu", 2)
    for devices, said in (("first,nano:cpu:3", "boards"), ("first", "objectives")):
        done = desk.place.finish(
            desk.place.run(
                "--device", devices, "--threads", "1", "--timing", "shared", "--trials", "6",
                "--name", "both",
            )
        )  # fmt: skip
        one_line(done, codes.STORAGE, said)


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ("orin,nano", ("equal boards", "--device orin --device nano")),
        ("orin,orin:cpu:2", ("orin is given twice",)),
        ("orin,local", ("'local' cannot share a study",)),
        ("orin:cpu,nano", ("follow the name of a board that stands after a comma",)),
        ("orin,nano:warp", ("'warp'", "choose one of")),
        (
            "orin,xavier",
            ("no device 'xavier'", "known are local and, over SSH, nano, orin, tags are first"),
        ),
        ("orin,nano:cpu:many", ("'many' is no number of threads",)),
    ],
)
def test_boards_that_cannot_be_meant_are_refused_in_one_line(
    desk: Desk, devices: str, words: tuple[str, ...]
) -> None:
    command = desk.place.run("--device", devices, "--timing", "shared", "--trials", "1")
    one_line(desk.place.finish(command), codes.USAGE, *words)


def test_a_board_is_given_once_and_a_tag_is_no_device(desk: Desk) -> None:
    both = desk.place.run("--device", "orin,first:cpu:2", "--trials", "1")
    one_line(desk.place.finish(both), codes.USAGE, "board orin is in orin and in first")
    one_line(desk.device("tag", "nano", "orin"), codes.USAGE, "'orin' is the name of a device")
    assert "tags first" in desk.device("list").stdout


def test_the_queue_of_each_board_is_shown(desk: Desk) -> None:
    done = desk.device("queue", "first", "nano")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["orin", "free", "nano", "free"]
    found = json.loads(desk.device("queue", "--json").stdout)["boards"]
    assert [(board["name"], board["state"]) for board in found] == [
        ("nano", "free"),
        ("orin", "free"),
    ]
    one_line(desk.device("queue", "xavier"), codes.USAGE, "no device 'xavier'", "tags are first")
