"""A runtime as a plugin: ONNX's reference implementation, which computes with NumPy.

It is slow, and says what a network costs without an optimising runtime. The agent imports this
module, so nothing but `device_agent` and the standard library is imported here.
"""

import math
from pathlib import Path
from typing import Any

from device_agent.runtime import Extras, PluginRuntime, Refused, Unavailable
from device_agent.runtimes.tensors import Output, digest
from device_agent.timing.inputs import tensor_bytes
from device_agent.wire.request import MeasureRequest, TensorSpec


class OnnxReference(PluginRuntime):
    """`onnx.reference.ReferenceEvaluator`, on the processor."""

    provider = "CPU"
    precisions = ("fp32", "int8-dynamic")

    def version(self) -> str:
        """Return the version of onnx."""
        return str(_onnx().__version__)

    def prepare(
        self, model: Path, request: MeasureRequest, scratch: Path, kept: Path
    ) -> "ReferenceSession":
        """Read the network and make its inputs; nothing is compiled."""
        onnx = _onnx()
        if request.provider != self.provider:
            asked = f"provider {request.provider} is not offered here"
            raise Unavailable(f"{asked}: ask for {self.provider}")
        if not model.is_file():
            raise Unavailable(f"{model.name} is not there: send it again")
        try:
            network = onnx.load(model)
            onnx.checker.check_model(network)
            evaluator = onnx.reference.ReferenceEvaluator(network)
        except Exception as error:
            raise Refused(f"onnx refuses the network: {error}") from error
        known = {each.name: each.type.tensor_type for each in network.graph.input}
        _check_inputs(onnx, known, request.inputs)
        return ReferenceSession(evaluator, request)


class ReferenceSession:
    """Implements `device_agent.runtime.Session`."""

    def __init__(self, evaluator: Any, request: MeasureRequest) -> None:
        self._evaluator = evaluator
        self._inputs = {spec.name: _array(spec, request.seed) for spec in request.inputs}

    def run_once(self) -> None:
        """Run the network once."""
        self._evaluator.run(None, self._inputs)

    def output_sha256(self) -> str:
        """Run once and digest the outputs, which must be finite."""
        try:
            found = self._evaluator.run(None, self._inputs)
        except Exception as error:
            raise Unavailable(f"the first run failed: {type(error).__name__}: {error}") from error
        return digest(
            Output(name, str(array.dtype), array.shape, array.tobytes())
            for name, array in zip(self._evaluator.output_names, found, strict=True)
        )

    def extras(self) -> Extras:
        """Nothing: nothing is compiled, and runs are timed by the host's clock alone."""
        return Extras()


def _onnx() -> Any:
    try:
        import onnx
        import onnx.checker
        import onnx.reference
    except Exception as error:
        raise Unavailable(f"onnx cannot be loaded: {error}: install it with pip") from error
    return onnx


def _check_inputs(onnx: Any, known: dict[str, Any], specs: tuple[TensorSpec, ...]) -> None:
    given = {spec.name: spec for spec in specs}
    if known.keys() != given.keys():
        names = f"the graph's inputs are {sorted(known)}, the request's {sorted(given)}"
        raise Unavailable(f"{names}: give each of the graph's, and no other")
    for name, spec in given.items():
        dtype = onnx.helper.tensor_dtype_to_np_dtype(known[name].elem_type).name
        shape = [each.dim_value or -1 for each in known[name].shape.dim]
        fits = len(shape) == len(spec.shape) and all(
            extent in (-1, asked) for extent, asked in zip(shape, spec.shape, strict=False)
        )
        if dtype != spec.dtype or not fits:
            asked = f"the request gives {spec.dtype} {list(spec.shape)}"
            raise Unavailable(f"input {name}: the graph takes {dtype} {shape}, {asked}")


def _array(spec: TensorSpec, seed: int) -> Any:
    import numpy as np

    values = np.frombuffer(tensor_bytes(spec, seed), np.dtype(spec.dtype).newbyteorder("<"))
    assert values.size == math.prod(spec.shape)
    return values.reshape(spec.shape).astype(spec.dtype)
