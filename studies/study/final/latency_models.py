"""What a study's end says of its latency models: what they began from, and their error."""

from typing import Any

import optuna

from evaluators.latency.transfer import LEAST_FOR_ERROR
from studies.results.study_outcome import CONDITIONS
from studies.results.text import counted
from studies.search.latency_prediction import LearnedLatency, Readings, readings_of
from studies.study.carrying_over import EarlierStudy, encoders_of
from studies.study.context import StudyContext

LATENCY_MODELS = "latency models"
"""Of the study: by board, what its model began from and its leave-one-out error."""


def note_latency_models(
    context: StudyContext, study: optuna.Study, earlier: EarlierStudy | None
) -> None:
    """Store what is known of each board's latency model that began from other devices.

    The model of a board begins from those of the boards before it and from the `earlier` study.
    Nothing is stored where there is neither, or where a board has too few readings.
    """
    boards = context.settings.device.boards
    others: dict[str, Readings] = {}
    known = dict(earlier.readings(encoders_of(context))) if earlier else {}
    named = {boards.first[0]: None} | {each.name: each.name for each in boards.unlike}
    found: dict[str, dict[str, Any]] = {}
    for name, board in named.items():
        others[name] = dict(known)
        known[name] = tuple(readings_of(study, board))
    for name, board in named.items():
        if not others[name] or len(known[name]) < LEAST_FOR_ERROR:
            continue
        rewriting = context.builder.rewriting
        model = LearnedLatency(study, context.space, rewriting, others[name], board)
        error = model.error()
        if error is None:
            continue
        found[name] = {
            "began_from": model.known.source,
            "likeness": model.known.likeness,
            "readings": error.readings,
            "leave_one_out_error": error.error,
            "leave_one_out_spearman": error.spearman,
        }
    if not found:
        return
    study.set_user_attr(LATENCY_MODELS, found)
    conditions = {f"latency model of {name}": in_words(each) for name, each in found.items()}
    study.set_user_attr(CONDITIONS, {**study.user_attrs[CONDITIONS], **conditions})


def in_words(found: dict[str, Any]) -> str:
    """What a latency model began from and how well it predicts readings that it was not given."""
    source, spearman = found["began_from"], found["leave_one_out_spearman"]
    began = f"began from the readings of {source}" if source else "began from no other device"
    rank = "" if spearman is None else f", Spearman {spearman:.2f}"
    return (
        f"{counted(found['readings'], 'reading')}, {began}; each left out in turn, the mean error "
        f"is {100 * found['leave_one_out_error']:.1f} %{rank}"
    )
