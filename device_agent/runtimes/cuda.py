"""The few calls of CUDA's runtime library that timing a network takes, by ctypes.

A JetPack has the library, but not always a Python package for it.
"""

import ctypes
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_void_p
from typing import Any

from device_agent.runtime import OutOfMemory, Unavailable

LIBRARIES = (
    "libcudart.so",
    "libcudart.so.13",
    "libcudart.so.12",
    "/usr/local/cuda/lib64/libcudart.so",
)
OUT_OF_MEMORY = 2
TO_DEVICE, TO_HOST = 1, 2
CAPABILITY_MAJOR, CAPABILITY_MINOR, MULTIPROCESSORS = 75, 76, 16
"""Numbers of `cudaDeviceAttr`."""
ARGUMENTS: Mapping[str, Sequence[Any]] = {
    "cudaGetDeviceCount": (POINTER(c_int),),
    "cudaDriverGetVersion": (POINTER(c_int),),
    "cudaRuntimeGetVersion": (POINTER(c_int),),
    "cudaDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cudaMalloc": (POINTER(c_void_p), c_size_t),
    "cudaMallocHost": (POINTER(c_void_p), c_size_t),
    "cudaMemcpyAsync": (c_void_p, c_void_p, c_size_t, c_int, c_void_p),
    "cudaStreamCreate": (POINTER(c_void_p),),
    "cudaStreamSynchronize": (c_void_p,),
    "cudaEventCreate": (POINTER(c_void_p),),
    "cudaEventRecord": (c_void_p, c_void_p),
    "cudaEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cudaSetDeviceFlags": (c_uint,),
    "cudaGetDeviceFlags": (POINTER(c_uint),),
}
SPIN, SCHEDULES = 1, {0: "auto", 1: "spin", 2: "yield", 4: "block"}
"""How the host waits, by the low bits of the device's flags."""


class Cuda:
    """CUDA's runtime library on the first device.

    What is taken is given back when the process ends: a job's process holds one network.

    Args:
        libraries: names or paths to try, in this order.
    """

    def __init__(self, libraries: Sequence[str] = LIBRARIES) -> None:
        """Load the library; raises `Unavailable` where there is none, or no device."""
        self._library = _load(libraries)
        self._library.cudaGetErrorString.restype = c_char_p
        self._library.cudaGetErrorString.argtypes = (c_int,)
        for name, arguments in ARGUMENTS.items():
            call = getattr(self._library, name)
            call.restype, call.argtypes = c_int, arguments
        if self._count("cudaGetDeviceCount") < 1:
            raise Unavailable("CUDA sees no device: look at the driver, or use another runtime")

    def spin(self) -> str:
        """Have the host spin while it waits, and return how it waits then.

        Left to itself CUDA may block on a Tegra of low power: the wake-up of the thread would be in
        every reading. Call it before anything else uses the device.
        """
        # CUDA 11 takes no flags for a device that this process uses already; it keeps its own then.
        with suppress(Unavailable):
            self._call("cudaSetDeviceFlags", SPIN)
        found = c_uint()
        self._call("cudaGetDeviceFlags", byref(found))
        return SCHEDULES.get(found.value & 7, "unknown")

    def facts(self) -> dict[str, int]:
        """Return versions of driver and runtime as CUDA counts them, and what the device is."""
        return {
            "cuda_driver": self._count("cudaDriverGetVersion"),
            "cuda_runtime": self._count("cudaRuntimeGetVersion"),
            "capability_major": self._count("cudaDeviceGetAttribute", CAPABILITY_MAJOR, 0),
            "capability_minor": self._count("cudaDeviceGetAttribute", CAPABILITY_MINOR, 0),
            "multiprocessors": self._count("cudaDeviceGetAttribute", MULTIPROCESSORS, 0),
        }

    def device_memory(self, size: int) -> int:
        """Take memory of the device and return its address; raises `OutOfMemory` without it."""
        return self._pointer("cudaMalloc", max(size, 1))

    def host_memory(self, size: int) -> int:
        """Take memory of the host that is never swapped out, and return its address."""
        return self._pointer("cudaMallocHost", max(size, 1))

    def stream(self) -> int:
        """Return a new stream."""
        return self._pointer("cudaStreamCreate")

    def event(self) -> int:
        """Return a new event."""
        return self._pointer("cudaEventCreate")

    def to_device(self, target: int, source: int, size: int, stream: int) -> None:
        """Copy from the host's memory, in the stream's turn."""
        self._call("cudaMemcpyAsync", target, source, size, TO_DEVICE, stream)

    def to_host(self, target: int, source: int, size: int, stream: int) -> None:
        """Copy to the host's memory, in the stream's turn."""
        self._call("cudaMemcpyAsync", target, source, size, TO_HOST, stream)

    def record(self, event: int, stream: int) -> None:
        """Note the time when the stream comes to here."""
        self._call("cudaEventRecord", event, stream)

    def wait(self, stream: int) -> None:
        """Wait until the stream has done all that it was given."""
        self._call("cudaStreamSynchronize", stream)

    def passed_ms(self, start: int, end: int) -> float:
        """Return the device's own time between two events."""
        found = c_float()
        self._call("cudaEventElapsedTime", byref(found), start, end)
        return float(found.value)

    def _count(self, name: str, *arguments: int) -> int:
        found = c_int()
        self._call(name, byref(found), *arguments)
        return found.value

    def _pointer(self, name: str, *arguments: int) -> int:
        found = c_void_p()
        self._call(name, byref(found), *arguments)
        return found.value or 0

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code == 0:
            return
        said = (self._library.cudaGetErrorString(code) or b"unknown").decode("utf-8", "replace")
        if code == OUT_OF_MEMORY:
            raise OutOfMemory(f"on the device: {name}: {said}")
        raise Unavailable(f"{name} failed with CUDA error {code}, {said}: look at the driver's log")


def _load(libraries: Sequence[str]) -> ctypes.CDLL:
    for name in libraries:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    tried = ", ".join(libraries)
    raise Unavailable(f"CUDA's runtime library cannot be loaded (tried {tried}): install it")
