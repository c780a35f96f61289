"""Experiment trackers have every finished trial once, with its figures, however a study ends."""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest
from tiny import Place, finished_place

from studies.config.usage import UsageError
from studies.tracking.log import TRACKED, TrialLog
from studies.tracking.trackers import KINDS, Tracker, check_trackers, open_tracker

CONDITIONS = {"data": "64 pictures"}
FIGURES = [{"accuracy": 70.5, "latency_ms": 1.25}, {"accuracy": 81.0}]


def opened(kind: str, folder: Path, study: str = "tried") -> Tracker:
    where = {
        "tensorboard": str(folder / "boards"),
        "mlflow": f"sqlite:///{folder / 'mlflow.db'}",
        "wandb": "a-project",
    }[kind]
    return open_tracker(f"{kind}={where}", study, CONDITIONS)


def read(kind: str, folder: Path) -> dict[str, dict[int, float]]:
    """What a tracker has of each metric, by number of trial."""
    return {"tensorboard": _of_tensorboard, "mlflow": _of_mlflow, "wandb": _of_wandb}[kind](folder)


def _of_tensorboard(folder: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "boards" / "tried"))
    events.Reload()
    return {
        name: {event.step: pytest.approx(event.value, rel=1e-6) for event in events.Scalars(name)}
        for name in events.Tags()["scalars"]
    }


def _of_mlflow(folder: Path) -> dict[str, dict[int, float]]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fusion-nas")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.tags["data"] == "64 pictures"
    return {
        name: {each.step: each.value for each in client.get_metric_history(run.info.run_id, name)}
        for name in run.data.metrics
    }


def _of_wandb(folder: Path) -> dict[str, dict[int, float]]:
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, dict[int, float]] = {}
    for file in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        for data in _log_records(file.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            items = record.history.item
            row = {item.key or item.nested_key[0]: item.value_json for item in items}
            for name in ("accuracy", "latency_ms"):
                if name in row:
                    found.setdefault(name, {})[int(row["trial"])] = float(row[name])
    return found


def _log_records(data: bytes) -> Iterator[bytes]:
    """Records of a file of W&B: 7 bytes of header, then LevelDB's log format."""
    block, header, at, record = 32_768, 7, 7, b""
    while at + header <= len(data):
        if block - at % block < header:  # too short for a record: padding
            at += block - at % block
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + header : at + header + length]
        at += header + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.mark.parametrize("kind", KINDS)
def test_a_tracker_has_the_figures_of_every_trial_over_two_runs_of_a_study(
    kind: str, tmp_path: Path
) -> None:
    for number, figures in enumerate(FIGURES):
        tracker = opened(kind, tmp_path)
        tracker.log(number, figures, f"design {number}")
        tracker.close()
        time.sleep(1.1)  # W&B names the folder of a run after the second in which it began
    assert read(kind, tmp_path) == {
        "accuracy": {0: 70.5, 1: 81.0},
        "latency_ms": {0: 1.25},
    }


@dataclass
class Listed:
    """A tracker that keeps what it is told in a list."""

    logged: list[int] = field(default_factory=list)
    fails_at: int = -1
    closed: int = 0

    def log(self, trial: int, metrics: Mapping[str, float], design: str) -> None:
        if trial == self.fails_at:
            raise ConnectionError("the server\nis gone")
        self.logged.append(trial)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def study() -> Iterator[optuna.Study]:
    yield optuna.create_study(directions=["maximize", "minimize"])


def ended(study: optuna.Study, count: int) -> None:
    for _ in range(count):
        study.tell(study.ask(), [70.0, 1.0])


def logging(study: optuna.Study, tracker: Listed, lines: list[str], name: str = "wandb") -> Any:
    return TrialLog(study, [name], lines.append, lambda *_: tracker)


def test_every_trial_is_logged_once_in_any_order_of_ends(study: optuna.Study) -> None:
    tracker, lines = Listed(), list[str]()
    slow = study.ask()
    ended(study, 2)
    log = logging(study, tracker, lines)
    log.update()
    study.tell(slow, [60.0, 2.0])
    log.update()
    log.close()
    assert tracker.logged == [1, 2, 0] and tracker.closed == 1 and not lines
    assert study.user_attrs[TRACKED] == {"wandb": {"through": 3, "more": []}}


def test_a_resumed_study_logs_what_is_new(study: optuna.Study) -> None:
    first, second = Listed(), Listed()
    ended(study, 2)
    logging(study, first, []).close()
    ended(study, 1)
    logging(study, second, []).close()
    assert (first.logged, second.logged) == ([0, 1], [2])


def test_a_tracker_that_fails_is_reported_and_the_next_run_logs_the_rest(
    study: optuna.Study,
) -> None:
    lines = list[str]()
    ended(study, 3)
    failing, name = Listed(fails_at=1), "mlflow=http://someone:secret@host"
    log = logging(study, failing, lines, name)
    log.update()
    log.close()
    assert failing.logged == [0] and failing.closed == 0
    (line,) = lines
    assert "the server is gone" in line and "secret" not in line
    assert "secret" not in str(study.user_attrs)
    after = Listed()
    logging(study, after, [], name).close()
    assert after.logged == [1, 2]


def test_a_tracker_that_cannot_be_opened_ends_no_study(study: optuna.Study) -> None:
    lines = list[str]()

    def refused(*_: Any) -> Tracker:
        raise ConnectionError

    log = TrialLog(study, ["wandb"], lines.append, refused)
    log.update()
    log.close()
    assert lines == ["wandb failed (ConnectionError): trials are logged no more"]


def test_an_unknown_tracker_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="--track comet: choose tensorboard=DIR, mlflow=URI"):
        check_trackers(["comet"])
    with pytest.raises(UsageError, match="--track mlflow=: choose tensorboard=DIR, mlflow=URI"):
        check_trackers(["mlflow="])


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studies.tracking.trackers.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"wandb is not installed; install fusion-nas\[wandb\]"):
        check_trackers(["wandb=mine"])


@pytest.mark.slow
def test_a_run_logs_the_trials_of_earlier_runs_too(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    base = tmp_path_factory.mktemp("tracked")
    shutil.copytree(finished_place(tmp_path_factory.getbasetemp()).folder, base / "place")
    place = Place(base / "place")
    flags = ("--track", f"tensorboard={base / 'boards'}", "--trials", "6", "--json")
    done = place.finish(place.run(*flags))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (study,) = (base / "boards").iterdir()
    study.rename(base / "boards" / "tried")
    logged = read("tensorboard", base)
    complete = {row["number"]: row for row in told["trials"] if row["state"] == "complete"}
    assert len(complete) > 1 and logged["accuracy"].keys() >= complete.keys()
    for number, row in complete.items():
        assert logged["accuracy"][number] == row["valid_accuracy_percent"]["value"]
