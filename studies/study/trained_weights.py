"""Which trained weights of a study stay: those of its front and of its named designs.

The others are trained again where they are asked for, so that a long study does not fill a disk.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import optuna

from evaluators.cached_files import remove_cached
from studies.infra.storage import open_storage
from studies.results.pareto import pareto_front
from studies.results.study_outcome import SUBJECT, goals_of, rows_of
from studies.results.trial_record import TrialRecord
from studies.study.lookup import is_missing

MOST_BYTES = 4 * 2**30
"""Of the weights of a home, before a study removes those of its designs that others beat."""
WEIGHTS = "weights"


@dataclass(frozen=True)
class StudyWeights:
    """Content keys of trained designs, which name the files of their weights.

    stay: of the front, of named designs, and of designs that may come onto the front once they are
    timed. beaten: of all others, in the order of their trials.
    """

    stay: frozenset[str] = frozenset()
    beaten: Mapping[str, None] = field(default_factory=dict)


def weights_of(study: optuna.Study) -> StudyWeights:
    """The weights of a study's finished trials. Raises TrialRecordError."""
    keys = {}
    for trial in study.get_trials(deepcopy=False):
        for evaluation in TrialRecord.of(trial).result.evaluations:
            if evaluation.kind == "quality":
                keys[trial.number] = evaluation.key
    rows = rows_of(study)
    front = pareto_front(rows, goals_of(study.user_attrs[SUBJECT]).objectives)
    untimed = [row for row in rows if row.state == "stopped" and row.timed_as is None]
    kept = (*front, *untimed, *(row for row in rows if row.name))
    stay = frozenset(keys[row.number] for row in kept if row.number in keys)
    return StudyWeights(stay, {key: None for key in keys.values() if key not in stay})


def weights_file(home: Path, key: str) -> Path:
    """Where the weights of a trained design are."""
    return home / WEIGHTS / f"{key}.safetensors"


def weights_in(url: str) -> Mapping[str, StudyWeights]:
    """The weights of every study of a storage; none where there is no such file yet.

    Raises StorageError.
    """
    if is_missing(url):
        return {}
    opened = open_storage(url)
    found = {}
    for name in optuna.study.get_all_study_names(opened):
        study = optuna.load_study(study_name=name, storage=opened)
        if SUBJECT in study.user_attrs:
            found[name] = weights_of(study)
    return found


def bound_weights(url: str, name: str, home: Path, most_bytes: int = MOST_BYTES) -> int:
    """Remove weights of a study's beaten designs, oldest first, while all take more than a bound.

    What another study of the storage needs stays. Returns how many were removed; none are as long
    as there is room.
    """
    sizes = _sizes(home / WEIGHTS)
    total = sum(sizes.values())
    if total <= most_bytes:
        return 0
    studies = weights_in(url)
    needed = {key for weights in studies.values() for key in weights.stay}
    removed = 0
    for key in studies[name].beaten if name in studies else ():
        file = weights_file(home, key)
        if total > most_bytes and file.name in sizes and key not in needed:
            with suppress(OSError):  # they only take room: no run ends for that
                remove_cached(file)
                total -= sizes[file.name]
                removed += 1
    return removed


def _sizes(folder: Path) -> dict[str, int]:
    sizes = {}
    for file in folder.glob("*.safetensors"):
        try:
            sizes[file.name] = file.stat().st_size
        except FileNotFoundError:
            continue  # removed by another worker
    return sizes
