"""A board that fills up, throttles, starts anew or has a wrong clock gives no wrong result."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faulty import QUICK, FaultyRuntime, network, processes_of, request, within

from device_agent.jobs.job import Job, measure
from device_agent.wire.request import MeasureResult, Status, job_id_of
from evaluators.devices.client import DeviceClient, DeviceRefused, open_local_device
from evaluators.latency.evaluator import LatencyEvaluator, Runs

GONE_S = 10.0
"""Processes are gone in 2 s; a busy machine gets more."""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> FaultyRuntime:
    return FaultyRuntime(tmp_path_factory.mktemp("python") / "venv")


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, runtime: FaultyRuntime) -> Iterator[None]:
    runtime.breaks()
    yield
    assert within(GONE_S, lambda: processes_of(tmp_path) == []), "processes are left"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def measures(device: DeviceClient, folder: Path, number: int = 99) -> bool:
    """Whether a good network is still measured."""
    good = network(folder / f"good-{number}.onnx", number)
    return device.measure(good, request(good)).status is Status.OK


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 6 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(folder)]
    mount = shutil.which("mount")
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this user may mount no small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_called_so_nothing_half_stays_and_room_is_made_by_itself(
    small_disk: Path, tmp_path: Path, runtime: FaultyRuntime
) -> None:
    home = small_disk / "home"
    size = 2**19  # 2 MiB of float32
    three = [network(tmp_path / f"{k}.onnx", k, size) for k in range(3)]
    with open_local_device(home, runtime.python) as device:
        for artifact in three:  # the third fits when the first is gone
            result = device.measure(artifact, request(artifact, size))
            assert result.status is Status.OK, result.reason
        kept = {path.name for path in (home / "artifacts").iterdir()}
        assert request(three[2], size).artifact_sha256 in kept and len(kept) < 3
        (small_disk / "other").write_bytes(bytes(free_bytes(small_disk)))
        larger = network(tmp_path / "larger.onnx", 9, 4 * size)
        with pytest.raises(DeviceRefused, match="make room there") as refused:
            device.measure(larger, request(larger, 4 * size))
        assert refused.value.code == "disk-full"
        assert [*(home / "incoming").iterdir()] == []
        (small_disk / "other").unlink()
        assert measures(device, tmp_path)


def test_on_a_disk_without_any_room_a_result_is_given_all_the_same_or_refused_in_words(
    small_disk: Path, tmp_path: Path, runtime: FaultyRuntime
) -> None:
    home = small_disk / "home"
    artifact = network(tmp_path / "n.onnx")
    with open_local_device(home, runtime.python) as device:
        assert measures(device, tmp_path)
        (small_disk / "other").write_bytes(bytes(free_bytes(small_disk)))
        with pytest.raises(DeviceRefused, match="make room there") as refused:
            device.measure(artifact, request(artifact))
        assert refused.value.code == "disk-full"
    with open_local_device(home, runtime.python) as device:
        device.hello()
        (small_disk / "other").unlink()
        assert measures(device, tmp_path)


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


CHANGED_CLOCK = """
import runpy, sys, time
now, now_ns = time.time, time.time_ns
time.time = lambda: now() + {hours} * 3600
time.time_ns = lambda: now_ns() + {hours} * 3600 * 10**9
sys.executable = {python!r}
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("hours", [-1, 1])
def test_clocks_an_hour_apart_change_no_result(
    home: Path, tmp_path: Path, runtime: FaultyRuntime, hours: int
) -> None:
    start = tmp_path / "start.py"
    shell = tmp_path / "python"
    shell.write_text(f'#!/bin/sh\nexec "{runtime.python}" "{start}" "$@"\n')
    shell.chmod(0o755)
    start.write_text(
        CHANGED_CLOCK.format(hours=hours, python=str(shell)).replace(
            "sys.argv[1:]", "[one for one in sys.argv[1:] if one != '-I']"
        )
    )
    artifact = network(tmp_path / "n.onnx")
    asked = request(artifact)
    with open_local_device(home, str(shell)) as device:
        assert abs(device.state().unix_s - time.time() - hours * 3600) < 600
        first = device.measure(artifact, asked, job_id=job_id_of(asked))
        assert first.status is Status.OK and 0 < first.median_ms < 60_000
    with open_local_device(home, runtime.python) as device:
        assert device.measure(artifact, asked, job_id=job_id_of(asked)) == first


