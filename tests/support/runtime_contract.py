"""What every `Runtime` promises, for the tests of each of them."""

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_agent.runtime import Refused, Runtime, Unavailable
from device_agent.runtimes import RUNTIMES
from device_agent.wire.request import MeasureRequest, TensorSpec, TimingProtocol

onnx = pytest.importorskip("onnx")

CPU = "CPUExecutionProvider"
QUICK = TimingProtocol(
    warmup_min_runs=1, warmup_min_s=0.0, warmup_max_s=0.1, min_repeats=6, max_repeats=12,
    min_time_s=0.0, max_time_s=1.0, interval_share=100.0, block_tolerance=100.0,
    reference_tolerance=100.0, reference_runs=3, retries=0,
)  # fmt: skip
X = TensorSpec("x", "float32", (2, 4), low=-1.0, high=1.0)


def model(path: Path, operator: str, operands: int = 1, domain: str = "") -> Path:
    """Write `y = operator(x, ...)` over float32 [batch, 4]."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(name, kind, ["batch", 4]) for name in "xy"]
    node = helper.make_node(operator, ["x"] * operands, ["y"], name="only", domain=domain)
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("elsewhere", 1)]
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:])
    made = helper.make_model(graph, opset_imports=versions, ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


def request(**changes: Any) -> MeasureRequest:
    return replace(MeasureRequest("0" * 64, (X,), provider=CPU, timing=QUICK), **changes)


class RuntimeContract(ABC):
    """What every `Runtime` promises; a subclass gives it and a provider it surely has."""

    provider: str

    @pytest.fixture
    def scratch(self, tmp_path: Path) -> Path:
        (tmp_path / "scratch").mkdir()
        return tmp_path / "scratch"

    @abstractmethod
    @pytest.fixture
    def runtime(self) -> Runtime:
        """The runtime."""

    def test_it_says_its_version_and_providers(self, runtime: Runtime) -> None:
        info = runtime.describe()
        assert info.version == runtime.version()
        assert self.provider in info.providers
        assert info.name in RUNTIMES and info == runtime.describe()
        assert (info.onnx_opset_max or 99) >= 17 and (info.onnx_ir_max or 99) >= 8

    def test_the_same_seed_gives_the_same_outputs(
        self, runtime: Runtime, tmp_path: Path, scratch: Path
    ) -> None:
        file = model(tmp_path / "m.onnx", "Abs")
        asked = request(provider=self.provider)
        one = runtime.prepare(file, asked, scratch, scratch)
        one.run_once()
        again = runtime.prepare(file, asked, scratch, scratch).output_sha256()
        other = runtime.prepare(file, replace(asked, seed=1), scratch, scratch).output_sha256()
        assert one.output_sha256() == again != other

    @pytest.mark.parametrize("operator", ["Sqrt", "Log"])
    def test_outputs_that_are_not_finite_are_refused(
        self, runtime: Runtime, tmp_path: Path, scratch: Path, operator: str
    ) -> None:
        file = model(tmp_path / "m.onnx", operator)
        zeros = replace(X, fill="zeros") if operator == "Log" else X
        session = runtime.prepare(
            file, request(provider=self.provider, inputs=(zeros,)), scratch, scratch
        )
        with pytest.raises(Refused, match=r"output y: .* are NaN or inf"):
            session.output_sha256()

    def test_an_operator_it_does_not_know_is_refused(
        self, runtime: Runtime, tmp_path: Path, scratch: Path
    ) -> None:
        file = model(tmp_path / "m.onnx", "Fuse", domain="elsewhere")
        with pytest.raises(Refused, match="Fuse"):
            runtime.prepare(file, request(provider=self.provider), scratch, scratch)

    @pytest.mark.parametrize("content", [b"no network at all", b""])
    def test_a_file_that_is_no_network_is_refused(
        self, runtime: Runtime, tmp_path: Path, scratch: Path, content: bytes
    ) -> None:
        (tmp_path / "m.onnx").write_bytes(content)
        with pytest.raises(Refused, match="refuses the network"):
            runtime.prepare(tmp_path / "m.onnx", request(provider=self.provider), scratch, scratch)

    def test_a_missing_file_is_not_the_design_s_fault(
        self, runtime: Runtime, scratch: Path
    ) -> None:
        with pytest.raises(Unavailable):
            runtime.prepare(
                scratch / "none.onnx", request(provider=self.provider), scratch, scratch
            )

    def test_a_provider_it_lacks_is_not_replaced_by_another(
        self, runtime: Runtime, tmp_path: Path, scratch: Path
    ) -> None:
        file = model(tmp_path / "m.onnx", "Abs")
        with pytest.raises(Unavailable, match=f"AbacusProvider.*{self.provider}"):
            runtime.prepare(file, request(provider="AbacusProvider"), scratch, scratch)

    @pytest.mark.parametrize(
        "inputs",
        [(), (replace(X, name="z"),), (replace(X, dtype="float16"),), (replace(X, shape=(2, 5)),)],
    )
    def test_inputs_that_are_not_the_graph_s_are_named(
        self, runtime: Runtime, tmp_path: Path, scratch: Path, inputs: tuple[TensorSpec, ...]
    ) -> None:
        file = model(tmp_path / "m.onnx", "Abs")
        with pytest.raises(Unavailable, match=r"the graph.* the request"):
            runtime.prepare(file, request(provider=self.provider, inputs=inputs), scratch, scratch)
