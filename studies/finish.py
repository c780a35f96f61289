"""What happens when the search is over: references, the one look at test, export, the page."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact

from evaluators.evaluation import Evaluation
from evaluators.store import known_or_new
from search_space.genotype import Genotype
from search_space.paper import SeededDesign
from studies.lab import Lab, genotype_of
from studies.outcome import Row
from studies.records import (
    RECORD,
    REFERENCES,
    TESTS,
    figures_of,
    outcome_of,
    record_of,
    reference_row,
    row_json,
)

ARTIFACTS = "optuna-artifacts"


class _Test:
    """The quality evaluator's look at the test split, as an evaluator of its own."""

    def __init__(self, lab: Lab) -> None:
        self._quality = lab.quality

    def key(self, genotype: Genotype) -> str:
        return self._quality.test_key(genotype)

    def evaluate(self, genotype: Genotype) -> Evaluation:
        return self._quality.test(genotype)


def test_figures(lab: Lab, genotype: Genotype) -> dict[str, Any]:
    """Accuracy on the test split of a design that was trained on train and chosen on valid."""
    evaluation, _ = known_or_new(lab.store, _Test(lab), genotype)
    return {m.name: [m.value, m.low, m.high] for m in evaluation.measures}


def reference_rows(lab: Lab, designs: Sequence[SeededDesign]) -> list[Row]:
    """Unimodal designs, timed, trained and tested like all others."""
    rows = []
    for seeded in designs:
        latency, _ = known_or_new(lab.store, lab.latency, seeded.genotype)
        if latency.infeasible:
            continue
        quality, _ = known_or_new(lab.store, lab.quality, seeded.genotype)
        record = record_of(
            latency,
            quality,
            seeded.genotype.as_json(),
            reason=latency.unstable,
            published_accuracy=seeded.design.accuracy_percent,
            published_latency_ms=seeded.design.latency_ms,
        )
        row = reference_row(seeded.name, seeded.genotype.describe(), seeded.carried_over, record)
        tests = figures_of(record, test_figures(lab, seeded.genotype))
        looked = ("test_accuracy", "test_accuracy_nonzero")
        rows.append(replace(row, **{name: tests[name] for name in looked}))
    return rows


def finish(lab: Lab, study: optuna.Study, references: Sequence[SeededDesign]) -> None:
    """Looks at test for the front and every named design, and keeps what a report needs."""
    rows = reference_rows(lab, references)
    if rows:
        study.set_user_attr(REFERENCES, [row_json(row) for row in rows])
    outcome = outcome_of(study)
    shown = [*outcome.front, *(standing.row for standing in outcome.standings)]
    tests = dict(study.user_attrs.get(TESTS, {}))
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    for row in shown:
        assert row.number is not None
        if str(row.number) not in tests:
            genotype = genotype_of(trials[row.number].user_attrs[RECORD])
            tests[str(row.number)] = test_figures(lab, genotype)
    if tests != study.user_attrs.get(TESTS):
        study.set_user_attr(TESTS, tests)
    attach(lab, study, shown)


def attach(lab: Lab, study: optuna.Study, rows: Sequence[Row]) -> None:
    """Gives the shown trials a note and the study their trained ONNX as artifacts, each once.

    Optuna takes no artifact for a trial that has ended, so the study holds them, named by trial.
    """
    from optuna_dashboard import save_note

    folder = lab.home / ARTIFACTS
    folder.mkdir(parents=True, exist_ok=True)
    store = FileSystemArtifactStore(str(folder))
    done = dict(study.user_attrs.get("artifacts", {}))
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    for row in rows:
        if row.number is None or str(row.number) in done:
            continue
        trial = trials[row.number]
        genotype = genotype_of(trial.user_attrs[RECORD])
        artifact = lab.quality.artifact(genotype)
        file = artifact.path.with_name(f"{row.label.replace(' ', '-').replace('/', '-')}.onnx")
        artifact.path.replace(file)
        done[str(row.number)] = upload_artifact(
            study_or_trial=study,
            file_path=str(file),
            artifact_store=store,
            storage=study._storage,
            mimetype="application/onnx",
        )
        file.unlink()
        save_note(optuna.Trial(study, trial._trial_id), note_of(row))
        study.set_user_attr("artifacts", done)


def note_of(row: Row) -> str:
    """A few lines of Markdown about a trial, for the dashboard."""
    lines = [f"## {row.label}", "", row.design]
    if row.carried_over:
        lines += ["", row.carried_over]
    if row.accuracy and row.latency:
        lines += ["", f"{row.accuracy.value:.1f} % on validation, {row.latency.value:.3g} ms"]
    return "\n".join(lines)
