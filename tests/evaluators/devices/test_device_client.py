"""A host measures through the very agent that ships, and is told in time whatever goes wrong."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from device_requests import QUICK, network, request
from faulty import within

from device_agent.runtimes import RUNTIMES
from device_agent.wire.request import Status, job_id_of
from evaluators.devices.client import (
    DeviceClient,
    DeviceLost,
    DeviceRefused,
    open_local_device,
)

pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[3]


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == pid and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def python_after(folder: Path, line: str) -> str:
    """Return an interpreter that runs a line of shell before it starts."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\n{line}\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return str(python)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def device(home: Path) -> Iterator[DeviceClient]:
    with open_local_device(home) as client:
        yield client


@pytest.fixture(scope="module")
def shared_device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceClient]:
    with open_local_device(tmp_path_factory.mktemp("device") / "home") as client:
        yield client


def test_a_device_says_what_it_is(shared_device: DeviceClient) -> None:
    info = shared_device.hello()
    assert [runtime.name for runtime in info.runtimes] == [*RUNTIMES]
    assert info.runtimes[0].version and "CPUExecutionProvider" in info.runtimes[0].providers
    assert info.fingerprint == shared_device.hello().fingerprint


def test_a_network_is_sent_once_and_measured_as_often_as_asked(
    device: DeviceClient, home: Path, tmp_path: Path
) -> None:
    artifact = network(tmp_path / "m.onnx")
    asked = request(artifact)
    first = device.measure(artifact, asked)
    artifact.unlink()
    second = device.measure(artifact, asked)
    assert (first.status, second.status) == (Status.OK, Status.OK)
    assert first.output_sha256 == second.output_sha256
    assert first.samples_ms != second.samples_ms
    assert [path.name for path in (home / "artifacts").iterdir()] == [asked.artifact_sha256]
    device.forget(artifacts=[asked.artifact_sha256])
    assert list((home / "artifacts").iterdir()) == []


def test_a_network_that_the_runtime_does_not_take_is_infeasible(
    shared_device: DeviceClient, tmp_path: Path
) -> None:
    artifact = network(tmp_path / "m.onnx", "NoSuchOperator")
    result = shared_device.measure(artifact, request(artifact))
    assert result.status is Status.INFEASIBLE
    assert "refuses the network" in result.reason


def test_a_network_that_yields_nan_is_infeasible(
    shared_device: DeviceClient, tmp_path: Path
) -> None:
    artifact = network(tmp_path / "m.onnx", "Sqrt")
    result = shared_device.measure(artifact, request(artifact))
    assert result.status is Status.INFEASIBLE
    assert "output y" in result.reason


def test_an_unknown_runtime_or_provider_is_an_error_in_words(
    shared_device: DeviceClient, tmp_path: Path
) -> None:
    artifact = network(tmp_path / "m.onnx")
    for changes in ({"runtime": "abacus"}, {"provider": "AbacusProvider"}):
        result = shared_device.measure(artifact, request(artifact, **changes))
        assert result.status is Status.ERROR
        assert "abacus" in result.reason.lower() and "ask for one of" in result.reason


def test_a_result_that_is_there_is_fetched_not_run_again(home: Path, tmp_path: Path) -> None:
    artifact = network(tmp_path / "m.onnx")
    asked = request(artifact)
    name = job_id_of(asked)
    with open_local_device(home) as before:
        assert before.result(name) is None
        result = before.measure(artifact, asked, job_id=name)
    with open_local_device(home) as after:
        assert after.result(name) == result
        assert after.measure(artifact, asked, job_id=name) == result
        with pytest.raises(DeviceRefused, match="names a job with another request"):
            after.measure(artifact, replace(asked, seed=1), job_id=name)
        after.forget(job_ids=[name])
        assert after.result(name) is None


def test_a_reading_that_was_not_stable_is_taken_again_not_fetched(
    device: DeviceClient, tmp_path: Path
) -> None:
    artifact = network(tmp_path / "m.onnx")
    strict = replace(QUICK, block_tolerance=0.0, reference_tolerance=0.0, interval_share=0.0)
    asked = request(artifact, timing=strict)
    first = device.measure(artifact, asked, job_id=job_id_of(asked))
    assert not first.stable
    assert device.measure(artifact, asked, job_id=job_id_of(asked)).rounds != first.rounds


def test_a_job_that_failed_or_whose_result_is_torn_is_run_again(
    device: DeviceClient, home: Path, tmp_path: Path
) -> None:
    endless = network(tmp_path / "loop.onnx", "Loop")
    late = request(endless, deadline_s=0.5)
    name = job_id_of(late)
    for _ in range(2):
        started = time.monotonic()
        assert device.measure(endless, late, job_id=name).status is Status.ERROR
        assert time.monotonic() - started >= 0.5
    artifact = network(tmp_path / "m.onnx")
    asked = request(artifact)
    name = job_id_of(asked)
    first = device.measure(artifact, asked, job_id=name)
    kept = home / "results" / name
    kept.write_bytes(kept.read_bytes()[:-40])
    assert device.measure(artifact, asked, job_id=name).samples_ms != first.samples_ms


