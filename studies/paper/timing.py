"""The published designs, timed one at a time at one or several text lengths."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from evaluators.evaluation import Evaluation
from evaluators.latency.evaluator import LatencyEvaluator
from evaluators.store import EvaluationStore, known_or_new
from search_space.design.genotype import MAX_TEXT_TOKENS, MIN_TEXT_TOKENS
from search_space.space.paper import SeededDesign
from search_space.space.space import SearchSpace
from studies.config.usage import UsageError, check_range

TOKENS = (512, 64)
"""The paper's text length, and one that its sentences fit into."""

Timed = dict[tuple[str, int], Evaluation]
"""Latency by design and text length."""
Step = Callable[[str, int, int], None]


def fused(designs: Iterable[SeededDesign]) -> list[SeededDesign]:
    """Those that read both text and picture."""
    return [s for s in designs if s.genotype.text_encoder and s.genotype.vision_encoder]


def lengths(
    given: tuple[int, ...],
    designs: Sequence[SeededDesign],
    space: SearchSpace,
    usual: tuple[int, ...] = TOKENS,
) -> tuple[int, ...]:
    """The text lengths to time at, which every design's text encoder takes.

    No length stands for the usual ones, as far as the encoders go. Raises UsageError.
    """
    for length in given:
        check_range("--tokens", length, MIN_TEXT_TOKENS, MAX_TEXT_TOKENS)
    longest = {name: space.shapes[name].max_tokens for name in space.text_encoders}
    used = {seeded.genotype.text_encoder for seeded in designs}
    if not any(used):
        raise UsageError(
            f"search space {space.name} holds no pair of encoders that the published designs fuse: "
            "it takes one of text and one of vision"
        )
    most, name = min((longest[name], name) for name in used if name)
    for length in given:
        if length > most:
            raise UsageError(f"--tokens {length}: {name} takes {MIN_TEXT_TOKENS} to {most}")
    return tuple(dict.fromkeys(given or (min(length, most) for length in usual)))


def time_designs(
    store: EvaluationStore,
    latency: LatencyEvaluator,
    designs: Sequence[SeededDesign],
    tokens: Sequence[int],
    step: Step,
) -> Timed:
    """Each design at each length. What is known is not timed again, and all is kept."""
    timed: Timed = {}
    for length in tokens:
        for k, seeded in enumerate(designs):
            step(f"timing at {length} tokens", k, len(designs))
            genotype = replace(seeded.genotype, text_tokens=length)
            timed[seeded.name, length], _ = known_or_new(store, latency, genotype)
    return timed


def ratio_to_late(
    seeded: SeededDesign, designs: Sequence[SeededDesign], length: int, timed: Timed
) -> float | None:
    """This design's latency over that of late fusion with the same vision encoder."""
    late = late_of(seeded, designs)
    if late is None:
        return None
    return ratio(_ms(timed[seeded.name, length]), _ms(timed[late.name, length]))


def published_ratio(seeded: SeededDesign, designs: Sequence[SeededDesign]) -> float | None:
    """The same of the published latencies."""
    late = late_of(seeded, designs)
    return ratio(seeded.design.latency_ms, late.design.latency_ms if late else None)


def ratio(own_ms: float | None, late_ms: float | None) -> float | None:
    """One latency over that of late fusion; None where either is missing."""
    return None if own_ms is None or late_ms is None else own_ms / late_ms


def _ms(evaluation: Evaluation) -> float | None:
    return None if evaluation.infeasible else evaluation["latency_ms"].value


def late_of(seeded: SeededDesign, designs: Sequence[SeededDesign]) -> SeededDesign | None:
    """Late fusion with the same vision encoder."""
    same = seeded.genotype.vision_encoder
    return next(
        (d for d in designs if d.design.stage == "late" and d.genotype.vision_encoder == same), None
    )


def rankings(
    designs: Sequence[SeededDesign], tokens: Sequence[int], timed: Timed
) -> dict[tuple[str, int], tuple[str, ...]]:
    """Stages fastest first, by vision encoder and text length; only where all could be timed."""
    found: dict[tuple[str, int], tuple[str, ...]] = {}
    for vision in dict.fromkeys(s.genotype.vision_encoder for s in designs):
        of_vision = [s for s in designs if s.genotype.vision_encoder == vision]
        for length in tokens:
            if not any(timed[s.name, length].infeasible for s in of_vision):
                ms = [
                    (timed[s.name, length]["latency_ms"].value, s.design.stage) for s in of_vision
                ]
                found[str(vision), length] = tuple(stage for _, stage in sorted(ms))
    return found
