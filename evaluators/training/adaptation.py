"""What trains the adapters of one design: its network, kept features, and what is learnt."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evaluators.features.design_inputs import DesignInputs
from evaluators.features.examples import CachedFeatures
from evaluators.features.fusion_inputs import FusionInputs, batches_of
from evaluators.training.execution import place
from search_space.design.encoder import EncoderError
from search_space.design.genotype import Genotype
from search_space.design.rules import Shapes
from search_space.encoders.configs import first_line
from search_space.encoders.features import Feature
from search_space.network.adapted import AdaptedNetwork, Adapters
from search_space.network.network import Fusion, FusionNetwork

CHECKED_SAMPLES = 8
GOES_ON = 1e-2
"""Greatest distance, relative to their size, of features that a trunk gives when it is run from a
kept tap on, from those that it gives as a whole. Kept tokens are rounded to half precision."""


def learnt_of(fusion: nn.Module, adapters: Adapters) -> nn.ModuleDict:
    """What is kept of a training: adapters and fusion, without the weights that stay frozen."""
    return nn.ModuleDict({"fusion": fusion, "adapters": adapters.weights})


@dataclass(frozen=True)
class Adaptation:
    """A fusion over adapted layers, and the splits as features of the frozen layers before them."""

    network: AdaptedNetwork
    learnt: nn.ModuleDict
    train: CachedFeatures
    valid: CachedFeatures


def adaptation_of(
    genotype: Genotype,
    shapes: Shapes,
    fusion: Fusion,
    whole: FusionNetwork,
    adapters: Adapters,
    inputs: DesignInputs,
    device: str,
) -> Adaptation:
    """Make the network that is trained, which takes over fusion, adapters and the whole's trunks.

    Raises:
        EncoderError: A trunk that is run from its last frozen tap on gives other features.
        OSError: Features cannot be kept.
    """
    network = AdaptedNetwork(genotype, shapes, fusion, dict(whole.trunks.items()))
    train, valid = (inputs.kept(genotype, s, network.wanted) for s in ("train", "valid"))
    place(network, device)
    few = torch.arange(min(CHECKED_SAMPLES, len(valid.labels)))
    (given,) = batches_of(None, valid, few)
    (expected,) = batches_of(None, inputs.kept(genotype, "valid"), few)
    named = ", ".join(genotype.encoders[m] for m in genotype.encoders if m in network.trunks)
    way_out = "so it takes no adapters: leave lora_rank out, or give another encoder"
    try:
        distances = _distances(network.eval(), given, expected, device)
    except Exception as error:  # layers of other libraries may raise anything
        raise EncoderError(
            f"encoder {named}: its layers cannot be run from a kept tap on ({first_line(error)}), "
            f"{way_out}"
        ) from error
    for feature, distance in distances.items():
        if not distance <= GOES_ON:
            name = genotype.encoders[feature.modality]
            raise EncoderError(
                f"{feature.modality} encoder {name}: run from a kept tap on, its layers give other "
                f"features ({feature.name} is {distance:.2g} off), {way_out}"
            )
    return Adaptation(network, learnt_of(fusion, adapters), train, valid)


def _distances(
    network: AdaptedNetwork, given: FusionInputs, expected: FusionInputs, device: str
) -> Mapping[Feature, float]:
    """How far each feature is from what it has to be, relative to its size; padding left out."""
    mask = given.mask
    with torch.inference_mode():
        made = network.read(
            {feature: tensor.to(device) for feature, tensor in given.features.items()},
            None if mask is None else mask.to(device),
        )
    found = {}
    for feature, right in expected.features.items():
        own = made[feature].cpu()
        if feature.over_text and mask is not None:
            own, right = own[mask.bool()], right[mask.bool()]
        found[feature] = float((own - right).norm() / right.norm().clamp(min=1e-12))
    return found


def logits_apart(found: Tensor, expected: Tensor) -> float:
    """The greatest difference of logits (N, classes), relative to the larger of 1 and the largest.

    NaN where one of them is.
    """
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1.0))
