"""Values of the protocol refuse what is wrong, name it, and survive the trip as JSON."""

import json
import math
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.board.description import DeviceInfo, RuntimeInfo
from device_agent.board.power import Energy
from device_agent.board.state import Board, BoardState
from device_agent.timing.inputs import tensor_bytes
from device_agent.wire.request import (
    BOUNDS,
    DTYPES,
    MeasureRequest,
    MeasureResult,
    ProtocolError,
    Status,
    TensorSpec,
    TimingProtocol,
    job_id_of,
)
from device_agent.wire.result import Round, half_samples

SHA = "0123456789abcdef" * 4
TOKENS = TensorSpec("ids", "int64", (1, 50), high=30_522)
IMAGE = TensorSpec("image", "float32", (1, 3, 8, 8), fill="normal")
REQUEST = MeasureRequest(SHA, (TOKENS, IMAGE))
DOUBTED = Round((9.0, 8.0), (0, 0), (0.5, 0.9), None, ("the board got hot",))
ROUND = Round((3.0, 1.0, 2.0, 10.0), (0, 0, 1, 1), (0.5, 0.6), 0.25)
GOOD = MeasureResult(
    Status.OK, rounds=(DOUBTED, ROUND), steady=True, warmup_runs=5, compile_s=0.5,
    peak_memory_mb=60.5, output_sha256=SHA, runtime_version="1.23",
    board_before=BoardState(governor="performance", temperatures_c=(("cpu", 41.5),)),
    board_after=BoardState(), provider="CPUExecutionProvider", device_ms=1.75,
    energy=Energy(41.5, 6.25, 2.5, 150, "INA3221 VDD_IN"),
)  # fmt: skip


def through_json(value: object) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))


def test_a_request_survives_the_trip() -> None:
    assert MeasureRequest.from_json(through_json(REQUEST.as_json())) == REQUEST


def test_a_result_survives_the_trip() -> None:
    failed = MeasureResult(Status.INFEASIBLE, "no such operator")
    for result in (GOOD, failed):
        assert MeasureResult.from_json(through_json(result.as_json())) == result


def test_a_result_tells_median_and_spread() -> None:
    assert (GOOD.median_ms, GOOD.mad_ms) == (2.5, 1.0)
    assert GOOD.interval_ms == (1.0, 10.0)
    assert GOOD.block_medians_ms == (2.0, 6.0)
    assert GOOD.percentiles_ms == {"p50": 2.0, "p95": 10.0, "p99": 10.0}
    assert GOOD.jitter_ms == 5.0, "between blocks nothing is compared"
    hundred = replace(
        GOOD,
        rounds=(replace(ROUND, samples_ms=tuple(map(float, range(1, 101))), block_of=(0,) * 100),),
    )
    assert hundred.percentiles_ms == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


def test_a_failed_result_has_no_median_and_says_why() -> None:
    with pytest.raises(ProtocolError, match="infeasible: no such operator"):
        _ = MeasureResult(Status.INFEASIBLE, "no such operator").median_ms


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rounds", ()),
        ("rounds", ROUND),
        ("rounds", (None,)),
        ("rounds", 3_000 * (ROUND,)),
        ("reason", "slow"),
        ("status", "ok"),
        ("compile_s", None),
        ("compile_s", -1.0),
        ("output_sha256", "../../etc/passwd"),
        ("warmup_runs", True),
    ],
)
def test_a_result_that_is_ok_must_be_so_in_all_its_fields(field: str, value: Any) -> None:
    with pytest.raises(ProtocolError, match=field):
        replace(GOOD, **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("samples_ms", ()),
        ("samples_ms", (1.0, math.nan, 1.0, 1.0)),
        ("samples_ms", (1.0, math.inf, 1.0, 1.0)),
        ("samples_ms", (1.0, 0.0, 1.0, 1.0)),
        ("samples_ms", (1.0, -1.0, 1.0, 1.0)),
        ("samples_ms", (1.0, "1.0", 1.0, 1.0)),
        ("samples_ms", [1.0, 1.0, 1.0, 1.0]),
        ("block_of", (0, 0, 1)),
        ("block_of", (1, 1, 2, 2)),
        ("block_of", (0, 1, 0, 1)),
        ("block_of", (0, 0, 2, 2)),
        ("drift_reference_ms", (1.0,)),
        ("drift_reference_ms", (1.0, 0.0)),
        ("drift_reference_ms", (1.0, math.nan)),
        ("others_cores", -0.5),
        ("others_cores", math.inf),
        ("instability_reasons", ("",)),
        ("instability_reasons", "hot"),
        ("instability_reasons", 40 * ("hot",)),
    ],
)
def test_a_round_must_be_whole(field: str, value: Any) -> None:
    with pytest.raises(ProtocolError, match=field):
        replace(ROUND, **{field: value})


