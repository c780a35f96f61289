"""What the short forms in a design's words mean."""

import re
from collections.abc import Iterable

from search_space.design.genotype import Genotype
from search_space.operators.operator import Operator
from search_space.operators.registry import operator_of, origins

_MERGING = re.compile(r"-merge\d+$")
OPERATOR_WORDS: dict[Operator, str] = {
    "concatenation": "features side by side",
    "sum": "features added",
    "product": "features multiplied, once in order and once with the second reversed",
    "gated": "a learned mixture: g times one, 1 - g times the other",
    "tensor": "outer product of all features",
    "low-rank-tensor": "outer product under weights of rank 4",
    "bilinear": "sums of 5 products of linear maps (MFB)",
    "cross-attention": "text tokens attend to the picture's",
    "cross-attention-vision": "the picture's tokens attend to the text's",
    "cross-attention-both": "both cross-attentions side by side",
    "single-sequence": "all tokens in one sequence through one encoder layer",
    "prefix": "4 tokens made of the picture stand before the text's",
    "bottleneck": "two encoder layers a modality, which exchange 4 tokens",
    "multiplicative-interactions": "a linear map of one whose weights are generated from the other",
    "film": "the second's features scaled and shifted by linear maps of the first (FiLM)",
    "gated-multimodal-unit": "a learned mixture of tanh of linear maps (GMU)",
    "tensor-fusion": "outer product of all features and the constant 1",
    "non-local": "text tokens attend to the picture's by one head without scale (non-local block)",
}
_PRECISIONS = {
    "fp32": "32-bit floating point",
    "fp16": "16-bit floating point",
    "int8": "8-bit integers, scales from calibration data",
    "int8-dynamic": "8-bit integer weights, activations quantised at run time",
}


def notation(genotypes: Iterable[Genotype]) -> dict[str, str]:
    """The terms that these designs use, and what they mean; empty without designs."""
    designs = list(genotypes)
    if not designs:
        return {}
    points = [point for each in designs for point in each.points]
    deep = max(points, key=lambda point: (point.text_tap, point.vision_tap, point.audio_tap))
    example = next(each for each in designs if deep in each.points)
    names = list(example.encoders)
    layers = ", ".join(f"layer {deep.tap(m)} of the {m} encoder" for m in names)
    found = {
        " + ".join(example.encoders.values()): "the encoders (trunks), by modality",
        f"{example.taps(deep)} {deep.operator}": f"a fusion point: {layers} fused by this operator",
        "→24": "projected to 24 features",
    }
    if any(len(each.encoders) < each.taps(deep).count("x") + 1 for each in designs):
        found["0x3"] = "layers of text, image and sound encoders; 0: not read"
    if any(each.attention_blocks for each in designs):
        found["2 attention over pooled, over tokens"] = (
            "two attention blocks at the last fusion point, over its vector or over all tokens"
        )
    if any(each.text_encoder for each in designs):
        found["32 tokens (cls)"] = "length that texts are cut to, and how they are pooled"
    if any(each.vision_encoder for each in designs):
        if any(each.image_tokens for each in designs):
            found["16 image tokens"] = (
                "a grid of 4 by 4 that the picture's tokens are averaged to before they are fused"
            )
        if any(_MERGING.search(str(each.vision_encoder)) for each in designs):
            found["-merge8"] = (
                "of a vision encoder: each of its layers merges 8 pairs of similar tokens (ToMe)"
            )
        found["vision conv-max"] = (
            "pooling of the picture: here a 3x3 convolution, then the maximum"
        )
    if any(each.lora_rank for each in designs):
        found["LoRA rank 8"] = (
            "adapters of this rank in the last third of the layers of text and vision encoders, "
            "trained with the fusion and merged into the weights"
        )
    used = {point.operator for each in designs if each.is_fused for point in each.points}
    found |= {name: words for name, words in OPERATOR_WORDS.items() if name in used}
    found |= {name: _words_of_plugin(name, origin) for name, origin in origins(used).items()}
    precisions = {each.precision for each in designs}
    return found | {name: words for name, words in _PRECISIONS.items() if name in precisions}


def _words_of_plugin(name: Operator, origin: str) -> str:
    """The first line of the docstring of a plugin's class, and its package."""
    said = (type(operator_of(name)).__doc__ or "").strip().splitlines()
    return (
        f"{said[0].rstrip('.')} (plugin {origin})" if said else f"operator of the plugin {origin}"
    )
