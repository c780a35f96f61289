"""The runtimes of the agent, in a table to read; none is imported until a job asks for it."""

from collections.abc import Mapping

from device_agent.runtime import Runtime
from device_agent.runtimes.onnx_runtime import OnnxRuntime
from device_agent.runtimes.openvino import OpenVino
from device_agent.runtimes.plugin import named_by_host
from device_agent.runtimes.tensorrt import TensorRt

RUNTIMES: Mapping[str, Runtime] = {
    "onnxruntime": OnnxRuntime(),
    "tensorrt": TensorRt(),
    "openvino": OpenVino(),
}


def runtimes() -> Mapping[str, Runtime]:
    """Return all runtimes by name, with the plugin's that the host named, if it named one."""
    return {**RUNTIMES, **{plugin.name: plugin for plugin in named_by_host()}}
