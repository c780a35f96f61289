"""Timing any ONNX file: alone, and in turns with a baseline."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import Result
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from evaluators.latency.evaluator import MeasureError
from studies.cli.app import app
from studies.config.usage import UsageError
from studies.trained.timing import (
    Slowdown,
    SlowerThanBaseline,
    check_slowdown,
    shapes_of,
    time_file,
)


@dataclass
class Reading:
    """Of a device's result, what is looked at."""

    median_ms: float
    stable: bool = True
    instability_reasons: tuple[str, ...] = ()
    peak_memory_mb: float | None = None
    others_cores: float | None = None
    jitter_ms: float = 0.01

    @property
    def percentiles_ms(self) -> dict[str, float]:
        return {"p50": self.median_ms, "p95": 1.1 * self.median_ms, "p99": 1.5 * self.median_ms}

    @property
    def interval_ms(self) -> tuple[float, float]:
        return 0.999 * self.median_ms, 1.001 * self.median_ms

    @property
    def rounds(self) -> tuple["Reading"]:
        return (self,)


@dataclass
class Device:
    """A device under a load that grows from one reading to the next."""

    ms: dict[str, float]
    grows: float = 0.1
    stable: bool = True
    name: str = "board"
    fingerprint: str = "f"
    way_out: str = "stop other programs"
    order: list[str] = field(default_factory=list)

    def time(self, path: Path, shapes: Any) -> Reading:
        self.order.append(path.name)
        load = 1 + self.grows * len(self.order)
        return Reading(self.ms[path.name] * load, self.stable, ("it shook",))


def two_files(folder: Path) -> tuple[Path, Path]:
    files = folder / "new.onnx", folder / "old.onnx"
    for file in files:
        file.touch()
    return files


def test_a_load_that_grows_steadily_makes_no_file_slower(tmp_path: Path) -> None:
    new, old = two_files(tmp_path)
    device = Device({"new.onnx": 2.0, "old.onnx": 2.0})
    found = time_file(device, new, old, {}, 0.05)  # type: ignore[arg-type]
    assert "".join("A" if name == "new.onnx" else "B" for name in device.order) == "ABBAABBA"
    assert found["slowdown"]["low"] < 1 < found["slowdown"]["high"]
    assert found["slowdown"]["ratio"] == pytest.approx(1, abs=0.01)
    low, high = found["interval_ms"]
    assert low < found["median_ms"] < high and found["verdict"] == "undecided"


@pytest.mark.parametrize(
    ("ratio", "low", "high", "expected"),
    [(1.3, 1.2, 1.4, "slower"), (1.1, 1.0, 1.2, "undecided"), (1.0, 0.97, 1.04, "ok")],
)
def test_a_slowdown_counts_where_its_interval_lies_above_the_tolerance(
    ratio: float, low: float, high: float, expected: str
) -> None:
    assert Slowdown(ratio, low, high).verdict(0.05) == expected
    slowdown = {"ratio": ratio, "low": low, "high": high}
    found = {"slowdown": slowdown, "tolerance": 0.05, "verdict": expected}
    if expected == "slower":
        with pytest.raises(SlowerThanBaseline, match="slower by more than 5 %") as raised:
            check_slowdown(found)
        assert raised.value.exit_code == 10
    else:
        assert ("it is not shown" in check_slowdown(found)) == (expected == "undecided")


def test_what_cannot_be_timed_is_told(tmp_path: Path) -> None:
    new, old = two_files(tmp_path)
    shaky = Device({"new.onnx": 2.0, "old.onnx": 2.0}, stable=False)
    with pytest.raises(Exception, match=r"new\.onnx on board: no stable reading .it shook"):
        time_file(shaky, new, old, {}, 0.05)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"none\.onnx: no such file"):
        time_file(shaky, new, tmp_path / "none.onnx", {}, 0.05)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--shape 'x': give NAME=EXTENT"):
        shapes_of(["x"])
    assert shapes_of(["x=1,3", "y=2"]) == {"x": (1, 3), "y": (2,)}


def test_a_file_and_its_baseline_have_extents_of_their_own(tmp_path: Path) -> None:
    new, old = two_files(tmp_path)
    device, asked = Device({"new.onnx": 2.0, "old.onnx": 2.0}), set()
    timed = device.time

    def time(path: Path, shapes: Any) -> Reading:
        asked.add((path.name, *shapes.items()))
        return timed(path, shapes)

    device.time = time  # type: ignore[method-assign]
    time_file(device, new, old, {"x": (1, 8)}, 0.05, {"y": (1, 4)})  # type: ignore[arg-type]
    assert asked == {("new.onnx", ("x", (1, 8))), ("old.onnx", ("y", (1, 4)))}


def test_extents_of_a_baseline_need_a_baseline() -> None:
    done = CliRunner().invoke(app, ["time", "new.onnx", "--baseline-shape", "x=1"])
    assert done.exit_code == 2 and "--baseline-shape without --baseline" in done.output


def network(path: Path, layers: int) -> Path:
    """Matrix products of 256 x 256, one after another."""
    weight = np.eye(256, dtype=np.float32)
    names = [f"h{k}" for k in range(layers)]
    nodes = [
        helper.make_node("MatMul", [a, "w"], [b])
        for a, b in zip(["x", *names[:-1]], names, strict=True)
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [64, 256])
        for name in ("x", names[-1])
    ]
    graph = helper.make_graph(
        nodes, "products", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def stable(*arguments: str) -> Result:
    """`fusion-nas time`, again where other work of this machine made its readings unstable."""
    for _ in range(5):
        done = CliRunner().invoke(app, ["time", *arguments])
        if done.exit_code != MeasureError.exit_code:
            break
        assert "no stable reading" in done.output and "repeat the command" in done.output
    return done


def test_the_command_ends_with_10_for_a_network_four_times_its_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSION_NAS_HOME", str(tmp_path / "home"))
    large, small = network(tmp_path / "large.onnx", 40), network(tmp_path / "small.onnx", 10)
    flags = ["--timing", "shared", "--baseline"]
    slower = stable(str(large), *flags, str(small), "--json")
    assert slower.exit_code == 10, slower.output
    found = json.loads(slower.stdout)
    assert (
        len(found["readings_ms"]) == 4
        and found["slowdown"]["low"] > 1.05
        and found["verdict"] == "slower"
    )
    faster = stable(str(small), *flags, str(large))
    assert faster.exit_code == 0 and "small.onnx on local:" in faster.stdout
    refused = CliRunner().invoke(app, ["time", str(small), "--tolerance", "-1"])
    assert refused.exit_code == 2
