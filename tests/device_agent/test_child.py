"""Whatever a job starts ends with the job, and the job ends with the agent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.jobs import child
from device_agent.jobs.child import HostGone, own_command, run_child

SLEEPER = "import time; time.sleep(600)"


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-I", "-c", code, *map(str, arguments)]


def is_gone(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.02)
    return holds()


FAMILY = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}], stdout=subprocess.DEVNULL)
with open(sys.argv[1] + ".new", "w") as file:
    print(os.getpid(), child.pid, file=file)
os.rename(sys.argv[1] + ".new", sys.argv[1])
"""


def test_the_answer_is_what_the_child_wrote() -> None:
    assert run_child(python("print('x' * 200_000)"), 20.0, None).answer == b"x" * 200_000 + b"\n"


def test_the_deadline_kills_the_child_and_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    ended = run_child(python(FAMILY + "time.sleep(600)", pids), 1.0, None)
    assert ended.problem.startswith("the deadline of 1 s passed")
    assert within(2.0, lambda: all(map(is_gone, pids.read_text().split())))


def test_what_a_child_leaves_running_goes_with_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    assert run_child(python(FAMILY, pids), 20.0, None).problem == ""
    assert within(2.0, lambda: all(map(is_gone, pids.read_text().split())))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_child_says_by_which_signal(number: signal.Signals) -> None:
    ended = run_child(python(f"import os; os.kill(os.getpid(), {int(number)})"), 20.0, None)
    assert f"signal {int(number)} ({number.name})" in ended.problem
    assert ended.answer == b""


def test_a_failed_child_says_its_exit_status() -> None:
    ended = run_child(python("import sys; print('half'); sys.exit(3)"), 20.0, None)
    assert (ended.answer, "exit status 3" in ended.problem) == (b"", True)


def test_a_child_that_answers_without_end_is_stopped() -> None:
    ended = run_child(python("while True: print('x' * 1000)"), 20.0, None)
    assert "over 1048576 bytes" in ended.problem


def test_a_host_that_leaves_takes_the_child_with_it(tmp_path: Path) -> None:
    here, there = os.pipe()
    pids = tmp_path / "pids"
    os.close(there)
    with pytest.raises(HostGone):
        run_child(python(FAMILY + "time.sleep(600)", pids), 20.0, here)
    os.close(here)
    if pids.exists():
        assert within(2.0, lambda: all(map(is_gone, pids.read_text().split())))


ANSWERS = """
import os, sys, time
os.write(1, sys.argv[1].encode())
os.write(int(sys.argv[2]), b"out of turn")
time.sleep(600)
"""


def test_a_whole_answer_is_kept_though_the_host_left_before_the_child_ended() -> None:
    here, there = os.pipe()
    ended = run_child(python(ANSWERS, '{"done": [1]}', there), 20.0, here, inherited=(there,))
    assert (ended.answer, ended.problem) == (b'{"done": [1]}', "")
    os.close(here)
    os.close(there)


def test_a_torn_answer_goes_with_the_host() -> None:
    here, there = os.pipe()
    with pytest.raises(HostGone):
        run_child(python(ANSWERS, '{"done": [1', there), 20.0, here, inherited=(there,))
    os.close(here)
    os.close(there)


def test_an_answer_written_while_the_host_is_found_gone_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = os.pipe()
    os.write(there, b"out of turn")
    kill = child._kill_group

    def late(process: "subprocess.Popen[bytes]") -> None:
        process.wait()
        kill(process)

    monkeypatch.setattr(child, "_kill_group", late)
    assert run_child(python("print('{}')"), 20.0, here).answer == b"{}\n"
    os.close(here)
    os.close(there)


def test_a_job_that_is_no_job_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"request": 1}')
    command = own_command("job", str(tmp_path / "job.json"))
    told = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (2, "")
    assert "holds no job" in told.stderr and "Traceback" not in told.stderr