def test_the_last_round_counts_and_its_doubts_make_a_result_unstable() -> None:
    assert GOOD.stable and GOOD.instability_reasons == () and GOOD.samples_ms == ROUND.samples_ms
    doubted = replace(GOOD, rounds=(ROUND, DOUBTED))
    assert not doubted.stable and doubted.instability_reasons == ("the board got hot",)
    assert doubted.median_ms == 8.5
    with pytest.raises(ProtocolError, match="infeasible: too large"):
        _ = MeasureResult(Status.INFEASIBLE, "too large").stable


def test_a_warm_up_that_never_became_steady_makes_a_result_unstable() -> None:
    unsteady = replace(GOOD, steady=False)
    assert not unsteady.stable and unsteady.instability_reasons == (
        "the warm-up never became steady",
    )
    both = replace(unsteady, rounds=(DOUBTED,))
    assert both.instability_reasons == ("the board got hot", "the warm-up never became steady")


def test_halves_of_a_round_are_halves_of_its_blocks() -> None:
    assert half_samples((1.0, 3.0, 8.0, 8.0), (0, 0, 1, 1)) == ([1.0, 3.0], [8.0, 8.0])
    assert half_samples((1.0, 50.0, 3.0), (0, 1, 2)) == ([1.0], [3.0])
    assert half_samples((1.0, 3.0), (0, 0)) == ([1.0, 3.0], [1.0, 3.0])


def test_a_result_that_is_not_ok_has_a_reason_and_no_samples() -> None:
    with pytest.raises(ProtocolError, match="reason"):
        MeasureResult(Status.ERROR)
    with pytest.raises(ProtocolError, match="rounds"):
        MeasureResult(Status.ERROR, "killed", rounds=(ROUND,))


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/" + SHA[1:], SHA.upper(), SHA[:-1], SHA + "\n"]
)
def test_names_are_hexadecimal_digits_never_paths(name: str) -> None:
    with pytest.raises(ProtocolError, match="64 lower-case hexadecimal digits"):
        replace(REQUEST, artifact_sha256=name)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"shape": (1, 0)}, "extent in shape"),
        ({"shape": (1, -1)}, "extent in shape"),
        ({"shape": [1, 2]}, "shape is"),
        ({"shape": (10**5, 10**5)}, "number of elements"),
        ({"low": 5.0, "high": 5.0}, "not under high"),
        ({"high": math.nan}, "high is nan"),
        ({"high": 2.5}, "whole ones"),
        ({"fill": "normal"}, "for floats"),
        ({"dtype": "int32", "high": 2.0**40}, "high"),
        ({"dtype": "uint8", "high": 257.0}, "high"),
        ({"dtype": "uint8", "low": -1.0}, "low"),
        ({"dtype": "int16", "low": -32769.0}, "low"),
        ({"name": ""}, "name is ''"),
    ],
)
def test_an_input_that_cannot_be_made_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ProtocolError, match=named):
        replace(TOKENS, **change)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("warmup_min_runs", 0),
        ("min_repeats", 3000),
        ("max_repeats", 10**6),
        ("min_time_s", 121.0),
        ("max_time_s", math.inf),
        ("warmup_min_s", 11.0),
        ("blocks", 31),
        ("steady_tolerance", "5%"),
        ("interval_share", -0.01),
        ("block_tolerance", math.nan),
        ("reference_tolerance", None),
        ("reference_runs", 0),
        ("others_cores", -1.0),
        ("watch_board", 1),
        ("retries", -1),
        ("retries", 10),
    ],
)
def test_a_timing_protocol_that_contradicts_itself_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ProtocolError, match=field):
        replace(TimingProtocol(), **{field: value})


