"""What a design costs by its shape alone: parameters, multiply-accumulates, bytes of weights."""

from collections.abc import Callable, Mapping

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from evaluators.evaluation import Measure
from search_space.design.encoder import EncoderShape
from search_space.design.genotype import Genotype, Precision
from search_space.network.network import FusionNetwork

BYTES_PER_WEIGHT: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1, "int8-dynamic": 1}


def example_inputs(
    genotype: Genotype, shapes: Mapping[str, EncoderShape], batch: int = 1
) -> tuple[torch.Tensor, ...]:
    """Inputs of the right shapes: ids and mask (B, L), all real, zero pixels, a silent sound."""
    inputs: list[torch.Tensor] = []
    for modality, name in genotype.encoders.items():
        if modality == "text":
            size = (batch, genotype.text_tokens)
            inputs += [torch.ones(size, dtype=torch.int64) for _ in range(2)]
        else:
            inputs.append(torch.zeros(batch, *shapes[name].input_size))
    return tuple(inputs)


def static_costs(
    network: FusionNetwork, genotype: Genotype, shapes: Mapping[str, EncoderShape]
) -> tuple[Measure, ...]:
    """Parameters, MACs of one inference, and bytes of the weights in the design's precision.

    MACs count matrix products, convolutions and attention; bytes are those of all weights at the
    precision's width, while an INT8 file keeps what it does not quantise in fp32.
    """
    parameters = sum(p.numel() for p in network.parameters())
    macs = count_macs(lambda: network(*example_inputs(genotype, shapes)))
    return costs_reported(parameters, macs, genotype.precision)


def costs_reported(parameters: int, macs: int, precision: Precision) -> tuple[Measure, ...]:
    """The static costs of a network whose parameters and MACs are known."""
    return (
        Measure("parameters", parameters, "", "lower"),
        Measure("macs", macs, "", "lower"),
        Measure("weight_bytes", parameters * BYTES_PER_WEIGHT[precision], "B", "lower"),
    )


def count_macs(run: Callable[[], object]) -> int:
    """Multiply-accumulates of everything that `run` computes with torch."""
    counter = FlopCounterMode(display=False)
    # The counter does not see into fused attention kernels, so plain matrix products are run.
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            run()
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
    return int(counter.get_total_flops() // 2)
