"""Whatever breaks on a device, the host is told in words, and the device goes on."""

import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from faulty import (
    FaultyRuntime,
    agents_of,
    network,
    processes_of,
    request,
    run_host,
    serving,
    within,
)

from device_agent.wire.request import Status, job_id_of
from evaluators.devices.client import (
    DeviceClient,
    DeviceLost,
    LocalTransport,
    open_local_device,
)

IN_TIME_S = 2.0
GONE_S = 10.0
"""Processes are gone in 2 s; a busy machine gets more."""
HANGS = [("compile", "hold the interpreter"), ("run", "sleep")]


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


# -- the runtime breaks


@pytest.mark.parametrize(("event", "fault"), HANGS)
def test_a_build_or_timing_that_hangs_is_ended_by_its_deadline(
    home: Path, tmp_path: Path, runtime: FaultyRuntime, event: str, fault: str
) -> None:
    artifact = network(tmp_path / "n.onnx")
    runtime.breaks(**{event: fault})
    with open_local_device(home, runtime.python) as device:
        result = device.measure(artifact, request(artifact, deadline_s=2.0))
        assert result.status is Status.ERROR and "deadline of 2 s" in result.reason
        runtime.breaks()
        assert measures(device, tmp_path)


def test_a_runtime_that_always_crashes_on_a_design_makes_it_infeasible(
    home: Path, tmp_path: Path, runtime: FaultyRuntime
) -> None:
    artifact = network(tmp_path / "n.onnx")
    runtime.breaks(compile="read address 0")
    with open_local_device(home, runtime.python) as device:
        result = device.measure(artifact, request(artifact))
        assert result.status is Status.INFEASIBLE and result.reason.count("SIGSEGV") == 2
        assert len(runtime.events("compile")) == 2
        runtime.breaks()
        assert measures(device, tmp_path)


def test_a_runtime_that_crashes_once_is_run_again(
    home: Path, tmp_path: Path, runtime: FaultyRuntime
) -> None:
    artifact = network(tmp_path / "n.onnx")
    runtime.breaks(run="read address 0", times=1)
    with open_local_device(home, runtime.python) as device:
        assert device.measure(artifact, request(artifact)).status is Status.OK
    assert len(runtime.events("compile")) == 2 and len(runtime.events("done")) == 1


def test_a_job_that_somebody_kills_is_no_fault_of_the_design(
    home: Path, tmp_path: Path, runtime: FaultyRuntime
) -> None:
    artifact = network(tmp_path / "n.onnx")
    runtime.breaks(compile="be killed")
    with open_local_device(home, runtime.python) as device:
        result = device.measure(artifact, request(artifact))
        assert result.status is Status.ERROR and "SIGKILL" in result.reason
        runtime.breaks()
        assert device.measure(artifact, request(artifact)).status is Status.OK


def test_a_build_that_asks_for_more_memory_than_there_is_makes_a_design_infeasible(
    home: Path, tmp_path: Path, runtime: FaultyRuntime
) -> None:
    artifact = network(tmp_path / "n.onnx")
    runtime.breaks(compile="ask for memory")
    with open_local_device(home, runtime.python) as device:
        result = device.measure(artifact, request(artifact))
        assert result.status is Status.INFEASIBLE and result.reason.count("out of memory") == 2
        runtime.breaks()
        assert measures(device, tmp_path)


def test_a_lack_of_memory_that_passes_does_not_damn_a_design(
    home: Path, tmp_path: Path, runtime: FaultyRuntime
) -> None:
    artifact = network(tmp_path / "n.onnx")
    runtime.breaks(compile="ask for memory", times=1)
    with open_local_device(home, runtime.python) as device:
        assert device.measure(artifact, request(artifact)).status is Status.OK


def is_empty(file: Path) -> bool:
    return not file.read_text()


@pytest.fixture
def little_memory(tmp_path: Path) -> Iterator[Path]:
    """A control group with 256 MiB, which a process joins by writing to its `cgroup.procs`."""
    for top, limit in (("memory", "memory.limit_in_bytes"), (".", "memory.max")):
        group = Path("/sys/fs/cgroup") / top / f"fusion-nas-test-{os.getpid()}"
        try:
            group.mkdir()
            (group / limit).write_text(str(256 * 2**20))
        except OSError:
            if group.exists():
                group.rmdir()
            continue
        yield group
        assert within(GONE_S, partial(is_empty, group / "cgroup.procs"))
        group.rmdir()
        return
    pytest.skip("this user may make no control group with bounded memory")


def test_when_the_kernel_ends_a_build_twice_the_design_is_infeasible_and_the_agent_lives(
    home: Path, tmp_path: Path, runtime: FaultyRuntime, little_memory: Path
) -> None:
    artifact = network(tmp_path / "n.onnx")
    runtime.breaks(compile="take memory")
    python = tmp_path / "python"
    join = f"echo $$ > {little_memory / 'cgroup.procs'}"
    python.write_text(f'#!/bin/sh\n{join}\nexec "{runtime.python}" "$@"\n')
    python.chmod(0o755)
    with open_local_device(home, str(python)) as device:
        result = device.measure(artifact, request(artifact))
        assert result.status is Status.INFEASIBLE, result.reason
        assert "as the device's memory ran out" in result.reason
        runtime.breaks()
        assert measures(device, tmp_path)


