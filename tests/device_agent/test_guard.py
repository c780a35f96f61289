"""No runtime ever sees a hostile network, and what a job may use up is bounded."""

import hashlib
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from protobuf_bytes import part, varint

from device_agent.board.description import RuntimeInfo
from device_agent.jobs import job as job_module
from device_agent.jobs.job import Job, measure
from device_agent.onnx.guard import MAX_ELEMENTS, MAX_GRAPHS, MAX_NODES, RefusedFile, check_file
from device_agent.runtime import Session, Unavailable
from device_agent.wire.request import MeasureRequest, Status, TensorSpec, TimingProtocol
from evaluators.devices.client import open_local_device

onnx = pytest.importorskip("onnx")
np = pytest.importorskip("numpy")

ROOT = Path(__file__).parents[2]
FLOAT, STRING = 1, 8
QUICK = TimingProtocol(
    warmup_min_runs=1, warmup_min_s=0.0, warmup_max_s=0.1, min_repeats=6, max_repeats=12,
    min_time_s=0.0, max_time_s=1.0,
)  # fmt: skip
node = onnx.helper.make_node
Model = Any


class Noting:
    """A runtime that notes that it was called."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def describe(self) -> RuntimeInfo:
        self.calls.append("describe")
        return RuntimeInfo("onnxruntime", "1")

    def version(self) -> str:
        self.calls.append("version")
        return "1"

    def prepare(self, model: Path, request: MeasureRequest, scratch: Path, kept: Path) -> Session:
        self.calls.append("prepare")
        raise Unavailable("it saw the network")


def model(nodes: list[Any] | None = None, initializers: tuple[Any, ...] = (), **more: Any) -> Model:
    """`y = Add(x, w)` unless told otherwise."""
    x, y = (onnx.helper.make_tensor_value_info(name, FLOAT, [4]) for name in "xy")
    weights = initializers or (onnx.numpy_helper.from_array(np.ones(4, "f"), "w"),)
    made = nodes if nodes is not None else [node("Add", ["x", "w"], ["y"], name="add")]
    graph = onnx.helper.make_graph(made, "g", [x], [y], list(weights))
    return onnx.helper.make_model(
        graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)], **more
    )


def with_weights(change: Callable[[Any], None]) -> Model:
    """The network with its weights changed."""
    made = model()
    change(made.graph.initializer[0])
    return made


def external(tensor: Any) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")


def names_a_file_only(tensor: Any) -> None:
    tensor.external_data.add(key="location", value="weights.bin")


def claims_dims(*dims: int) -> Callable[[Any], None]:
    def change(tensor: Any) -> None:
        tensor.dims[:] = dims

    return change


def has_type(number: int) -> Callable[[Any], None]:
    def change(tensor: Any) -> None:
        tensor.data_type = number

    return change


def held_twice(tensor: Any) -> None:
    tensor.float_data.extend([1.0] * 4)


def segment(tensor: Any) -> None:
    tensor.segment.end = 4


def asks_for_filling(tensor: Any) -> None:
    tensor.ClearField("raw_data")
    tensor.doc_string = "fusion-nas-fill:uniform:-1:1"


def constant_elsewhere() -> Model:
    value = onnx.numpy_helper.from_array(np.ones(4, "f"), "w")
    external(value)
    return model([node("Constant", [], ["w2"], value=value), node("Add", ["x", "w2"], ["y"])])


def nested(depth: int, wide: int = 1) -> Model:
    """If-nodes within If-nodes."""
    flag = onnx.numpy_helper.from_array(np.array(True), "flag")

    def body(level: int, k: int) -> Any:
        name = f"out{level}-{k}"
        inner = [node("Identity", ["x"], [name])]
        if level < depth:
            branch = body(level + 1, k)
            inner = [node("If", ["flag"], [name], then_branch=branch, else_branch=branch)]
        end = onnx.helper.make_tensor_value_info(name, FLOAT, [4])
        return onnx.helper.make_graph(inner, name, [], [end])

    made = [node("Identity", ["x"], ["y"])]
    for k in range(wide):
        branch = body(1, k)
        made.append(node("If", ["flag"], [f"z{k}"], then_branch=branch, else_branch=branch))
    return model(made, (flag,))


def with_function() -> Model:
    made = model([node("Own", ["x"], ["y"], domain="here")])
    versions = [onnx.helper.make_opsetid("", 17)]
    body = [node("Abs", ["a"], ["b"])]
    made.functions.append(onnx.helper.make_function("here", "Own", ["a"], ["b"], body, versions))
    return made


def with_sparse() -> Model:
    made = model()
    values = onnx.numpy_helper.from_array(np.ones(1, "f"), "s")
    places = onnx.numpy_helper.from_array(np.zeros(1, "int64"), "")
    made.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, places, [2**40]))
    return made


def with_setting() -> Model:
    made = model()
    onnx.helper.set_model_props(made, {"ort_config": '{"session_options": {}}'})
    return made


def with_training() -> Model:
    made = model()
    made.training_info.add()
    return made


def with_input(dims: list[int], name: str = "x") -> Model:
    made = model()
    made.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info(name, FLOAT, dims))
    return made


def add(name: str = "add", **changes: Any) -> Model:
    changed = {"op": "Add", "reads": ["x", "w"], "makes": ["y"], **changes}
    made = node(changed["op"], changed["reads"], changed["makes"], name=name)
    made.domain = changed.get("domain", "")
    return model([made])


HOSTILE: dict[str, tuple[Model | bytes, str]] = {
    "external data": (with_weights(external), "'w' says that its values lie in another file"),
    "a file's name beside data": (with_weights(names_a_file_only), "another file"),
    "external data in a node": (constant_elsewhere(), "another file"),
    "another domain": (add(domain="evil"), r"\(Add\): an operator of domain 'evil'"),
    "compiled context": (
        add(op="EPContext", domain="com.microsoft"),
        r"\(EPContext\): an operator of domain 'com.microsoft'",
    ),
    "operator that is a path": (add(op="../plugin.so"), r"operator '\.\./plugin\.so' is no name"),
    "operator that is nothing": (add(op=""), "operator '' is no name"),
    "local function": (with_function(), "brings 1 local functions"),
    "training": (with_training(), "brings 1 training graphs"),
    "the runtime's options": (with_setting(), "'ort_config' would set the runtime's options"),
    "sparse tensor": (with_sparse(), "1 sparse tensors"),
    "huge tensor": (with_weights(claims_dims(2**40)), f"over {MAX_ELEMENTS} elements"),
    "huge product": (with_weights(claims_dims(2**20, 2**20)), f"over {MAX_ELEMENTS} elements"),
    "product that wraps to small": (with_weights(claims_dims(2**62, 4, 1)), "over .* elements"),
    "empty tensor with a huge extent": (with_weights(claims_dims(0, 2**62)), "over .* elements"),
    "extent under zero": (with_weights(claims_dims(-4)), "extent of -4"),
    "many dimensions": (with_weights(claims_dims(*[1] * 9)), "9 dimensions"),
    "more than it holds": (with_weights(claims_dims(5)), "holds 16 bytes, its dims .* ask for 20"),
    "less than it holds": (with_weights(claims_dims(3)), "holds 16 bytes, its dims .* ask for 12"),
    "data twice": (with_weights(held_twice), "holds 16 bytes"),
    "part of a tensor": (with_weights(segment), "part of another"),
    "texts as weights": (with_weights(has_type(STRING)), "elements of type 8"),
    "no type": (with_weights(has_type(0)), "elements of type 0"),
    "type that wraps": (with_weights(has_type(2**31 - 1)), "elements of type"),
    "left out weights": (with_weights(asks_for_filling), "left out need a seed"),
    "huge input": (with_input([2**31, 2]), "value 'x': .* is over"),
    "input under zero": (with_input([-1]), "extent of -1"),
    "NUL in a name": (with_input([4], "x\0y"), "plain characters"),
    "terminal escape in a name": (add(name="\x1b[2Jgone"), r"'\\x1b\[2Jgone'"),
    "very long name": (add(name="n" * 2000), "plain characters"),
    "cycle": (
        model([node("Add", ["x", "b"], ["a"], name="one"),
               node("Add", ["a", "x"], ["b"], name="two"), node("Abs", ["b"], ["y"])]),
        "circle: .*one.*two",
    ),
    "node that reads itself": (model([node("Add", ["x", "y"], ["y"], name="own")]), "circle"),
    "cycle through a subgraph": (
        model([node("If", ["x"], ["y"], name="if", then_branch=onnx.helper.make_graph(
            [node("Abs", ["y"], ["in"])], "b", [],
            [onnx.helper.make_tensor_value_info("in", FLOAT, [4])]))]),
        "circle",
    ),
    "name that nothing makes": (add(reads=["x", "q"]), r"\(Add\) reads 'q', which nothing makes"),
    "output that nothing makes": (add(makes=["q"]), "output 'y' is made by nothing"),
    "name made twice": (
        model([node("Abs", ["x"], ["y"]), node("Neg", ["x"], ["y"])]), "'y' is made twice"
    ),
    "weights made twice": (model([node("Abs", ["x"], ["w"])]), "'w' is made twice"),
    "nodes without end": (
        model([node("Abs", ["x"], ["a name of a usual length" * 6])] * (MAX_NODES + 1)),
        f"at most {MAX_NODES} in",
    ),
    "nodes of a few bytes without end": (
        model([node("Abs", ["x"], ["y"])] * (MAX_NODES + 1)), "over 54000 fields in"
    ),
    "deep subgraphs": (nested(6), "graphs within graphs over 4 deep"),
    "subgraphs without end": (nested(1, wide=MAX_GRAPHS), f"nodes in {2 * MAX_GRAPHS + 1} graphs"),
    "no network": (b"#!/bin/sh\nrm -rf ~\n", "has wire type 3"),
    "nothing": (b"", "empty"),
    "two graphs": (model().SerializeToString() + part(7, b""), "Model.graph stands twice"),
    "cut short": (model().SerializeToString()[:-20], "after what holds it"),
    "overlong length": (b"\x3a" + varint(2**63), "after what holds it"),
    "nesting": (b"\x0b" * 100_000, "wire type 3"),
}  # fmt: skip


def job(folder: Path, content: Model | bytes, **changes: Any) -> Job:
    data = content if isinstance(content, bytes) else content.SerializeToString()
    (folder / "network").write_bytes(data)
    (folder / "scratch").mkdir()
    x = TensorSpec("x", "float32", (4,))
    request = MeasureRequest("0" * 64, (x,), **changes)
    return Job(request, folder / "network", folder / "scratch", folder / "kept")


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_network_is_refused_before_any_runtime_is_called(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, words = HOSTILE[what]
    runtime = Noting()
    monkeypatch.setattr(job_module, "runtimes", lambda: {"onnxruntime": runtime})
    asked = job(tmp_path, content)
    result = measure(asked)
    assert runtime.calls == [] and result.status is Status.ERROR
    assert len(result.reason) < 1000 and result.reason.isprintable()
    assert "refused before any runtime" in result.reason
    with pytest.raises(RefusedFile, match=words):
        check_file(asked.artifact, None)


def test_a_plain_network_is_given_to_the_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Noting()
    monkeypatch.setattr(job_module, "runtimes", lambda: {"onnxruntime": runtime})
    assert measure(job(tmp_path, model())).reason == "it saw the network"
    assert runtime.calls == ["version", "prepare"]


def test_names_that_look_like_paths_are_names(tmp_path: Path) -> None:
    made = model([node("Add", ["x", "/text/../w"], ["y"], name="/text/encoder/layer.0/Add")])
    made.graph.initializer[0].name = "/text/../w"
    check_file(job(tmp_path, made).artifact, None)


def test_nodes_may_stand_in_any_order_and_read_what_surrounds_them(tmp_path: Path) -> None:
    made = nested(3)
    made.graph.node.insert(0, node("Abs", ["late"], ["early"]))
    made.graph.node.append(node("Neg", ["x"], ["late"]))
    check_file(job(tmp_path, made).artifact, None)


def test_weights_given_in_any_of_onnx_s_ways_are_taken(tmp_path: Path) -> None:
    kinds = [number for number in onnx.TensorProto.DataType.values() if number in range(1, 24)]
    made = []
    for number in kinds:
        if number in (STRING, 14, 15):  # text and complex numbers
            continue
        for raw in (False, True):
            tensor = onnx.helper.make_tensor(f"t{number}{raw}", number, [3], [1, 0, 1])
            if raw:
                tensor = onnx.numpy_helper.from_array(
                    onnx.numpy_helper.to_array(tensor), tensor.name
                )
            made.append(tensor)
    assert len(made) >= 36
    check_file(job(tmp_path, model([node("Abs", ["x"], ["y"])], tuple(made))).artifact, None)


@pytest.mark.parametrize(
    "fill",
    [
        "uniform", "uniform:1:0", "uniform:-1:inf", "uniform:nan:1", "uniform:-1e40:1",
        "uniform:0x1:2", "file:/etc/passwd:1", "uniform:" + "9" * 400 + ":1", "uniform:-1:1\n",
    ],
)  # fmt: skip
def test_a_fill_that_is_not_understood_is_refused(fill: str, tmp_path: Path) -> None:
    def change(tensor: Any) -> None:
        tensor.ClearField("raw_data")
        tensor.doc_string = "fusion-nas-fill:" + fill

    result = measure(job(tmp_path, with_weights(change), weights_seed=0))
    assert result.status is Status.ERROR and "the fill 'fusion-nas-fill:" in result.reason


def test_weights_to_fill_cannot_outgrow_what_a_file_may_be(tmp_path: Path) -> None:
    def change(tensor: Any) -> None:
        asks_for_filling(tensor)
        tensor.dims[:] = [MAX_ELEMENTS]

    asked = job(tmp_path, with_weights(change), weights_seed=0)
    result = measure(asked)
    assert result.status is Status.ERROR and "has over 2147483647 bytes" in result.reason
    assert [*asked.scratch.iterdir()] == []


def memory_bomb() -> Model:
    """A file of a few hundred bytes that asks the runtime for four terabytes."""
    shape = onnx.numpy_helper.from_array(np.array([2**20, 2**20]), "shape")
    nodes = [
        node("ConstantOfShape", ["shape"], ["all"]),
        node("ReduceSum", ["all"], ["one"], keepdims=0),
        node("Add", ["x", "one"], ["y"]),
    ]
    return model(nodes, (shape,))


def test_the_agent_that_ships_refuses_and_serves_on(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    asked = {
        "outside": (with_weights(external), Status.ERROR, "another file"),
        "bomb": (memory_bomb(), Status.INFEASIBLE, "out of memory"),
        "plain": (model(), Status.OK, ""),
    }
    with open_local_device(tmp_path / "home") as device:
        for name, (content, status, words) in asked.items():
            data = content.SerializeToString()
            (tmp_path / name).write_bytes(data)
            request = MeasureRequest(
                hashlib.sha256(data).hexdigest(),
                (TensorSpec("x", "float32", (4,)),),
                timing=QUICK,
                deadline_s=60.0,
            )
            result = device.measure(tmp_path / name, request)
            assert (result.status, words in result.reason) == (status, True), result.reason


# -- what a job's process may use up


def limited(code: str, root: Path = Path("/")) -> subprocess.CompletedProcess[str]:
    """Run code in a process that has limited itself as a job does."""
    start = "from pathlib import Path; from device_agent.jobs.limits import limit_process; "
    start += f"limit_process(Path({str(root)!r}))\n"
    return subprocess.run(
        [sys.executable, "-c", start + code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def small_board(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:  524288 kB\nMemFree: 1 kB\n")
    return tmp_path


def test_a_job_leaves_no_core_and_gains_no_privileges() -> None:
    code = """if True:
        import resource
        for name in ("CORE", "NOFILE", "FSIZE"):
            print(*resource.getrlimit(getattr(resource, "RLIMIT_" + name)))
        print(*[line.split()[1] for line in open("/proc/self/status") if "NoNewPrivs" in line])
    """
    ended = limited(code)
    core, files, size, privileges = ended.stdout.splitlines()
    assert (core, privileges, ended.stderr) == ("0 0", "1", "")
    assert max(map(int, files.split())) <= 1024
    assert 2**31 < max(map(int, size.split())) <= 2**33


def test_a_job_that_wants_more_memory_than_the_board_has_is_told_so(small_board: Path) -> None:
    ended = limited("block = bytearray(2**30)", small_board)
    assert ended.returncode == 1 and "MemoryError" in ended.stderr
    assert limited("block = bytearray(2**26); print('fits')", small_board).stdout == "fits\n"


def test_addresses_without_memory_may_be_reserved_as_cuda_does(small_board: Path) -> None:
    code = """if True:
        import mmap
        space = mmap.mmap(-1, 2**40, flags=mmap.MAP_PRIVATE | 0x4000, prot=0)
        print("reserved")
    """
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        pytest.skip("this process may not reserve so many addresses itself")
    assert limited(code, small_board).stdout == "reserved\n"


def test_a_board_that_does_not_tell_its_memory_sets_no_such_limit(tmp_path: Path) -> None:
    ended = limited("print('on')", tmp_path)
    assert ended.stdout == "on\n" and "does not report its memory" in ended.stderr
