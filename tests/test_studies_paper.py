"""`fusion-nas paper`: the published designs, timed one at a time and shown beside their figures."""

import io
import json
from pathlib import Path

import pytest
from filelock import FileLock, Timeout
from rich.console import Console
from tiny import write_space

from evaluators.device_client import DeviceClient
from evaluators.evaluation import Evaluation, Measure
from search_space.named import load_space
from search_space.paper import SeededDesign, seeded_designs
from studies.paper_table import Timed, table_of, time_paper


def published() -> list[SeededDesign]:
    """The paper's six fused designs at full size."""
    space = load_space("paper", weights="random")
    return [
        s for s in seeded_designs(space) if s.genotype.text_encoder and s.genotype.vision_encoder
    ]


def timings(designs: list[SeededDesign], ms: dict[int, float], unstable: str = "") -> Timed:
    """What timing came to at each text length."""
    return {
        (seeded.name, length): Evaluation(
            f"{k}-{length}",
            "latency",
            (Measure("latency_ms", latency + k, "ms", "lower"),),
            unstable=unstable,
        )
        for k, seeded in enumerate(designs)
        for length, latency in ms.items()
    }


def shown(width: int = 80, unstable: str = "") -> str:
    """The table with the widest figures that are to be expected."""
    designs, ms = published(), {512: 1234.5, 64: 234.5}
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table_of(designs, tuple(ms), timings(designs, ms, unstable)))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_of_two_lengths_fits_80_columns_with_every_name_and_figure_on_one_line() -> None:
    lines = [line.split() for line in shown().splitlines()]
    assert max(map(len, shown().splitlines())) <= 80
    assert max(map(len, shown(unstable="the board is hot").splitlines())) <= 80
    assert ["late-mobilenetv2", "1234.5", "1.00", "234.5", "1.00", "21.6", "1.00"] in lines
    assert ["intermediate-mobilenetv2", "1236.5", "1.00", "236.5", "1.01", "13.5", "0.62"] in lines
    assert ["early-vit", "1239.5", "1.00", "239.5", "1.02", "10.951", "-"] in lines


def test_names_that_find_no_room_are_folded_and_not_cut() -> None:
    said = shown(width=60)
    assert max(map(len, said.splitlines())) <= 60 and "…" not in said
    names = "".join(line[:12].strip() for line in said.splitlines())
    assert all(seeded.name in names for seeded in published())


def test_designs_are_timed_in_turn_with_other_commands_of_the_home_at_a_length_they_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space, home = write_space(tmp_path / "tiny.toml"), tmp_path / "home"
    monkeypatch.setenv("FUSION_NAS_HOME", str(home))
    measure, agents = DeviceClient.measure, []

    def seen(self: DeviceClient, *given: object, **more: object) -> object:
        with pytest.raises(Timeout):
            FileLock(home / "device" / "timing.lock").acquire(timeout=0)
        with pytest.raises(Timeout):
            FileLock(home / "device" / "agent-1.lock").acquire(timeout=0)
        agents.append(self)
        return measure(self, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(DeviceClient, "measure", seen)
    time_paper(str(space), "random", (), 1, as_json=True)
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["text_tokens"] for row in rows} == {16}, "tiny-bert takes no longer texts"
    assert len(agents) == len(rows) == 3
    FileLock(home / "device" / "agent-1.lock").acquire(timeout=0).lock.release()
