"""The last rung: designs that earn it are fine-tuned whole, once the search is over."""

from typing import Any

import optuna
from filelock import Timeout

from evaluators.evaluation import NotFiniteError
from evaluators.store import known_or_new
from search_space.locks import NamedLock
from studies.report.progress import Reporter
from studies.results.fine_tuned import ATTRIBUTE, RIGHT, RIGHT_BEFORE, earn_it, fine_tuned_of
from studies.results.outcome import DesignResult
from studies.results.study_outcome import rows_of
from studies.results.text import counted, difference
from studies.results.trial_record import TrialRecord, genotype_of
from studies.study.context import StudyContext


def fine_tune(context: StudyContext, study: optuna.Study, reporter: Reporter) -> None:
    """Fine-tunes the designs that have earned it, and keeps with the study what each came to.

    Workers that end together share them: each takes one that no other has taken, and comes back
    once none is left to take. What was fine-tuned before is not done again. Raises StoreError.
    """
    chosen = earn_it(rows_of(study), context.settings.training.fine_tune)
    reporter.line(f"fine-tuning {counted(len(chosen), 'design')} whole, first by rank")
    folder = context.home / "workers"
    for wait in (False, True):
        for row in chosen:
            lock = NamedLock(folder / f"fine-tune-{study.study_name}-{row.number}.lock")
            try:
                with lock.acquire(timeout=-1 if wait else 0):
                    if f"{ATTRIBUTE}{row.number}" not in study.user_attrs:
                        _fine_tune(context, study, row, reporter)
            except Timeout:
                continue  # another worker's; waited for in the second round


def _fine_tune(
    context: StudyContext, study: optuna.Study, row: DesignResult, reporter: Reporter
) -> None:
    assert row.number is not None
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    trial = trials[row.number]
    kept: dict[str, Any]
    try:
        found, _ = known_or_new(context.store, context.fine_tuned, genotype_of(trial))
        failed = found.details["did_not_train"] if found.details.get("constant") else ""
    except NotFiniteError as error:
        failed = " ".join(str(error).split())
    if failed:
        kept = {"reason": failed}
        reporter.line(f"{row.label}: not fine-tuned: {failed}")
    else:
        kept = {m.name: [m.value, m.low, m.high] for m in found.measures}
        kept |= {"fidelity": found.details["fidelity"], RIGHT: found.details[RIGHT]}
        before = TrialRecord.of(trial).result.training
        kept[RIGHT_BEFORE] = list(before.correct or ()) if before else []
    study.set_user_attr(f"{ATTRIBUTE}{row.number}", kept)
    for tuned in fine_tuned_of(study.user_attrs, rows_of(study)):
        if tuned.row.number == row.number and tuned.row.accuracy:
            gained = difference(tuned.gained)
            reporter.line(f"{row.label}: {tuned.row.accuracy.value:.1f} % fine-tuned, {gained}")
