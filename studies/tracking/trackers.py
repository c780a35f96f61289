"""Clients of experiment trackers: what each logs of a study and of its trials."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from studies.config.usage import UsageError

KINDS = ("tensorboard", "mlflow", "wandb")
TRIAL = "trial"
"""The axis of a tracker's plots: the number of a trial."""


class Tracker(Protocol):
    """One run of an experiment tracker, which stands for one study."""

    def log(self, trial: int, metrics: Mapping[str, float], design: str) -> None:
        """Record a finished trial.

        Args:
            trial: its number.
            metrics: figures by name, such as `accuracy_percent`.
            design: the design in words.
        """
        ...

    def close(self) -> None:
        """Write what is buffered and end the run; a later one goes on with it."""
        ...


class TensorBoardTracker:
    """Scalars over trial numbers, in event files below `folder/STUDY`."""

    def __init__(self, folder: Path, study: str, _conditions: Mapping[str, str]) -> None:
        tensorboard = import_module("torch.utils.tensorboard")
        self._writer = tensorboard.SummaryWriter(str(folder / study))

    def log(self, trial: int, metrics: Mapping[str, float], design: str) -> None:
        """Add one scalar for each metric, and the design as text."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, trial)
        self._writer.add_text("design", design, trial)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class MlflowTracker:
    """One run a study, in the experiment `fusion-nas`; its metrics are over trial numbers."""

    def __init__(self, uri: str, study: str, conditions: Mapping[str, str]) -> None:
        # MLflow sends usage data to its makers by default.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        mlflow = import_module("mlflow")
        self._client = mlflow.MlflowClient(tracking_uri=uri or None)
        found = self._client.get_experiment_by_name("fusion-nas")
        self._experiment = (
            found.experiment_id if found else self._client.create_experiment("fusion-nas")
        )
        named = f"tags.fusion_nas_study = '{study}'"
        runs = self._client.search_runs([self._experiment], filter_string=named)
        if runs:
            self._run = runs[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            tags = {"fusion_nas_study": study, "mlflow.runName": study}
            self._run = self._client.create_run(self._experiment, tags=tags).info.run_id
            for name, text in conditions.items():
                self._client.set_tag(self._run, name, text[:5000])

    def log(self, trial: int, metrics: Mapping[str, float], design: str) -> None:
        """Log the metrics at the step of the trial; the design is a tag."""
        for name, value in metrics.items():
            self._client.log_metric(self._run, name, value, step=trial)
        self._client.set_tag(self._run, f"design.{trial}", design)

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._run)


class WandbTracker:
    """One run a study, in a project; `WANDB_MODE=offline` keeps it on this machine."""

    def __init__(self, project: str, study: str, conditions: Mapping[str, str]) -> None:
        wandb = import_module("wandb")
        # The same study is the same run, wherever it goes on.
        name = hashlib.sha256(study.encode()).hexdigest()[:16]
        self._run: Any = wandb.init(
            project=project or "fusion-nas",
            name=study,
            id=name,
            resume="allow",
            config=dict(conditions),
            settings=wandb.Settings(silent=True, console="off"),
        )
        # Trials of several workers end in any order, and a step of W&B must not go back.
        self._run.define_metric(TRIAL)
        self._run.define_metric("*", step_metric=TRIAL)

    def log(self, trial: int, metrics: Mapping[str, float], design: str) -> None:
        """Log the metrics and the design of a trial."""
        self._run.log({TRIAL: trial, **metrics, "design": design})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def open_tracker(wanted: str, study: str, conditions: Mapping[str, str]) -> Tracker:
    """Open the run of a study in a tracker.

    Args:
        wanted: KIND or KIND=WHERE: `tensorboard=DIR`, `mlflow=URI`, `wandb=PROJECT`.
        study: the study's name.
        conditions: what the study is of, in words, by name.

    Raises:
        UsageError: for a kind that is unknown, or whose package is not installed.
        Exception: what the tracker's own client raises.
    """
    check_trackers([wanted])
    kind, where = kind_of(wanted)
    if kind == "tensorboard":
        return TensorBoardTracker(Path(where or "runs/tensorboard"), study, conditions)
    return (MlflowTracker if kind == "mlflow" else WandbTracker)(where, study, conditions)


def check_trackers(wanted: Sequence[str]) -> None:
    """Raise UsageError for a tracker that is unknown or not installed; nothing is opened."""
    for each in wanted:
        kind, _ = kind_of(each)
        if find_spec(kind) is None:
            raise UsageError(
                f"--track {kind}: the package {kind} is not installed; install fusion-nas[{kind}]"
            )


def kind_of(wanted: str) -> tuple[str, str]:
    """Return kind and place of a tracker.

    Raises UsageError for an unknown kind or an empty place.
    """
    kind, equals, where = wanted.partition("=")
    if kind not in KINDS or (equals and not where.strip()):
        raise UsageError(f"--track {wanted}: choose tensorboard=DIR, mlflow=URI or wandb=PROJECT")
    return kind, where