OTHER_BOOT = """
mount --bind "{file}" /proc/sys/kernel/random/boot_id && exec "{python}" "$@"
"""


def test_a_reboot_between_two_calls_is_told_in_words(
    home: Path, tmp_path: Path, runtime: FaultyRuntime
) -> None:
    other = tmp_path / "boot_id"
    other.write_text("11111111-2222-3333-4444-555555555555\n")
    rebooted = tmp_path / "python"
    inner = OTHER_BOOT.format(file=other, python=runtime.python).strip()
    rebooted.write_text(f"#!/bin/sh\nexec unshare -m sh -c '{inner}' sh \"$@\"\n")
    rebooted.chmod(0o755)
    if subprocess.run([str(rebooted), "-c", "1"], capture_output=True).returncode:
        pytest.skip("this user may not show a process another boot id")
    pythons = [runtime.python, str(rebooted)]
    opened: list[DeviceClient] = []

    def open_device() -> DeviceClient:
        opened.append(open_local_device(home, pythons[len(opened)]))
        return opened[-1]

    artifact = network(tmp_path / "n.onnx")
    runtime.breaks(run="sleep", times=1)
    evaluator = LatencyEvaluator(None, open_device, Runs())  # type: ignore[arg-type]

    def reboot() -> None:
        runtime.wait_for("run")
        opened[0]._transport.close()

    rebooting = threading.Thread(target=reboot)
    rebooting.start()
    result, interruptions = evaluator._measure(file_of(artifact), request(artifact))
    rebooting.join()
    evaluator.close()
    assert result.status is Status.OK
    assert "the agent is lost" in interruptions[0]
    assert "restarted in between" in interruptions[1]
    assert "to 11111111-2222-3333-4444-555555555555" in interruptions[1]
    assert len(runtime.events("done")) == 1


def file_of(path: Path) -> Any:
    return SimpleNamespace(path=path, sha256=request(path).artifact_sha256)


def throttling(folder: Path, times: int) -> MeasureResult:
    """Time a network on a board that is slowed down, so many times, while it is timed."""
    counter = folder / "root/sys/class/hwmon/hwmon0/oc1_event_cnt"
    counter.parent.mkdir(parents=True)
    counter.write_text("3\n")
    scratch = folder / "scratch"
    scratch.mkdir()
    elements = 2**20  # a run takes a millisecond, a round far longer than a step of the counter
    artifact = network(folder / "n.onnx", size=elements)
    timing = replace(
        QUICK, min_time_s=0.2, max_time_s=2.0, max_repeats=1000, retries=2, watch_board=True
    )
    over = threading.Event()

    def slow_down() -> None:
        for count in range(times):
            # Written beside and moved: the file is never seen empty.
            fresh = counter.with_name("fresh")
            fresh.write_text(f"{4 + count}\n")
            fresh.replace(counter)
            if over.wait(0.02):
                return

    board = threading.Thread(target=slow_down)
    board.start()
    try:
        asked = request(artifact, elements, timing=timing)
        return measure(Job(asked, artifact, scratch, folder), folder / "root")
    finally:
        over.set()
        board.join()


def test_a_board_that_throttles_all_the_time_gives_no_result_to_trust(tmp_path: Path) -> None:
    result = throttling(tmp_path, 10**6)
    assert result.status is Status.OK and not result.stable
    assert len(result.rounds) == 3, "it was timed again as often as asked"
    assert all(any("oc1" in doubt for doubt in one.instability_reasons) for one in result.rounds)
    assert result.board_before is not None and result.board_after is not None
    counts = [dict(s.throttle_events) for s in (result.board_before, result.board_after)]
    assert counts[0]["oc1_event_cnt"] < counts[1]["oc1_event_cnt"]


def test_a_board_that_does_not_throttle_is_trusted_whatever_happened_before(
    tmp_path: Path,
) -> None:
    result = throttling(tmp_path, 0)
    assert (
        result.status is Status.OK and result.instability_reasons == () and len(result.rounds) == 1
    )
