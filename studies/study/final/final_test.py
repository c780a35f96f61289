"""What happens when the search is over: references, the one look at test, export, the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact

from evaluators.cached_files import is_whole, move_cached, verify_copy
from evaluators.data import most_frequent_share
from evaluators.evaluation import Evaluation, content_key
from evaluators.quality.class_scores import ClassScoresEvaluator
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.quality.exporter import NetworkExporter
from evaluators.quality.modality_use import ModalityUseEvaluator
from evaluators.statistics.accuracy import measures_of
from evaluators.statistics.paired import correct_of, correct_rows
from evaluators.store import known_or_new
from search_space.design.genotype import Genotype
from search_space.modality import Modality
from search_space.space.paper import SeededDesign, seeded_designs
from search_space.space.space import SearchSpace
from studies.infra.optuna_private import trial_of
from studies.results.fine_tuned import ATTRIBUTE, TEST
from studies.results.outcome import SEEDS, SETS, USE, DesignResult, Outcome
from studies.results.study_outcome import (
    CONDITIONS,
    PARTS,
    REFERENCES,
    RIGHT,
    SUBJECT,
    TESTS,
    outcome_of,
    reference_row,
    row_json,
)
from studies.results.trial_record import PublishedFigures, TrialResult, genotype_of
from studies.search.latency_prediction import LearnedLatency
from studies.study.context import Step, StudyContext
from studies.study.final.notes import note_near_misses, note_of
from studies.study.final.retiming import retime

ARTIFACTS = "optuna-artifacts"
LEAST_READINGS = 8
"""Readings below which the latency model says nothing of a design's parts."""
MOST_WITH_PARTS = 500
"""Designs whose parts a study stores; of more, the front's and the named ones'."""


class _Test:
    """A quality evaluator's look at the test split, as an evaluator of its own."""

    def __init__(self, quality: QualityEvaluator) -> None:
        self._quality = quality

    def key(self, genotype: Genotype) -> str:
        return self._quality.test_key(genotype)

    def evaluate(self, genotype: Genotype) -> Evaluation:
        return self._quality.test(genotype)


@dataclass(frozen=True)
class Reference:
    """A design outside the search that its front is compared with, with what was published of it.

    Accuracy in percent, latency in ms; None where nothing was. `adapted` as in `SeededDesign`.
    """

    name: str
    genotype: Genotype
    adapted: str = ""
    published_accuracy: float | None = None
    published_latency_ms: float | None = None

    @staticmethod
    def published(seeded: SeededDesign) -> "Reference":
        """A published design on the encoders of a space."""
        design = seeded.design
        figures = design.accuracy_percent, design.latency_ms
        return Reference(seeded.name, seeded.genotype, seeded.adapted, *figures)


def is_sought(space: SearchSpace, genotype: Genotype) -> bool:
    """Whether a design is one of the search's; those of one modality are compared with fused ones.

    Even where the space lets designs do without all others.
    """
    return space.holds(genotype) and (genotype.is_fused or len(space.modalities) == 1)


def testers(first: QualityEvaluator, seeds: int) -> list[QualityEvaluator]:
    """An evaluator for each seed that the final look is a mean over, the study's own first."""
    own = first.protocol
    more = (replace(own, seed=own.seed + k) for k in range(1, seeds))
    return [first, *(first.other(protocol=protocol) for protocol in more)]


def test_figures(
    context: StudyContext, by_seed: Sequence[QualityEvaluator], genotype: Genotype
) -> dict[str, Any]:
    """Accuracy on the whole test split of a design that was trained on train, stopped by valid.

    The mean over seeds with its 95 % interval (see `mean_over_seeds` for what that covers), the
    percentage of each seed, and which samples were right. Of a fused design also what
    it uses of each, as the first seed trained it, and of multi-label data its scores of sets of
    classes, of the same seed.
    """
    found = [known_or_new(context.store, _Test(one), genotype)[0] for one in by_seed]
    correct = np.concatenate([correct_of(evaluation) for evaluation in found])
    measures = measures_of(correct, context.data.split("test"))
    figures: dict[str, Any] = {
        **{m.name: [m.value, m.low, m.high] for m in measures},
        SEEDS: (100 * correct.mean(1)).tolist(),
        RIGHT: correct_rows(correct),
    }
    if genotype.is_fused:
        use, _ = known_or_new(context.store, ModalityUseEvaluator(by_seed[0].trainer), genotype)
        figures[USE] = {m.name: [m.value, m.low, m.high] for m in use.measures}
    if context.data.multi_label:
        scores, _ = known_or_new(
            context.store, ClassScoresEvaluator(by_seed[0].trainer, "test"), genotype
        )
        figures[SETS] = {m.name: [m.value, m.low, m.high] for m in scores.measures}
    return figures


