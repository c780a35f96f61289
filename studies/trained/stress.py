"""What `fusion-nas stress` does: a trial's trained network on corrupted pictures and texts."""

import json
from typing import Any

import optuna
from rich.table import Table

from evaluators.evaluation import Evaluation
from evaluators.features.corruptions import CORRUPTIONS
from evaluators.quality.stress import SEVERITIES, StressEvaluator, reads
from evaluators.statistics.paired import Paired, correct_of, paired
from evaluators.store import known_or_new
from studies.config.usage import UsageError
from studies.report import terminal
from studies.report.json_output import paired_as_json
from studies.results import text as result_text
from studies.results.fine_tuned import ATTRIBUTE
from studies.results.trial_record import genotype_of
from studies.trained.trial import context_of, trained_trial

USUAL = (1, 3, 5)
Drops = dict[tuple[str, int], tuple[float, Paired]]
"""By corruption and severity: percent right, and how much more than on inputs as they are."""


def stress_trial(
    study: optuna.Study,
    number: int,
    corruptions: tuple[str, ...],
    severities: tuple[int, ...],
    fine_tuned: bool,
    as_json: bool,
) -> None:
    """Shows the accuracy on validation under each corruption and severity, and what it costs.

    Everything is kept as it comes, so the same command goes on. Raises UsageError for what there
    is not, and what `context_of` raises.
    """
    for asked in corruptions:
        if asked not in CORRUPTIONS:
            raise UsageError(f"--corruption {asked!r}: choose one of {', '.join(CORRUPTIONS)}")
    for severity in severities:
        if severity not in SEVERITIES:
            raise UsageError(f"--severity {severity}: give {SEVERITIES[0]} to {SEVERITIES[-1]}")
    genotype = genotype_of(trained_trial(study, number))
    if fine_tuned and "accuracy" not in study.user_attrs.get(f"{ATTRIBUTE}{number}", {}):
        raise UsageError(f"trial {number} was not fine-tuned: leave --fine-tuned out")
    listed = [each for each in corruptions or CORRUPTIONS if reads(genotype, each)]
    if not listed:
        raise UsageError(f"trial {number} reads nothing of what {', '.join(corruptions)} spoils")
    levels = sorted(set(severities or USUAL))
    console = terminal.open_console(stderr=as_json)
    with terminal.progress(console) as reporter, context_of(study, reporter) as context:
        quality = context.quality.other(whole=True) if fine_tuned else context.quality
        quality.prepare()

        def judged(corruption: str, severity: int) -> Evaluation:
            evaluator = StressEvaluator(quality.trainer, corruption, severity)
            return known_or_new(context.store, evaluator, genotype)[0]

        clean = judged(listed[0], 0)
        found: Drops = {}
        for k, corruption in enumerate(listed):
            for severity in levels:
                reporter.step(f"{corruption} {severity}", k, len(listed))
                corrupted = judged(corruption, severity)
                drop = paired(correct_of(corrupted), correct_of(clean))
                found[corruption, severity] = corrupted["accuracy"].value, drop
    design = genotype.describe()
    if as_json:
        print(json.dumps(_as_json(number, design, clean["accuracy"].value, found)))
        return
    _show(number, design, clean["accuracy"].value, found, levels)


def _as_json(number: int, design: str, clean: float, found: Drops) -> dict[str, Any]:
    return {
        "trial": number,
        "design": design,
        "split": "valid",
        "clean_percent": clean,
        "corrupted": [
            {"corruption": name, "severity": severity, "percent": percent}
            | {"points": paired_as_json(drop), "means": CORRUPTIONS[name].means}  # type: ignore[index]
            for (name, severity), (percent, drop) in found.items()
        ],
    }


def _show(number: int, design: str, clean: float, found: Drops, levels: list[int]) -> None:
    console = terminal.open_console()
    console.print(f"trial {number}: {design}", highlight=False)
    console.print(f"{clean:.1f} % of validation on inputs as they are, in fp32", highlight=False)
    heads = [f"severity {level}, %" for level in levels]
    table = Table("corruption", *heads, title="Accuracy, and points lost", title_justify="left")
    for name in dict.fromkeys(corruption for corruption, _ in found):
        cells = []
        for level in levels:
            percent, drop = found[name, level]
            mark = "" if drop.significant else " ?"
            cells.append(f"{percent:.1f} ({drop.points:+.1f}{mark})")
        table.add_row(name, *cells)
    console.print(table)
    if any(not drop.significant for _, drop in found.values()):
        console.print("?: not significant, the paired 95 % CI includes 0")
    worst = min(found.items(), key=lambda item: item[1][1].points)
    (name, level), (_, drop) = worst
    console.print(
        f"most is lost by {name} {level}: {result_text.difference(drop)}", highlight=False
    )
