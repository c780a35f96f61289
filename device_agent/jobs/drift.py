"""The drift reference of a job, of a size at which its runs on this device last long enough."""

import hashlib
import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from device_agent.board.state import read_board
from device_agent.runtime import Refused, Runtime, Session, Unavailable
from device_agent.storage.engine_cache import write_whole
from device_agent.storage.store import StoreError, remove_damaged
from device_agent.timing.drift_reference import SIZES, reference_inputs, reference_onnx
from device_agent.wire.request import MeasureRequest

LEAST_MS = 5.0
"""Shorter runs measure kernel launches and the timer rather than clocks. From one size to the next
the work grows fourfold, so that most devices take 5 to 20 ms."""
TRIED_RUNS = 5
WARM_S = 0.3
"""Before them: an idle device has low clocks, and its first runs are slow."""
REMEMBERED = "drift-reference.json"
CHECKSUM = "sha256"
"""Key of the checksum over the remembered sizes; earlier versions stored none."""


def drift_session(
    runtime: Runtime, request: MeasureRequest, scratch: Path, kept: Path
) -> tuple[Session, int]:
    """Make the drift reference run by the same runtime and provider as the network, on one thread.

    One thread, because the threads of a second session that wait for work disturb the first one,
    and because a reading on several threads is itself shaken by whatever else runs. Its size is
    chosen once for a device, runtime and power mode and remembered in `kept`: readings of two sizes
    cannot be compared.

    Returns:
        The session, and the index of its size in `SIZES`.

    Raises:
        Unavailable: it does not run here, whatever the network does.
    """
    folder = scratch / "drift_reference"
    folder.mkdir()
    notes = kept / REMEMBERED
    name = " ".join(
        str(part)
        for part in (request.runtime, runtime.version(), request.provider, read_board().power_mode)
    )
    sizes = _remembered(notes)
    try:
        if name in sizes:
            return _prepared(runtime, request, sizes[name], folder, kept), sizes[name]
        session, size = _prepared(runtime, request, 0, folder, kept), 0
        while _shortest_ms(session) < LEAST_MS and size + 1 < len(SIZES):
            try:
                session = _prepared(runtime, request, size + 1, folder, kept)
            except Refused:  # the largest that the device takes has to do
                break
            size += 1
    except Refused as error:
        raise Unavailable(f"the drift reference does not run on this device: {error}") from error
    sizes[name] = size
    try:
        write_whole(notes, json.dumps({**sizes, CHECKSUM: _checksum(sizes)}).encode())
    except OSError as error:
        print(f"job: the size of the drift reference is not stored: {error}", file=sys.stderr)
    return session, size


def _remembered(notes: Path) -> dict[str, int]:
    """Return the sizes by name; none, with a line, from a file that is not as it was written."""
    try:
        found = json.loads(notes.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        checksum = found.pop(CHECKSUM, None)
        if checksum is None or checksum == _checksum(found):
            sizes = found.items()
            return {k: size for k, size in sizes if type(size) is int and 0 <= size < len(SIZES)}
    with suppress(StoreError):
        remove_damaged(notes, "the size of the drift reference is chosen again")
    return {}


def _checksum(sizes: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(sizes, sort_keys=True).encode()).hexdigest()


def _prepared(
    runtime: Runtime, request: MeasureRequest, size: int, folder: Path, kept: Path
) -> Session:
    file = folder / f"drift_reference-{size}.onnx"
    content = reference_onnx(size)
    file.write_bytes(content)
    asked = replace(
        request,
        artifact_sha256=hashlib.sha256(content).hexdigest(),
        inputs=reference_inputs(size),
        threads=1,
        weights_seed=None,
    )
    session = runtime.prepare(file, asked, folder, kept)
    session.output_sha256()  # Sees that it keeps to the provider, and ends what observes that.
    return session


def _shortest_ms(session: Session) -> float:
    """Return the shortest of a few runs: a busy device must not seem a slow one.

    After some that raise the clocks of an idle device.
    """
    found = []
    warm_s = time.perf_counter() + WARM_S
    while time.perf_counter() < warm_s:
        session.run_once()
    for _ in range(TRIED_RUNS):
        start_s = time.perf_counter()
        session.run_once()
        found.append(1e3 * (time.perf_counter() - start_s))
    return min(found)
