"""A small graph and a request to time it, for an agent."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from device_agent.wire.request import MeasureRequest, TensorSpec, TimingProtocol

QUICK = TimingProtocol(
    warmup_min_runs=1, warmup_min_s=0.0, warmup_max_s=0.1, min_repeats=6, max_repeats=12,
    min_time_s=0.0, max_time_s=1.0, interval_share=100.0, block_tolerance=100.0,
    reference_tolerance=100.0, reference_runs=3, others_cores=1e6, watch_board=False, retries=0,
    steady_runs=1, steady_tolerance=1.0,
)  # fmt: skip
SLOW_STEPS = 2**40


def network(path: Path, operator: str = "Abs") -> Path:
    """Write `y = operator(x)`, or as `Loop` one that takes days to run."""
    helper, kinds = onnx.helper, onnx.TensorProto
    x, y = (helper.make_tensor_value_info(name, kinds.FLOAT, [4]) for name in "xy")
    node = helper.make_node(operator, ["x"], ["y"])
    constants = []
    if operator == "Loop":
        flags = [helper.make_tensor_value_info(name, kinds.BOOL, []) for name in ("go", "on")]
        step = helper.make_tensor_value_info("step", kinds.INT64, [])
        ends = [helper.make_tensor_value_info(name, kinds.FLOAT, [4]) for name in ("a", "b")]
        body = helper.make_graph(
            [helper.make_node("Cos", ["a"], ["b"]), helper.make_node("Identity", ["go"], ["on"])],
            "body", [step, flags[0], ends[0]], [flags[1], ends[1]],
        )  # fmt: skip
        constants = [
            helper.make_tensor("steps", kinds.INT64, [], [SLOW_STEPS]),
            helper.make_tensor("true", kinds.BOOL, [], [True]),
        ]
        node = helper.make_node("Loop", ["steps", "true", "x"], ["y"], body=body)
    graph = helper.make_graph([node], "graph", [x], [y], constants)
    versions = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=versions, ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


def request(artifact: Path, **changes: Any) -> MeasureRequest:
    sha256 = hashlib.sha256(artifact.read_bytes()).hexdigest()
    x = TensorSpec("x", "float32", (4,), low=-1.0, high=1.0)
    return replace(MeasureRequest(sha256, (x,), timing=QUICK, deadline_s=60.0), **changes)
