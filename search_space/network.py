"""The network that a genotype spells: trunks, fusion, head."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from search_space.branch import Branch
from search_space.encoders import EncoderSpec
from search_space.features import Feature, features_of
from search_space.genotype import FusionPoint, Genotype
from search_space.loading import load_trunk
from search_space.rules import Shapes, fused_width, violations
from search_space.trunks import Features

HEAD_WIDTHS = (512, 256)
HEAD_DROPOUT = 0.3


class Fusion(nn.Module):
    """Everything after the trunks: branches, their concatenation, and the head.

    The head is the same for every design: Linear 512, ReLU, dropout .3, Linear 256, ReLU,
    dropout .3, Linear to the classes (arXiv 2511.21889).
    """

    def __init__(self, genotype: Genotype, shapes: Shapes, classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(Branch(genotype, p, shapes) for p in genotype.points)
        width = sum(fused_width(genotype, point, shapes) for point in genotype.points)
        self.head = _head(width, classes)

    def forward(self, features: Features, mask: Tensor | None) -> Tensor:
        """Features of the trunks and the text's mask (B, L) to logits (B, classes)."""
        branches = [branch(features, mask) for branch in self.branches]
        fused = branches[0] if len(branches) == 1 else torch.cat(branches, dim=1)
        logits: Tensor = self.head(fused)
        return logits


def _head(width: int, classes: int) -> nn.Sequential:
    first, second = HEAD_WIDTHS
    return nn.Sequential(
        nn.Linear(width, first),
        nn.ReLU(),
        nn.Dropout(HEAD_DROPOUT),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.Dropout(HEAD_DROPOUT),
        nn.Linear(second, classes),
    )


class FusionNetwork(nn.Module):
    """A whole design, from token ids and pixels to logits."""

    def __init__(
        self,
        genotype: Genotype,
        shapes: Shapes,
        fusion: Fusion,
        text: nn.Module | None,
        vision: nn.Module | None,
    ) -> None:
        super().__init__()
        wanted = features_of(genotype, shapes)
        self.text_features = tuple(f for f in wanted if f.modality == "text")
        self.vision_features = tuple(f for f in wanted if f.modality == "vision")
        self.text, self.vision, self.fusion = text, vision, fusion

    def forward(self, *inputs: Tensor) -> Tensor:
        """Logits (B, classes) from the inputs that `input_names` lists, in that order."""
        features: dict[Feature, Tensor] = {}
        mask = None
        remaining: Sequence[Tensor] = inputs
        if self.text is not None:
            ids, mask, *remaining = inputs
            features |= self.text(ids, mask, self.text_features)
        if self.vision is not None:
            features |= self.vision(remaining[0], self.vision_features)
        logits: Tensor = self.fusion(features, mask)
        return logits


def input_names(genotype: Genotype) -> tuple[str, ...]:
    """The network's inputs in order: input_ids and attention_mask (B, L), pixel_values."""
    text = ("input_ids", "attention_mask") if genotype.text_encoder else ()
    return (*text, *(("pixel_values",) if genotype.vision_encoder else ()))


def build(
    genotype: Genotype,
    encoders: Mapping[str, EncoderSpec],
    shapes: Shapes,
    classes: int,
    seed: int = 0,
) -> FusionNetwork:
    """The network of a design, in evaluation mode, its new weights drawn from `seed`.

    Raises ValueError with every violation in words, EncoderError where an encoder cannot be had.
    """
    found = violations(genotype, shapes)
    if found:
        raise ValueError("; ".join(found))
    text = vision = None
    if genotype.text_encoder:
        text = load_trunk(encoders[genotype.text_encoder], genotype.deepest_text_tap, seed)
    if genotype.vision_encoder:
        vision = load_trunk(encoders[genotype.vision_encoder], genotype.deepest_vision_tap, seed)
    return FusionNetwork(
        genotype, shapes, new_fusion(genotype, shapes, classes, seed), text, vision
    ).eval()


def new_fusion(genotype: Genotype, shapes: Shapes, classes: int, seed: int) -> Fusion:
    """Fusion and head with weights drawn from `seed`; the global random state is left as it was."""
    with _drawn_from(seed):
        return Fusion(genotype, shapes, classes)


def new_branch(genotype: Genotype, point: FusionPoint, shapes: Shapes, seed: int) -> Branch:
    """One branch alone, as `new_fusion`: its weights depend on nothing but its own shapes."""
    with _drawn_from(seed):
        return Branch(genotype, point, shapes)


def new_head(width: int, classes: int, seed: int) -> nn.Sequential:
    """The head alone, as `new_fusion`: (B, width) to (B, classes)."""
    with _drawn_from(seed):
        return _head(width, classes)


@contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(state)