def reference_rows(
    context: StudyContext, by_seed: Sequence[QualityEvaluator], designs: Sequence[Reference]
) -> tuple[list[DesignResult], dict[str, dict[str, list[str]]]]:
    """Unimodal designs, timed, trained and tested like all others, and where they were right.

    One that the device cannot run is trained all the same: what one modality reaches stands
    beside every front.
    """
    rows = []
    correct: dict[str, dict[str, list[str]]] = {"valid": {}, "test": {}}
    for reference in designs:
        latency, _ = known_or_new(context.store, context.latency, reference.genotype)
        quality, _ = known_or_new(context.store, context.selection, reference.genotype)
        result = TrialResult(
            reference.genotype,
            reason=latency.infeasible
            or latency.unstable
            or (quality.details["did_not_train"] if quality.details.get("constant") else ""),
            published=PublishedFigures(
                reference.published_accuracy, reference.published_latency_ms
            ),
        ).with_evaluations(latency, quality)
        tests = test_figures(context, by_seed, reference.genotype)
        design = reference.genotype.describe()
        rows.append(reference_row(reference.name, design, reference.adapted, result, tests))
        correct["valid"][reference.name] = correct_rows(correct_of(quality))
        correct["test"][reference.name] = tests[RIGHT]
    return rows, correct


def references_of(context: StudyContext) -> list[Reference]:
    """The published unimodal designs on the space's encoders, and each audio encoder alone."""
    found = [
        Reference.published(seeded)
        for seeded in seeded_designs(context.space)
        if not (seeded.genotype.is_fused or is_sought(context.space, seeded.genotype))
    ]
    sounds = context.space.audio_encoders
    for name in sounds:
        alone = context.quality.trainer.plan.unimodal(context.space.encoder(name))
        if not is_sought(context.space, alone):
            called = "audio-only" if len(sounds) == 1 else f"audio-only-{name}"
            found.append(Reference(called, alone))
    return found


def finish(
    context: StudyContext, study: optuna.Study, step: Step = lambda what, done, total: None
) -> None:
    """Time the front and named designs in turns, look at test for them, and attach networks."""
    step("references: timing, training and test", 0, 1)
    by_seed = testers(context.quality, context.settings.training.seeds)
    references = references_of(context)
    rows, correct = reference_rows(context, by_seed, references)
    if rows:
        study.set_user_attr(RIGHT, correct)
        study.set_user_attr(REFERENCES, [row_json(row) for row in rows])
    retime(context, study, {each.name: each.genotype for each in references})
    outcome = outcome_of(study)
    shown = [*outcome.front, *(standing.row for standing in outcome.standings)]
    tests = dict(study.user_attrs.get(TESTS, {}))
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    for k, row in enumerate(shown):
        assert row.number is not None
        step(f"test of {row.label}", k, len(shown))
        genotype = genotype_of(trials[row.number])
        if not _looked_at(tests.get(str(row.number), {}), genotype, len(by_seed)):
            tests[str(row.number)] = test_figures(context, by_seed, genotype)
    if context.settings.search.time_missing:
        step("timing without a modality", 0, 1)
        _time_missing(
            context,
            tests,
            {
                r.number: genotype_of(trials[r.number])
                for r in outcome.front
                if r.number is not None
            },
        )
    if tests != study.user_attrs.get(TESTS):
        study.set_user_attr(TESTS, tests)
    tuned = [each.row for each in outcome.fine_tuned if each.on_front]
    _look_at_fine_tuned(context, study, [one.other(whole=True) for one in by_seed], tuned)
    _tell_of_test(context, study)
    # All designs of a fixed list have names, and a network may take half a gigabyte: the front's
    # are kept, and `export` builds any other.
    kept = shown if context.grid is None else outcome.front
    attach(context, study, context.quality.exporter, kept, step=step)
    if tuned:
        whole = context.quality.other(whole=True).exporter
        attach(context, study, whole, tuned, " fine-tuned", step)
    note_near_misses(study, outcome)
    _store_parts(context, study, outcome)


def _store_parts(context: StudyContext, study: optuna.Study, outcome: Outcome) -> None:
    """Keep what the latency model says of the parts of timed designs, once it has readings."""
    timed = [row for row in outcome.rows if row.latency and row.genotype and row.genotype.is_fused]
    if len(timed) > MOST_WITH_PARTS:
        shown = {row.number for row in (*outcome.front, *(s.row for s in outcome.standings))}
        timed = [row for row in timed if row.number in shown]
    model = LearnedLatency(study, context.space, context.builder.rewriting)
    if model.readings < LEAST_READINGS or not timed:
        return
    parts = model.by_owner([row.genotype for row in timed if row.genotype])
    designs = {
        str(row.number): {owner: round(ms, 5) for owner, ms in each.items()}
        for row, each in zip(timed, parts, strict=True)
    }
    study.set_user_attr(PARTS, {"readings": model.readings, "designs": designs})