def test_a_job_past_its_deadline_is_killed_and_the_device_stays(
    device: DeviceClient, home: Path, tmp_path: Path
) -> None:
    endless = network(tmp_path / "loop.onnx", "Loop")
    result = device.measure(endless, request(endless, deadline_s=1.5))
    assert result.status is Status.ERROR
    assert "deadline of 1.5 s" in result.reason
    assert list((home / "incoming").iterdir()) == []
    artifact = network(tmp_path / "m.onnx")
    assert device.measure(artifact, request(artifact)).status is Status.OK


def test_an_artifact_that_is_not_what_its_name_says_is_refused_and_not_kept(
    device: DeviceClient, home: Path, tmp_path: Path
) -> None:
    artifact = network(tmp_path / "m.onnx")
    with pytest.raises(DeviceRefused, match="SHA-256") as refused:
        device.measure(artifact, request(artifact, artifact_sha256="0" * 64))
    assert refused.value.code == "wrong-sha256"
    assert list((home / "artifacts").iterdir()) == []
    assert device.measure(artifact, request(artifact)).status is Status.OK


def test_a_full_disk_is_called_so_and_leaves_nothing_behind(home: Path, tmp_path: Path) -> None:
    python = python_after(tmp_path, "ulimit -f 2000")
    large = tmp_path / "large.onnx"
    large.write_bytes(os.urandom(2_000_000))
    artifact = network(tmp_path / "m.onnx")
    with open_local_device(home, python) as device:
        with pytest.raises(DeviceRefused, match="make room there") as refused:
            device.measure(large, request(large))
        assert refused.value.code == "disk-full"
        assert [*(home / "artifacts").iterdir(), *(home / "incoming").iterdir()] == []
        assert device.measure(artifact, request(artifact)).status is Status.OK


def test_what_a_login_shell_prints_first_is_skipped(home: Path, tmp_path: Path) -> None:
    python = python_after(tmp_path, "echo Welcome to the board; printf 'no newline'")
    with open_local_device(home, python) as device:
        assert device.hello().python


CLIENT = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from device_requests import network, request
from evaluators.devices.client import open_local_device
artifact = network(Path(sys.argv[1]) / "loop.onnx", "Loop")
with open_local_device(Path(sys.argv[1]) / "home") as device:
    print(device.hello().python, flush=True)
    device.measure(artifact, request(artifact))
"""


@pytest.mark.parametrize("victim", ["host", "agent"])
def test_when_host_or_agent_is_killed_no_process_is_left(tmp_path: Path, victim: str) -> None:
    command = [sys.executable, "-c", CLIENT, str(tmp_path), str(ROOT), *sys.path]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as host:
        assert host.stdout and host.stdout.readline()
        assert within(10, lambda: [job for agent in children(host.pid) for job in children(agent)])
        (agent,) = children(host.pid)
        (job,) = children(agent)
        os.kill(host.pid if victim == "host" else agent, signal.SIGKILL)
        assert within(2, lambda: is_gone(agent) and is_gone(job))
        if victim == "agent":
            assert "DeviceLost: measure: the agent is lost" in host.communicate(timeout=20)[1]


def test_closing_ends_agent_and_job(home: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_local_device(home) as device:
        device.hello()
        (agent,) = [pid for pid in children(os.getpid()) if bytes(home) in _command(pid)]
        raise KeyboardInterrupt
    assert is_gone(agent)
    with pytest.raises(DeviceLost, match=r"has ended, it was closed: open another"):
        device.forget()


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_python_that_is_not_there_is_named(home: Path) -> None:
    with pytest.raises(DeviceLost, match="no-such-python"):
        open_local_device(home, "no-such-python")


def test_what_is_damaged_on_the_device_is_measured_anew_and_told(tmp_path: Path) -> None:
    artifact, home, said = network(tmp_path / "n.onnx"), tmp_path / "home", list[str]()
    asked = request(artifact)
    job = job_id_of(asked)
    stored = home / "artifacts" / asked.artifact_sha256

    def figure() -> float:
        with open_local_device(home) as device:
            device._waiting = said.append
            result = device.measure(artifact, asked, job_id=job)
        assert result.status is Status.OK and result.median_ms is not None
        return result.median_ms

    first = figure()
    assert figure() == first and said == []
    kept = home / "results" / job
    kept.write_bytes(kept.read_bytes().replace(b'samples_ms": [0.', b'samples_ms": [8.'))
    assert 0 < figure() < 8
    assert [line for line in said if f"the result of job {job[:16]}" in line] == said != []
    said.clear()
    stored.write_bytes(bytes(stored.stat().st_size))
    kept.unlink()
    assert 0 < figure() < 8
    assert [line for line in said if "is sent again" in line] == said != []
    assert hashlib.sha256(stored.read_bytes()).hexdigest() == asked.artifact_sha256
