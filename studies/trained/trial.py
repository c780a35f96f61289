"""A trial whose trained network is asked for after its study: the trial, and the study's parts."""

from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.trial import FrozenTrial

from studies.config.settings import Settings
from studies.config.usage import UsageError
from studies.report.progress import Reporter
from studies.results.study_outcome import PROTOCOL, SETTINGS
from studies.results.trial_record import TrialRecord
from studies.study.context import StudyContext, open_context
from studies.study.identity import SAME_RESULTS, check_identity


def trained_trial(study: optuna.Study, number: int) -> FrozenTrial:
    """The study's trial of this number. Raises UsageError where it has no trained network."""
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    if number not in trials:
        held = f"0 to {max(trials)}" if trials else "none yet"
        raise UsageError(f"no trial {number} in study {study.study_name}: it has {held}")
    trial = trials[number]
    if trial.values is None:
        unknown = "it failed" if trial.state.is_finished() else "it has not ended"
        reason = TrialRecord.of(trial).result.reason or unknown
        raise UsageError(
            f"trial {number} has no trained network ({reason}): choose one of the front"
        )
    return trial


@contextmanager
def context_of(study: optuna.Study, reporter: Reporter) -> Iterator[StudyContext]:
    """Data, encoders and evaluators as the study had them, on this machine.

    Raises what `open_context` raises, and StorageError where they have changed since.
    """
    settings = _elsewhere(study)
    context = open_context(settings, reporter.step, lambda _: study.user_attrs[PROTOCOL])
    try:
        check_identity(context, study, SAME_RESULTS)
        yield context
    finally:
        context.close()


def _elsewhere(study: optuna.Study) -> Settings:
    """The settings of a study, but for its devices and workers: neither is needed here."""
    stored = dict(study.user_attrs[SETTINGS])
    return Settings.from_stored(
        {k: v for k, v in stored.items() if k not in ("device", "devices", "workers")}
    )
