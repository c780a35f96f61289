"""Networks in reduced precision, made on the host from their fp32 ONNX file.

- fp16: everything but inputs and outputs, which keep their types behind casts. Types stand in the
  graph, as TensorRT wants it.
- int8: quantised ahead of time (QDQ) with scales calibrated on inputs, weights per channel. What is
  quantised is what its runtime has kernels for, see `For`. The rest is fp32 for ONNX Runtime and
  fp16 for TensorRT, which fuses attention in fp16 alone.
- int8-dynamic: weights of matrix products are quantised per channel, their inputs as they come. For
  ONNX Runtime on a CPU; TensorRT has no such operators.

Measured on an x86 CPU with VNNI, one thread (MiniLM with MobileNetV2, 64 tokens, late fusion,
trained, blocks A B B A, 300 validation tweets): fp32 18.6 ms and 68.7 % right; int8-dynamic
10.1 ms, 68.3 %, logits 0.026 from torch in the mean (per tensor instead of per channel: 0.071 at
the same speed); int8 11.4 ms, 68.3 %, 0.083; int8 for TensorRT 44 ms here, 66.3 %, 0.170; fp16
22.3 ms here, 68.7 %, 0.004.
"""

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from search_space.design.genotype import Precision

QUANTISATION_VERSION = 3
"""Goes up whenever a network of a reduced precision would become another one."""
CALIBRATION_SAMPLES = 32
OPSET_OF_FP16_SCALES = 19
"""From which scales of quantisation may be fp16. From 18 to 19 operators gained attributes and
types; none that we export changed its meaning."""
For = Literal["onnxruntime", "tensorrt"]
"""Whose int8 a network is in. ONNX Runtime's CPU kernels take unsigned activations and fuse a
matrix product only when its output is quantised too; convolutions in int8 were slower than in fp32.
TensorRT takes symmetric signed activations alone, quantises at the inputs, has kernels for
convolutions, no int32 biases, and fuses attention whose products are fp16."""
Feed = Mapping[str, np.ndarray]
"""One sample: the graph's inputs by name."""


def recipe_of(precision: Precision, runtime: For) -> dict[str, object]:
    """What a content key must hold of a precision besides its name; nothing for fp32."""
    if precision == "fp32":
        return {}
    made_for = {"onnxruntime": "onnxruntime", "tensorrt": "tensorrt over fp16"}[runtime]
    return {"precision": [QUANTISATION_VERSION, made_for if precision == "int8" else ""]}


def reduce_precision(
    path: Path, precision: Precision, calibration: Iterable[Feed], runtime: For
) -> None:
    """Rewrites an fp32 ONNX file; `calibration` is read for int8 alone."""
    with _quiet():
        if precision == "int8":
            _quantise(path, calibration, runtime)
        elif precision == "int8-dynamic":
            from onnxruntime.quantization import QuantType, quantize_dynamic

            quantize_dynamic(
                path,
                path,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_products_with_stacks(path),
            )
        elif precision == "fp16":
            onnx.save(_halved(onnx.load(str(path))), str(path))


def _quantise(path: Path, calibration: Iterable[Feed], runtime: For) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    operators = ["MatMul", "Gemm"]
    options: dict[str, Any] = {}
    signed = runtime == "tensorrt"
    # Logits are of any size: cut to what calibration saw, they would be another answer.
    left = _last_nodes(path)
    if signed:
        left += _products_without_weights(path)
        operators.append("Conv")
        options |= {
            "ActivationSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": operators,
        }
    quantize_static(
        path,
        path,
        _Samples(calibration),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=operators,
        per_channel=True,
        activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=left,
        extra_options=options,
    )

    if signed:
        model = onnx.load(str(path))
        next(each for each in model.opset_import if not each.domain).version = OPSET_OF_FP16_SCALES
        onnx.save(_halved(model), str(path))


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Turn what is fp32 into fp16, except inputs and outputs."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = convert_float_to_float16(model, keep_io_types=True)
    OnnxModel(model).topological_sort(is_deterministic=True)  # casts are put at the end
    return model


class _Samples:
    """Samples one by one, as the calibration of ONNX Runtime reads them."""

    def __init__(self, samples: Iterable[Feed]) -> None:
        self._samples = iter(samples)

    def get_next(self) -> Feed | None:
        return next(self._samples, None)


def _last_nodes(path: Path) -> list[str]:
    graph = onnx.load(str(path), load_external_data=False).graph
    outputs = {entry.name for entry in graph.output}
    return [node.name for node in graph.node if outputs & set(node.output)]


def _products_with_stacks(path: Path) -> list[str]:
    """Return products with constants that are no matrices, as of a modality that is absent.

    ONNX Runtime has no kernel for them with a scale for each channel.
    """
    graph = onnx.load(str(path), load_external_data=False).graph
    stacks = {one.name for one in graph.initializer if len(one.dims) != 2}
    return [n.name for n in graph.node if n.op_type == "MatMul" and n.input[1] in stacks]


def _products_without_weights(path: Path) -> list[str]:
    """Those of attention: in int8 they would keep TensorRT from fusing it."""
    graph = onnx.load(str(path), load_external_data=False).graph
    weights = {one.name for one in graph.initializer}
    return [n.name for n in graph.node if n.op_type == "MatMul" and not weights & set(n.input)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the remarks of quantisers, which are about their own advice."""
    disabled = logging.root.manager.disable
    logging.disable(max(disabled, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
