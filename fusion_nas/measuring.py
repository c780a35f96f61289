"""Time an ONNX file on a device from Python."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from device_agent.wire.result import MeasureResult
from evaluators.devices.registry import LOCAL
from studies.config.options import DeviceOptions
from studies.trained.timing import timing_device


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
        runtime: `cpu`, `cuda`, `tensorrt`, `openvino`, or a plugin's (on `local`).
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
    options = DeviceOptions((device,), threads, timing, runtime=runtime)
    with timing_device(options) as opened:
        return opened.time(Path(onnx_file).expanduser(), shapes or {})