class _TimedWithout:
    """The latency of a trained design's graph that runs without one modality."""

    def __init__(self, context: StudyContext, absent: Modality) -> None:
        self._context, self._absent = context, absent

    def key(self, genotype: Genotype) -> str:
        whole = self._context.latency.key(genotype)
        return content_key("latency without", {"latency": whole, "absent": self._absent})

    def evaluate(self, genotype: Genotype) -> Evaluation:
        artifact = self._context.quality.exporter.artifact_without(genotype, self._absent)
        try:
            found = self._context.latency.time(genotype, artifact)
        finally:
            artifact.discard()
        return replace(found, key=self.key(genotype), kind="latency without")


def _time_missing(
    context: StudyContext, tests: dict[str, Any], designs: Mapping[int, Genotype]
) -> None:
    """Adds to the test figures of fused designs what they take without each modality.

    Left out is what the device cannot run, or not read well enough.
    """
    for number, genotype in designs.items():
        if not genotype.is_fused:
            continue
        use = dict(tests[str(number)][USE])
        for absent in genotype.encoders:
            found, _ = known_or_new(context.store, _TimedWithout(context, absent), genotype)
            if not (found.infeasible or found.unstable):
                taken = found["latency_ms"]
                use[f"latency_without_{absent}"] = [taken.value, taken.low, taken.high]
        tests[str(number)] = {**tests[str(number)], USE: use}


def _look_at_fine_tuned(
    context: StudyContext,
    study: optuna.Study,
    by_seed: Sequence[QualityEvaluator],
    rows: Sequence[DesignResult],
) -> None:
    """Looks at test for the front of the fine-tuned designs."""
    for row in rows:
        name = f"{ATTRIBUTE}{row.number}"
        kept = study.user_attrs[name]
        genotype = _genotype(study, row)
        if not _looked_at(kept.get(TEST, {}), genotype, len(by_seed)):
            found = test_figures(context, by_seed, genotype)
            study.set_user_attr(name, {**kept, TEST: found})


def _looked_at(figures: dict[str, Any], genotype: Genotype, seeds: int) -> bool:
    """Whether test figures are there, over so many seeds and with what the design uses."""
    return len(figures.get(SEEDS, [])) == seeds and (USE in figures or not genotype.is_fused)


def _genotype(study: optuna.Study, row: DesignResult) -> Genotype:
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    assert row.number is not None
    return genotype_of(trials[row.number])


def _tell_of_test(context: StudyContext, study: optuna.Study) -> None:
    """Keeps what the majority class reaches on test, and how many trainings a figure is of."""
    subject = study.user_attrs[SUBJECT]
    majority = [subject["majority"][0], 100 * most_frequent_share(context.data.split("test"))]
    if majority != subject["majority"]:
        study.set_user_attr(SUBJECT, {**subject, "majority": majority})
    first, count = context.settings.training.seed, context.settings.training.seeds
    said = f"one training, seed {first}"
    if count > 1:
        said = f"mean over {count} trainings, seeds {first} to {first + count - 1}"
    conditions = {**study.user_attrs[CONDITIONS], "test figures": said}
    if conditions != study.user_attrs[CONDITIONS]:
        study.set_user_attr(CONDITIONS, conditions)


def attach(
    context: StudyContext,
    study: optuna.Study,
    exporter: NetworkExporter,
    rows: Sequence[DesignResult],
    suffix: str = "",
    step: Step = lambda what, done, total: None,
) -> None:
    """Gives the shown trials a note and the study their trained ONNX as artifacts, each once.

    `suffix` tells the exporter's networks from those of another rung. Optuna takes no artifact for
    a trial that has ended, so the study holds them, named by trial. One that is not as it was
    written is exported again, under the same name.
    """
    from optuna_dashboard import save_note

    folder = context.home / ARTIFACTS
    folder.mkdir(parents=True, exist_ok=True)
    store = FileSystemArtifactStore(str(folder))
    done = dict(study.user_attrs.get("artifacts", {}))
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    for k, row in enumerate(rows):
        step(f"storing the network of {row.label}", k, len(rows))
        kept_as = f"{row.number}{suffix}"
        if row.number is None or (kept_as in done and is_whole(folder / done[kept_as])):
            continue
        trial = trials[row.number]
        artifact = exporter.artifact(genotype_of(trial))
        if kept_as in done:
            move_cached(artifact.path, folder / done[kept_as])
            continue
        label = f"{row.label}{suffix}".replace(" ", "-").replace("/", "-")
        # In a folder whose name tells that it is a temporary one.
        with TemporaryDirectory(prefix="building-", dir=artifact.path.parent) as temporary:
            file = artifact.path.replace(Path(temporary) / f"{label}.onnx")
            done[kept_as] = upload_artifact(
                study_or_trial=study,
                file_path=str(file),
                artifact_store=store,
                mimetype="application/onnx",
            )
        verify_copy(folder / done[kept_as], artifact.sha256)
        if not suffix:
            save_note(trial_of(study, trial), note_of(row))
        study.set_user_attr("artifacts", done)