def test_fields_missing_or_unknown_are_named() -> None:
    told: dict[str, Any] = REQUEST.as_json()
    with pytest.raises(ProtocolError, match=r"unknown.*treads"):
        MeasureRequest.from_json({**told, "treads": 4})
    del told["threads"]
    with pytest.raises(ProtocolError, match=r"missing.*threads"):
        MeasureRequest.from_json(told)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["status", "shape"]), inner),
    max_leaves=6,
), st.data())  # fmt: skip
def test_no_field_of_a_message_raises_anything_but_a_protocol_error(
    value: object, data: st.DataObject
) -> None:
    for kind, good in ((MeasureRequest, REQUEST.as_json()), (MeasureResult, GOOD.as_json())):
        field = data.draw(st.sampled_from(sorted(good)))
        for told in (value, {**good, field: value}):
            try:
                kind.from_json(told)
            except ProtocolError as error:
                assert str(error)


def test_a_job_has_the_same_name_for_the_same_request_and_attempt_only() -> None:
    again = MeasureRequest.from_json(through_json(REQUEST.as_json()))
    assert job_id_of(again) == job_id_of(REQUEST)
    others = {
        job_id_of(REQUEST),
        job_id_of(REQUEST, attempt=1),
        job_id_of(replace(REQUEST, seed=1)),
    }
    assert len(others) == 3


def test_a_job_has_another_name_once_the_device_or_its_agent_is_another() -> None:
    board = Board(model="a board", power_mode="15W", boot_id="1")
    info = DeviceInfo(board, (RuntimeInfo("onnxruntime", version="1.23"),), "3.10.12", 0, SHA)
    same = replace(info, board=replace(board, boot_id="2"))
    assert job_id_of(REQUEST, device=same) == job_id_of(REQUEST, device=info)
    others = [
        replace(info, board=replace(board, power_mode="30W")),
        replace(info, runtimes=(RuntimeInfo("onnxruntime", version="1.24"),)),
        replace(info, agent_sha256=SHA[::-1]),
        info,
    ]
    assert len({job_id_of(REQUEST, device=one) for one in others}) == 4


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fill", ["uniform", "ones", "zeros", "normal"])
def test_inputs_are_within_bounds_and_the_same_for_the_same_seed(dtype: Any, fill: Any) -> None:
    if fill == "normal" and dtype in BOUNDS:
        return
    low = 0 if dtype == "uint8" else -3
    spec = TensorSpec("x", dtype, (4, 25), fill=fill, low=low, high=5)
    made = tensor_bytes(spec, seed=1)
    codes = {"int64": "q", "int32": "i", "float32": "f", "float16": "e", "uint8": "B", "int16": "h"}
    code = codes[dtype]
    values = struct.unpack(f"<100{code}", made)
    assert made == tensor_bytes(spec, seed=1)
    if fill in ("ones", "zeros"):
        assert set(values) == {1.0 if fill == "ones" else 0.0}
        return
    assert made != tensor_bytes(spec, seed=2)
    assert made != tensor_bytes(replace(spec, name="y"), seed=1)
    if fill == "uniform":
        assert min(values) >= low and max(values) <= (4 if spec.is_integer else 5)
