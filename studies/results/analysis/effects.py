"""What a choice brings and costs on average, over the complete designs of a study."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from search_space.design.adapting import ADAPTED
from search_space.design.genotype import MAX_FUSION_POINTS
from search_space.operators.definitions import FUSION_OPERATORS
from search_space.space.space import NO_ENCODER
from studies.results.outcome import DesignResult, Value
from studies.results.pareto import complete

LEAST_DESIGNS = 2
"""Designs with a choice and without it that a difference needs."""
MOST_CHOICES = 6
"""A decision on more numbers than that is split at its median."""

Choice = str | int
_OF_IMAGE_TOKENS = {
    name for name, each in FUSION_OPERATORS.items() if "vision" in each.signature.tokens
}


@dataclass(frozen=True)
class Effect:
    """Designs with a choice beside all others that make the same decision.

    points: difference of their mean accuracies in percent points. ratio: of their geometric mean
    latencies. Both with 95 % bounds (Welch). designs: how many have the choice.
    """

    decision: str
    choice: str
    designs: int
    points: Value
    ratio: Value


def active(params: Mapping[str, Choice]) -> dict[str, Choice]:
    """The decisions that a design has a use for: all are made every time."""
    points = int(params.get("fusion_points", MAX_FUSION_POINTS))
    unused = {
        f"{part}_{k}"
        for part in ("text_tap", "vision_tap", "audio_tap", "operator", "width")
        for k in range(points + 1, MAX_FUSION_POINTS + 1)
    }
    if params.get("attention_blocks") == 0:
        unused.add("attention_over")
    if not _fuses_image_tokens(params, points):
        unused.add("image_tokens")
    if not _runs_a_second_layer(params, points):
        unused.add("lora_rank")
    return {name: choice for name, choice in params.items() if name not in unused}


def _runs_a_second_layer(params: Mapping[str, Choice], points: int) -> bool:
    """Whether a text or vision trunk has a layer that may carry adapters: not the first."""
    last = [params.get(f"{part}_tap_{k}") for part in ADAPTED for k in range(1, points + 1)]
    return any(tap not in (None, 1) for tap in last)


def _fuses_image_tokens(params: Mapping[str, Choice], points: int) -> bool:
    """Whether the operator at a fusion point, or attention, takes a picture as tokens."""
    operators = {params.get(f"operator_{k}") for k in range(1, points + 1)}
    attends = params.get("attention_over") == "tokens" and params.get("attention_blocks") != 0
    fused = params.get("vision_encoder") != NO_ENCODER
    return fused and (attends or not operators.isdisjoint(_OF_IMAGE_TOKENS))


def effects(rows: Sequence[DesignResult]) -> list[Effect]:
    """The effect of every choice that enough designs have and enough have not."""
    known = [
        (active(row.params), row.accuracy.value, math.log(row.latency.value))
        for row in complete(rows)
        if row.accuracy and row.latency and row.latency.value > 0
    ]
    names = list(dict.fromkeys(name for params, _, _ in known for name in params))
    found = []
    for name in names:
        groups = defaultdict[str, list[tuple[float, float]]](list)
        made = [(params[name], points, log) for params, points, log in known if name in params]
        word = _wording([choice for choice, *_ in made])
        for choice, accuracy, latency in made:
            groups[word(choice)].append((accuracy, latency))
        # Of two choices one is enough: the other's effect is the opposite.
        for choice in groups if len(groups) > 2 else sorted(groups)[1:]:
            group = groups[choice]
            others = [pair for other, pairs in groups.items() if other != choice for pair in pairs]
            if min(len(group), len(others)) < LEAST_DESIGNS:
                continue
            points = _welch([a for a, _ in group], [a for a, _ in others])
            logs = _welch([t for _, t in group], [t for _, t in others])
            ratio = Value(*(math.exp(v) for v in (logs.value, logs.low or 0, logs.high or 0)))
            said = choice if len(groups) > 2 else f"{choice} (else {min(groups)})"
            found.append(Effect(name, said, len(group), points, ratio))
    return found


def _wording(choices: Sequence[Choice]) -> Callable[[Choice], str]:
    """How choices are grouped and named: each for itself, or two halves of many numbers."""
    numbers = sorted({choice for choice in choices if isinstance(choice, int)})
    if len(numbers) <= MOST_CHOICES or len(numbers) < len(set(choices)):
        return str
    ordered = sorted(int(choice) for choice in choices)
    middle = max(numbers[0] + 1, ordered[len(ordered) // 2])
    return lambda choice: f"{middle} or more" if int(choice) >= middle else f"below {middle}"


def _welch(one: Sequence[float], other: Sequence[float]) -> Value:
    """Difference of two means with its 95 % interval by Welch's test."""
    from scipy.special import stdtrit

    means = [sum(values) / len(values) for values in (one, other)]
    spreads = [
        sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values)
        for values, mean in zip((one, other), means, strict=True)
    ]
    difference, variance = means[0] - means[1], sum(spreads)
    if variance == 0:
        return Value(difference, difference, difference)
    shares = zip(spreads, (one, other), strict=True)
    freedom = variance**2 / sum(s**2 / (len(values) - 1) for s, values in shares)
    half = float(stdtrit(freedom, 0.975)) * math.sqrt(variance)
    return Value(difference, difference - half, difference + half)