# -- agent, host and link end


@pytest.mark.parametrize(("event", "fault"), HANGS)
def test_an_agent_that_is_killed_takes_its_job_along_and_the_next_one_measures(
    home: Path, tmp_path: Path, runtime: FaultyRuntime, event: str, fault: str
) -> None:
    artifact = network(tmp_path / "n.onnx")
    runtime.breaks(**{event: fault}, times=1)
    code = """
from pathlib import Path
from faulty import network, open_agent, request
artifact = Path(sys.argv[1])
with open_agent(sys.argv[2:]) as device:
    device.measure(artifact, request(artifact))
"""
    with run_host(code, artifact, *serving(home, runtime.python)) as host:
        runtime.wait_for(event)
        (agent,) = agents_of(home)
        os.kill(agent, signal.SIGKILL)
        assert within(GONE_S, lambda: processes_of(home) == [])
        assert "DeviceLost: measure: the agent is lost" in host.communicate(timeout=30)[1]
    with open_local_device(home, runtime.python) as device:
        assert device.measure(artifact, request(artifact)).status is Status.OK


@pytest.mark.parametrize(
    ("number", "event"),
    [(signal.SIGINT, "compile"), (signal.SIGINT, "run"), (signal.SIGKILL, "run")],
)
def test_a_host_that_ends_leaves_no_process_and_its_successor_repeats_only_what_was_not_done(
    home: Path, tmp_path: Path, runtime: FaultyRuntime, number: signal.Signals, event: str
) -> None:
    done, broken = network(tmp_path / "a.onnx", 1), network(tmp_path / "b.onnx", 2)
    code = """
from pathlib import Path
from device_agent.wire.request import job_id_of
from faulty import open_agent, request
first, second = map(Path, sys.argv[1:3])
with open_agent(sys.argv[3:]) as device:
    for artifact in (first, second):
        asked = request(artifact)
        device.measure(artifact, asked, job_id=job_id_of(asked))
        sys.stdout.write("measured\\n")
        sys.stdout.flush()
        sys.stdin.readline()
"""
    with run_host(code, done, broken, *serving(home, runtime.python)) as host:
        assert host.stdin and host.stdout and host.stdout.readline()
        runtime.breaks(**{event: "sleep"}, times=1)
        host.stdin.write("\n")
        host.stdin.flush()
        runtime.wait_for(event)
        host.send_signal(number)
        assert within(GONE_S, lambda: processes_of(home) == [])
        host.wait(30)
    runtime.breaks()
    with open_local_device(home, runtime.python) as device:
        for artifact in (done, broken):
            asked = request(artifact)
            result = device.measure(artifact, asked, job_id=job_id_of(asked))
            assert result.status is Status.OK
    assert runtime.events("done") == [request(broken).artifact_sha256]


def test_when_standard_input_ends_the_agent_and_its_job_are_gone_at_once(
    home: Path, tmp_path: Path, runtime: FaultyRuntime
) -> None:
    artifact = network(tmp_path / "n.onnx")
    runtime.breaks(compile="hold the interpreter")
    transport = LocalTransport(serving(home, runtime.python))
    device = DeviceClient(transport)
    asking = threading.Thread(target=lambda: ended_by(device, artifact))
    asking.start()
    runtime.wait_for("compile")
    assert len(processes_of(home)) == 3, "the agent, its job and who watches the job"
    transport.writer.close()  # type: ignore[attr-defined]
    assert within(GONE_S, lambda: processes_of(home) == [])
    asking.join(GONE_S)
    assert not asking.is_alive()


def test_two_seconds_after_its_host_was_killed_nothing_runs_on_the_device(
    home: Path, tmp_path: Path, runtime: FaultyRuntime
) -> None:
    artifact = network(tmp_path / "n.onnx")
    code = """
from pathlib import Path
from faulty import open_agent, request
artifact = Path(sys.argv[1])
with open_agent(sys.argv[2:]) as device:
    device.measure(artifact, request(artifact))
"""
    gone_in_time = False
    for _ in range(2):  # a machine that is busy gets one more try
        runtime.breaks(compile="hold the interpreter")
        with run_host(code, artifact, *serving(home, runtime.python)) as host:
            runtime.wait_for("compile")
            host.kill()
            gone_in_time = within(IN_TIME_S, lambda: processes_of(home) == [])
        if gone_in_time:
            break
    assert gone_in_time


def ended_by(device: DeviceClient, artifact: Path) -> None:
    with pytest.raises(DeviceLost), device:
        device.measure(artifact, request(artifact))


def test_an_agent_ends_also_while_it_looks_for_runtimes(
    home: Path, tmp_path: Path, runtime: FaultyRuntime
) -> None:
    runtime.breaks(load="hold the interpreter")
    with run_host(HELLO, *serving(home, runtime.python)) as host:
        runtime.wait_for("load")
        (agent,) = agents_of(home)
        os.kill(agent, signal.SIGKILL)
        assert within(GONE_S, lambda: processes_of(home) == [])
        assert "DeviceLost" in host.communicate(timeout=30)[1]


HELLO = """
from faulty import open_agent
with open_agent(sys.argv[1:]) as device:
    device.hello()
"""
