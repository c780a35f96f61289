"""The runtimes of the agent, in a table to read; none is imported until a job asks for it."""

from collections.abc import Mapping

from device_agent.runtime import Runtime
from device_agent.runtimes.onnx_runtime import OnnxRuntime
from device_agent.runtimes.openvino import OpenVino
from device_agent.runtimes.tensorrt import TensorRt

RUNTIMES: Mapping[str, Runtime] = {
    "onnxruntime": OnnxRuntime(),
    "tensorrt": TensorRt(),
    "openvino": OpenVino(),
}
