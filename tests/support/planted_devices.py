"""Devices whose latencies are made from the design by a rule that is not the model's own."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tiny import SPACE, tiny_space

from evaluators.latency.features import LatencyFeatures
from evaluators.latency.model import LatencyModel, TimedDesign
from evaluators.latency.trunk_work import TrunkWork
from evaluators.onnx.rewriting import Rewriting
from search_space.design.genotype import Genotype, Precision
from search_space.network.rewrites import ALL
from search_space.space.space import SearchSpace

Device = Callable[[Genotype], float]
READ = 20


@cache
def space() -> SearchSpace:
    with TemporaryDirectory() as folder:
        text = SPACE.replace("text_tokens = [16]", "text_tokens = [16, 32, 64]")
        text = text.replace("max_position_embeddings = 16", "max_position_embeddings = 64")
        text = text.replace('["fp32"]', '["fp32", "int8-dynamic"]')
        return tiny_space(Path(folder), text)


@cache
def features() -> LatencyFeatures:
    return LatencyFeatures(TrunkWork(space().encoders, space().shapes), Rewriting(ALL))


@cache
def candidates(precision: Precision | None = None) -> tuple[Genotype, ...]:
    """Designs of the space, each once; all in one precision where one is given."""
    rng = random.Random(0)
    found: dict[str, Genotype] = {}
    while len(found) < 150:
        design = space().sample(rng)
        if precision is not None:
            design = replace(design, precision=precision)
        found[design.key] = design
    return tuple(found.values())


def planted(seed: int) -> Device:
    """A device by a rule over taps, tokens, points and blocks; its speeds are drawn."""
    rng = np.random.default_rng(seed)
    speed = np.exp(rng.normal(0, 1.5))
    a_layer, a_token, a_vision, a_point, a_block = np.exp(rng.normal(0, 0.5, 5))
    int8 = rng.uniform(0.4, 1.0)

    def ms(g: Genotype) -> float:
        linear = int8 if g.precision == "int8-dynamic" else 1.0
        text = g.deepest_tap("text") * (0.2 * a_layer + linear * a_token * g.text_tokens / 40)
        over = linear * (g.text_tokens / 32) if g.attention_over == "tokens" else 0.1
        fusion = 0.1 * a_point * len(g.points) + 0.2 * a_block * g.attention_blocks * over
        return float(speed * (0.3 + text + 0.5 * a_vision * g.deepest_tap("vision") + fusion))

    return ms


def read(
    device: Device, designs: Sequence[Genotype], seed: int = 0, noise: float = 0.02
) -> list[TimedDesign]:
    """Readings whose 95 % intervals are right."""
    rng = np.random.default_rng([seed, 1])
    return [TimedDesign(g, device(g) * np.exp(rng.normal(0, noise)), 1.96 * noise) for g in designs]


def error_of(model: LatencyModel, device: Device, designs: Sequence[Genotype]) -> float:
    """Mean absolute error as a share of the truth."""
    said, _ = model.predict(features().of(designs))
    return float(np.abs(said / [device(g) for g in designs] - 1).mean())
