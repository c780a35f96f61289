"""The files of examples/cluster: what they name is there, and their commands run as processes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import optuna
import postgres
import pytest
import sshd
import yaml
from postgres import start_postgres
from sshd import Sshd, start_sshd
from tiny import Place, new_place

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "cluster"
OURS = {"STORAGE", "SCHEDULER", "BOARD", "BOARD_KEY", "WORKERS", "SHARED", "STUDY"}
NEEDED = (sshd.missing(), postgres.missing())
STARTS_IN_S, ENDS_IN_S = 120.0, 500.0


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return found


def scripts() -> list[Path]:
    return sorted(FOLDER.glob("*.sh"))


def variables(script: Path) -> set[str]:
    """Those of OURS that a script reads, and the scripts that it calls."""
    text = script.read_text()
    called = re.findall(r'/([a-z-]+\.sh)"', text)
    found = set(re.findall(r"\$\{?([A-Z_]+)", text)) & OURS
    return found.union(*(variables(FOLDER / name) for name in called))


def test_every_service_has_an_image_or_is_built_from_a_file_that_is_there(
    compose: dict[str, Any],
) -> None:
    assert set(compose["services"]) == {"postgres", "board", "scheduler", "worker", "run"}
    for name, service in compose["services"].items():
        assert "image" in service or "build" in service, name
        if "build" in service:
            context = (FOLDER / service["build"]["context"]).resolve()
            assert (context / service["build"]["dockerfile"]).is_file(), name
        for other in service.get("depends_on", ()):
            assert other in compose["services"], name
        for secret in service.get("secrets", ()):
            assert secret in compose["secrets"], name
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in compose["volumes"], name


def test_the_scripts_of_the_services_are_there_and_get_what_they_read(
    compose: dict[str, Any],
) -> None:
    for name in ("worker", "run"):
        service = compose["services"][name]
        script = FOLDER / Path(service["command"][1]).name
        assert variables(script) and variables(script) <= set(service["environment"]), name


def test_no_password_stands_in_a_file(compose: dict[str, Any]) -> None:
    stored = [
        service["environment"]
        for service in compose["services"].values()
        if "environment" in service
    ]
    passwords = [value for each in stored for key, value in each.items() if "PASSWORD" in key]
    assert passwords and all(value.startswith("${") for value in passwords)
    assert not any("@" in each.get("STORAGE", "").partition("@")[2] for each in stored)


@pytest.mark.parametrize("script", scripts(), ids=lambda script: script.name)
def test_a_script_is_one(script: Path) -> None:
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_job_of_slurm_asks_for_a_gpu_a_task() -> None:
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)", (FOLDER / "slurm.sh").read_text(), re.M))
    assert asked["gpus-per-task"] == "1" and int(asked["ntasks"]) > 1


class Hosts:
    """Processes instead of containers, each with a home of its own."""

    def __init__(self, place: Place, server: Sshd, stack: ExitStack) -> None:
        self.place, self._stack = place, stack
        self.environment = {
            **place.environment(),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "BOARD": f"ssh://{server.user}@{server.host}:{server.port}",
            "BOARD_KEY": str(server.key_file),
            "BOARD_PYTHON": sys.executable,
        }

    def start(self, name: str, command: Sequence[str], **more: str) -> subprocess.Popen[bytes]:
        home = self.place.folder / "homes" / name
        with open(self.place.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.place.folder,
                env={**self.environment, "FUSION_NAS_HOME": str(home), **more},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._stack.callback(end, process)
        return process

    def log(self, name: str) -> str:
        return (self.place.folder / f"{name}.log").read_text(errors="replace")


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def hosts(folder: Path) -> Iterator[Hosts]:
    with ExitStack() as stack:
        server = stack.enter_context(start_sshd(folder / "server"))
        yield Hosts(new_place(folder / "place"), server, stack)


def finished(url: str, name: str) -> list[optuna.trial.FrozenTrial]:
    trials = optuna.load_study(study_name=name, storage=url).get_trials()
    assert all(trial.state.is_finished() for trial in trials)
    return trials


@pytest.mark.slow
@pytest.mark.skipif(any(NEEDED), reason=" and ".join(filter(None, NEEDED)))
def test_the_commands_of_compose_run_a_study(compose: dict[str, Any], tmp_path: Path) -> None:
    def command(service: str) -> list[str]:
        return [
            str(FOLDER / Path(word).name) if word.endswith(".sh") else word
            for word in compose["services"][service]["command"]
        ]

    with hosts(tmp_path) as on, start_postgres() as database:
        there = {
            "STORAGE": database.url,
            "WORKERS": "2",
            "FUSION_NAS_STORE": str(tmp_path / "store"),
        }
        scheduler = command("scheduler")
        scheduler[scheduler.index("--port") + 1] = "0"
        on.start("scheduler", [*scheduler, "--host", "127.0.0.1", "--no-dashboard"])
        until = time.monotonic() + STARTS_IN_S
        while not (found := re.search(r"Scheduler at:\s+(tcp://\S+)", on.log("scheduler"))):
            assert time.monotonic() < until, on.log("scheduler")
            time.sleep(0.1)
        there["SCHEDULER"] = found[1]
        for number in (1, 2):
            on.start(f"worker-{number}", command("worker"), **there)
        run = command("run")
        run[run.index("--trials") + 1] = "4"
        done = on.start("run", [*run, *on.place.flags()], **there)
        assert done.wait(ENDS_IN_S) == 0, on.log("run")
        trials = finished(database.url, "cluster")
    assert len(trials) == 4
    assert list((tmp_path / "store" / "evaluations").rglob("*.json"))


@pytest.mark.slow
@pytest.mark.skipif(bool(sshd.missing()), reason=sshd.missing())
def test_the_tasks_of_the_slurm_job_run_a_study_on_a_journal(tmp_path: Path) -> None:
    with hosts(tmp_path) as on:
        shared = tmp_path / "shared"
        shared.mkdir()
        task = ["sh", str(FOLDER / "slurm-task.sh"), *on.place.flags()]
        asked = ["--trials", "4", "--timing", "shared"]
        there = {"SHARED": str(shared), "STUDY": "job", "SLURM_JOB_ID": "7"}
        there["TMPDIR"] = str(tmp_path)
        first = on.start("task-0", [*task, *asked], **there, SLURM_PROCID="0")
        second = on.start("task-1", [*task, *asked], **there, SLURM_PROCID="1")
        assert first.wait(ENDS_IN_S) == 0, on.log("task-0")
        assert second.wait(ENDS_IN_S) == 0, on.log("task-1")
        from studies.infra.storage import open_storage

        study = optuna.load_study(
            study_name="job", storage=open_storage(f"journal:{shared / 'studies.log'}")
        )
        assert len(study.get_trials()) == 4
        assert all(trial.state.is_finished() for trial in study.get_trials())
    assert list((shared / "store" / "weights").rglob("*.json"))
