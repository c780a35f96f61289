"""Whether NVIDIA's parser and builder take a network, asked of TensorRT-RTX without a GPU.

Its bindings (`tensorrt_rtx_cu13_bindings`) and its libraries (inside
`onnxruntime-ep-nv-tensorrt-rtx-cu13`) build engines ahead of time for a GPU that is not there. Both
are NVIDIA's, installed by the user's choice. An engine cannot be loaded here: what it is made of is
read from the builder's own log.
"""

import ctypes
import importlib
import importlib.util
import re
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from device_agent.runtime import OutOfMemory, Refused, Unavailable
from device_agent.runtimes.tensorrt_build import (
    build_fault,
    configured,
    last_words,
    new_log,
    parsed,
)

BINDINGS = "tensorrt_rtx_bindings"
HOLDER = "onnxruntime_ep_nv_tensorrt_rtx"
LIBRARIES = ("libtensorrt_rtx.so.*", "libtensorrt_onnxparser_rtx.so.*")
CAPABILITY = "SM86"
"""Of Ampere; Orin's own 8.7 is not offered."""
LAYER = re.compile(r"Name: (\S+), LayerType: ")
HINT = "pip install 'fusion-nas[tensorrt-rtx]'"


@dataclass(frozen=True)
class Taken:
    """What NVIDIA's parser and builder say of a network.

    Attributes:
        version: of TensorRT-RTX.
        parsed: whether the parser took it.
        built: whether the builder made an engine; None where it was not asked to.
        refused: why not, with the node; empty where it was taken.
        layers: layers of the engine, as the builder lists them.
        attention: those that are fused attention.
        build_s: seconds that building took.
        engine_bytes: size of the engine.
    """

    version: str
    parsed: bool
    built: bool | None = None
    refused: str = ""
    layers: int | None = None
    attention: int | None = None
    build_s: float | None = None
    engine_bytes: int | None = None

    def as_json(self) -> dict[str, object]:
        """Return a JSON object."""
        return asdict(self)


CANNOT_LOAD = 3
"""Exit status of the agent's `tensorrt-takes` where the packages are missing or do not load."""


def load_rtx() -> Any:
    """Import the bindings over their libraries; raises `Unavailable` where one is missing."""
    try:
        found = importlib.util.find_spec(HOLDER)
        if found is None or not found.submodule_search_locations:
            raise ImportError(f"no package {HOLDER}")
        folder = Path(next(iter(found.submodule_search_locations)))
        for pattern in LIBRARIES:
            library = next(iter(sorted(folder.glob(pattern))), None)
            if library is None:
                raise ImportError(f"no {pattern} in {folder}")
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        return importlib.import_module(BINDINGS)
    except Exception as error:
        failed = f"TensorRT-RTX cannot be loaded by {sys.executable}: {type(error).__name__}"
        raise Unavailable(f"{failed}: {error}"[:2000] + f": {HINT}") from error


def take(trt: Any, model: Path, build: bool) -> Taken:
    """Have a network of static shapes parsed, and built for `CAPABILITY` where asked.

    Raises:
        Unavailable: the file cannot be read, or the builder itself failed.
    """
    version = str(trt.__version__)
    log = new_log(trt, keep_all=build)
    builder = trt.Builder(log)
    try:
        network = parsed(trt, log, builder, model)
    except Refused as error:
        return Taken(version, False, refused=str(error))
    if not build:
        return Taken(version, True)
    config = configured(trt, builder)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, CAPABILITY), 0)
    start = time.perf_counter()
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        fault = build_fault(last_words(log))
        if isinstance(fault, Refused) and not isinstance(fault, OutOfMemory):
            return Taken(version, True, False, refused=str(fault))
        raise Unavailable(f"TensorRT-RTX built no engine: {fault}: look at the log")
    names = [found.group(1) for line in log.lines for found in LAYER.finditer(line)]
    return Taken(
        version,
        True,
        True,
        layers=len(names),
        attention=sum("mha" in name for name in names),
        build_s=time.perf_counter() - start,
        engine_bytes=serialized.nbytes,
    )
