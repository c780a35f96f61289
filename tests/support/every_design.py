"""Designs of the demo space in which each operator, attention and pooling occurs."""

from dataclasses import replace

import torch
from quick_evaluators import demo, design
from torch import Tensor

from evaluators.costs import example_inputs
from search_space.design.genotype import (
    ATTENTION_OVER,
    TEXT_POOLINGS,
    VISION_POOLINGS,
    FusionPoint,
    Genotype,
)
from search_space.design.rules import canonical, violations
from search_space.network.network import FusionNetwork, build
from search_space.operators.definitions import OPERATORS
from search_space.operators.vectors import LowRankTensor

SPECS = {spec.name: spec for spec in demo().encoders}


def every_design() -> list[Genotype]:
    """Every operator with one of three kinds of attention, poolings spread so that each is met."""
    made = []
    for k, operator in enumerate(OPERATORS):
        for j, over in enumerate((None, *ATTENTION_OVER)):
            if (k + j) % 3:
                continue
            text_pooling = TEXT_POOLINGS[(k + j) % len(TEXT_POOLINGS)]
            made.append(
                design(
                    operator,
                    text_tap=6 if text_pooling == "pooler" else 2,
                    vision_tap=1 + (k + j) % 2,
                    text_pooling=text_pooling,
                    vision_pooling=VISION_POOLINGS[(2 * k + j) % len(VISION_POOLINGS)],
                    attention_blocks=0 if over is None else 2,
                    attention_over=over or "pooled",
                )
            )
    points = (FusionPoint(1, 1, "gated", 16), FusionPoint(2, 2, "cross-attention", 32))
    made += [
        design(vision_pooling="conv-max"),
        replace(design(), points=points, attention_blocks=1, attention_over="tokens"),
        Genotype("small-bert", None, 16, (FusionPoint(6, 0),), text_pooling="pooler"),
        Genotype(None, "small-xcit", 0, (FusionPoint(0, 6),), vision_pooling="conv-max"),
    ]
    unique = list(dict.fromkeys(canonical(genotype, demo().shapes) for genotype in made))
    assert not any(violations(genotype, demo().shapes) for genotype in unique)
    assert {g.text_pooling for g in unique} == set(TEXT_POOLINGS)
    assert {g.vision_pooling for g in unique} >= {*VISION_POOLINGS} - {"cls"}
    return unique


def enlarged(network: FusionNetwork) -> FusionNetwork:
    """The network with low-rank tensors that are not small, as their authors' first weights are."""
    for module in network.modules():
        if isinstance(module, LowRankTensor):
            for parameter in module.factors.parameters():
                parameter.data.mul_(4)
    return network


def network_of(genotype: Genotype, classes: int = 2) -> FusionNetwork:
    """A network whose logits differ between inputs by far more than arithmetic does."""
    return enlarged(build(genotype, SPECS, demo().shapes, classes, seed=3))


def inputs_ending_at(genotype: Genotype, real: int) -> tuple[Tensor, ...]:
    """Inputs of batch 1 of which the first `real` tokens are text, the rest padding."""
    made = []
    for part in example_inputs(genotype, demo().shapes):
        made.append(torch.randn(part.shape) if part.is_floating_point() else part.clone())
    if genotype.text_encoder:
        made[0] = torch.randint(0, 1024, made[0].shape)
        made[0][:, real:] = 0
        made[1][:, real:] = 0
    return tuple(made)


def costs_of(artifact_or_costs: tuple[object, ...]) -> dict[str, float]:
    return {measure.name: measure.value for measure in artifact_or_costs}  # type: ignore[attr-defined]
