"""Notes on trials of interest, as Optuna's dashboard shows them."""

import optuna

from studies.infra.optuna_private import trial_of
from studies.results import text as result_text
from studies.results.analysis.certainty import non_dominated
from studies.results.outcome import DesignResult, Outcome

MOST_NOTES = 3
"""Near misses of a kind that get a note."""


def note_of(row: DesignResult, why: str = "") -> str:
    """A few lines of Markdown about a trial; `why` says what makes it of interest."""
    figures = [
        f"{result_text.percent(row.accuracy)} % in selection" if row.accuracy else "",
        f"{result_text.milliseconds(row.latency)} ms" if row.latency else "",
        *(f"{name} {result_text.ms(ms)} ms" for name, ms in row.tail.items()),
    ]
    said = [row.design, why, row.reason, row.adapted, row.did_not_train]
    said.append(", ".join(filter(None, figures)))
    return "\n\n".join([f"## {row.label}", *filter(None, said)])


def note_near_misses(study: optuna.Study, outcome: Outcome) -> None:
    """Give a note to the trials closest to the front or to the latency limit, and to unstable ones.

    A note that a person wrote stays.
    """
    from optuna_dashboard import get_note, save_note

    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    for row, why in near_misses(outcome):
        if row.number is None:
            continue
        trial, text = trial_of(study, trials[row.number]), note_of(row, why)
        known = get_note(trial)
        if known != text and (not known or known.startswith(f"## {row.label}\n")):
            save_note(trial, text)


def near_misses(outcome: Outcome) -> list[tuple[DesignResult, str]]:
    """Trials off the front that are of interest, and why."""
    named = {row.number for row in (*outcome.front, *(s.row for s in outcome.standings))}
    certain = {} if outcome.goals.more else non_dominated(outcome.rows)
    off = [row for row in outcome.rows if row.number in certain and row.number not in named]
    off.sort(key=lambda row: -certain[row.number or 0])
    found = [
        (row, f"Off the front; probability not dominated {certain[row.number or 0]:.2f}.")
        for row in off[:MOST_NOTES]
    ]
    limit = outcome.latency_limit_ms
    if limit is not None:
        over = [r for r in outcome.rows if r.state == "infeasible" and r.latency]
        over.sort(key=lambda row: row.latency.value if row.latency else 0.0)
        found += [
            (row, f"Nearest to the latency limit of {limit:g} ms.") for row in over[:MOST_NOTES]
        ]
    unstable = [row for row in outcome.rows if row.state == "unstable"]
    return found + [(row, "Unstable: no latency to compare.") for row in unstable[:MOST_NOTES]]
