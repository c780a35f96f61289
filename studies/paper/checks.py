"""Timings and look-ups that the caveats below the paper's table need."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from evaluators.latency.evaluator import LatencyEvaluator
from evaluators.onnx.builder import OnnxBuilder
from evaluators.statistics.paired import correct_of, paired
from evaluators.store import EvaluationStore, known_or_new
from evaluators.training.config import ProtocolName
from search_space.design.genotype import MIN_TEXT_TOKENS
from search_space.network.rewrites import Rewrites
from search_space.space.paper import SeededDesign
from search_space.space.space import SearchSpace
from studies.config.home import home
from studies.config.options import built_for
from studies.config.settings import Settings
from studies.paper.accuracy import Line, parted
from studies.paper.caveats import (
    At,
    Caveat,
    attention_over_one_key,
    confounded_training,
    idle_parameters,
    padded_to,
)
from studies.paper.timing import Timed, time_designs
from studies.report.progress import Reporter
from studies.study.context import StudyContext, latency_on, open_devices
from studies.study.final.final_test import testers
from studies.study.training_protocol import chosen_protocol

FOLDED = Rewrites(fold_attention=True)


@contextmanager
def timing_of(
    settings: Settings, space: SearchSpace, classes: int, rewrites: Rewrites, reporter: Reporter
) -> Iterator[LatencyEvaluator]:
    """The device, for graphs of random weights at the lengths that the designs say."""
    where, encoders = home(make=True), {spec.name: spec for spec in space.encoders}
    runtime = built_for(settings.device.runtime)
    builder = OnnxBuilder(encoders, space.shapes, classes, where / "artifacts", runtime, rewrites)
    opened = open_devices(settings, where, reporter.step)
    latency = latency_on(opened, settings, builder)
    try:
        yield latency
        latency.settle()
    finally:
        latency.close()
        opened.close()


def folding(
    settings: Settings,
    space: SearchSpace,
    classes: int,
    early: SeededDesign,
    plain: At | None,
    store: EvaluationStore,
    reporter: Reporter,
) -> list[Caveat]:
    """What attention over one key is; the design is timed once more with its blocks folded."""
    if plain is None or not idle_parameters(early.genotype, space.shapes):
        return []
    reporter.step("timing with attention folded", 0, 1)
    genotype = replace(early.genotype, text_tokens=plain.tokens)
    with timing_of(settings, space, classes, FOLDED, reporter) as latency:
        evaluation, _ = known_or_new(store, latency, genotype)
    folded = None if evaluation.infeasible else At(early.name, plain.tokens, evaluation)
    return [attention_over_one_key(genotype, space.shapes, plain, folded)]


def with_padding_cut(
    context: StudyContext, designs: Sequence[SeededDesign], reporter: Reporter
) -> tuple[list[Caveat], At | None]:
    """Late and early at the longest text of the data; and the latter, for the next caveat."""
    pair = [design for stage in ("late", "early") if (design := of_stage(designs, stage))]
    found: list[tuple[At, At]] = []
    longest = 0
    for seeded in pair:
        spec = context.space.encoder(str(seeded.genotype.text_encoder))
        longest = max(context.quality.trainer.preprocessing.text_lengths(spec))
        tokens = (seeded.genotype.text_tokens, max(MIN_TEXT_TOKENS, longest))
        timed = time_designs(context.store, context.latency, [seeded], tokens, reporter.step)
        long, short = (at_length(seeded, length, timed) for length in tokens)
        if long is not None and short is not None:
            found.append((long, short))
    cut = next((short for _, short in found if parted(short.design)[0] == "early"), None)
    gains = bool(found) and found[0][1].tokens < found[0][0].tokens
    return ([padded_to(longest, found)] if gains else []), cut


def confounding(
    context: StudyContext, late: Line, early: Line, designs: Sequence[SeededDesign]
) -> list[Caveat]:
    """Late against early here, and under the other protocol where that has been run too."""
    if late.correct is None or early.correct is None:
        return []
    name: ProtocolName = "fair" if context.settings.training.protocol == "paper" else "paper"
    asked = context.settings.with_options({"protocol": name, "trunks": "auto"})
    compute = "cuda" if torch.cuda.is_available() else "cpu"
    preprocessing = context.quality.trainer.preprocessing
    protocol = chosen_protocol(asked, preprocessing, context.space, compute)
    genotypes = {design.name: design.genotype for design in designs}
    by_seed = testers(context.quality.other(protocol=protocol), context.settings.training.seeds)
    known = [
        [context.store.get(one.test_key(genotypes[line.row.name])) for one in by_seed]
        for line in (late, early)
    ]
    other = None
    if all(evaluation is not None for evaluations in known for evaluation in evaluations):
        a, b = (np.concatenate([correct_of(e) for e in of_one if e]) for of_one in known)
        other = paired(a, b)
    here = paired(late.correct, early.correct)
    return [
        confounded_training(
            context.settings.training.protocol, late.row.label, early.row.label, here, other
        )
    ]


def of_stage(designs: Sequence[SeededDesign], stage: str) -> SeededDesign | None:
    """The first design that fuses at this stage."""
    return next((seeded for seeded in designs if seeded.design.stage == stage), None)


def at_length(seeded: SeededDesign, tokens: int, timed: Timed) -> At | None:
    """What timing came to; None where the design cannot run there."""
    evaluation = timed[seeded.name, tokens]
    return None if evaluation.infeasible else At(seeded.name, tokens, evaluation)
