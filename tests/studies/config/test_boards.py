"""What `--device` names, and which objectives and limits boards bring."""

import pytest

from studies.config.boards import UnlikeBoard, boards_of, with_objectives
from studies.config.options import DeviceOptions
from studies.config.settings import Settings
from studies.config.usage import UsageError
from studies.results.objectives import boards_in, goals


def test_a_comma_separates_unlike_boards_and_several_values_are_equal_ones() -> None:
    assert boards_of(("orin-1", "orin-2")).first == ("orin-1", "orin-2")
    found = boards_of(("orin, nano:cpu:2,pi:openvino",))
    assert found.first == ("orin",)
    assert found.unlike == (UnlikeBoard("nano", "cpu", 2), UnlikeBoard("pi", "openvino"))
    with pytest.raises(UsageError, match="several --device are equal ones"):
        boards_of(("orin,nano", "xavier"))


def test_an_unlike_board_has_the_options_of_the_study_but_for_its_own() -> None:
    options = DeviceOptions(("orin,nano:cpu:2,pi",), threads=1, runtime="cuda")
    nano, pi = options.unlike
    assert (nano.names, nano.runtime, nano.runtime_threads, nano.alone) == (
        ("nano",),
        "cpu",
        2,
        True,
    )
    assert (pi.runtime, pi.runtime_threads) == ("cuda", 1)
    assert options.boards.first == ("orin",) and not DeviceOptions(("orin",)).unlike


def test_each_further_board_is_an_objective_unless_it_is_limited() -> None:
    boards = {"devices": ("orin,nano,pi",)}
    assert with_objectives(boards)["objectives"] == ("latency@nano", "latency@pi")
    limited = with_objectives({**boards, "limits": ("latency@nano=15",)})
    assert limited["objectives"] == ("latency@pi",)
    assert with_objectives({"devices": ("orin",), "objectives": ("energy",)}) == {
        "devices": ("orin",),
        "objectives": ("energy",),
    }
    settings = Settings.from_options({"preset": "pareto", "devices": ("orin,nano",)})
    assert [each.name for each in settings.search.goals.more] == ["latency@nano"]
    stored = Settings.from_stored(settings.to_stored())
    assert stored.search.objectives == settings.search.objectives


def test_an_objective_of_a_board_is_timed_there_and_has_its_unit() -> None:
    (objective,) = goals(("energy@nano",), ()).more
    assert objective.board == "nano" and objective.measure == "nano:energy_mj"
    assert objective.words == "energy an inference on nano, mJ" and not objective.higher
    assert boards_in(["nano:latency_ms", "latency_ms", "nano:compile_s"]) == {
        "nano:latency_ms": "latency@nano"
    }
    assert goals((), ("latency@nano=15",)).limits[0].missed_by(16) == 1
    for name in ("accuracy@nano", "latency@", "parameters@nano"):
        with pytest.raises(ValueError, match="of a board there are latency@BOARD"):
            goals((name,), ())


def test_too_many_boards_are_refused_with_a_way_out() -> None:
    with pytest.raises(UsageError, match="or bound one: --limit latency@d=NUMBER"):
        Settings.from_options({"preset": "pareto", "devices": ("a,b,c,d",)})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("orin:cpu", "follow the name of a board that stands after a comma"),
        ("orin,", "give NAME, NAME:RUNTIME"),
        ("orin,nano:cpu:2:3", "give NAME, NAME:RUNTIME"),
        ("orin,nano::2", "give NAME, NAME:RUNTIME"),
        ("orin,nano:cpu:-1", "--threads -1"),
        ("orin,na no", "device name 'na no'"),
        ("local,nano", "'local' cannot share a study"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        DeviceOptions((given,))
