"""Time an ONNX file on a device from Python."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from device_agent.wire.request import MeasureRequest, TensorSpec
from device_agent.wire.result import MeasureResult, Status
from evaluators.devices.registry import LOCAL
from evaluators.onnx.inputs import input_specs
from studies.config.home import devices, home
from studies.config.options import RUNTIMES, DeviceOptions


def measure(
    onnx_file: str | Path,
    device: str = LOCAL,
    *,
    runtime: str = "cpu",
    threads: int | None = None,
    timing: str = "auto",
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> MeasureResult:
    """Compile an ONNX file on a device and time it by the protocol that studies use.

    Args:
        onnx_file: one file with all its weights.
        device: `local`, or the name of a device that `fusion-nas device add` registered.
        runtime: `cpu`, `cuda` or `tensorrt`.
        threads: of one operator; 0 for the runtime's choice, None for 1 on `local`, else 0.
        timing: `alone`, `shared`, or `auto`: `shared` on `local`, else `alone`.
        shapes: extents by input name, for inputs whose extents are not all fixed in the file.

    Returns:
        The result: `median_ms`, `interval_ms` (95 %), `samples_ms`, `peak_memory_mb`, `stable` and
        more. Inputs are drawn: floats from [0, 1), whole numbers 0 or 1.

    Raises:
        ValueError: for an input of unknown extents.
        FusionNasError: when the device cannot be asked, or cannot run the network.

    Example:
        >>> import fusion_nas as fn
        >>> result = fn.measure("network.onnx")  # doctest: +SKIP
        >>> result.median_ms, result.interval_ms  # doctest: +SKIP
        (1.93, (1.9, 1.97))
    """
    # It loads PyTorch: importing the package does not.
    from evaluators.latency.evaluator import (
        BOARD_TIMING,
        LOCAL_TIMING,
        MeasureError,
        deadline_of,
    )

    options = DeviceOptions((device,), threads, timing, runtime=runtime)
    path = Path(onnx_file).expanduser()
    inputs: tuple[TensorSpec, ...] = input_specs(path, shapes or {})
    kind, provider = RUNTIMES[options.runtime]
    request = MeasureRequest(
        hashlib.sha256(path.read_bytes()).hexdigest(),
        inputs,
        kind,
        provider,
        BOARD_TIMING if options.alone else LOCAL_TIMING,
        threads=options.runtime_threads,
        deadline_s=deadline_of(kind),
    )
    with ExitStack() as stack:
        if device == LOCAL:
            from studies.study.context import local_device

            opener, held = local_device(home())
            stack.callback(held.release)
            client = opener()
        else:
            from evaluators.devices.ssh.link import open_ssh_device

            client = open_ssh_device(devices().get(device))
        stack.callback(client.close)
        result = client.measure(path, request)
    if result.status is not Status.OK:
        raise MeasureError(f"{path.name} on {device}: {result.reason}")
    return result
