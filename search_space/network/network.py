"""The network that a genotype spells: trunks, fusion, head."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from search_space.design.encoder import EncoderSpec
from search_space.design.genotype import FusionPoint, Genotype
from search_space.design.rules import Shapes, fused_width, violations
from search_space.encoders.features import Feature, features_of
from search_space.encoders.loading import load_trunk
from search_space.encoders.trunks import Features
from search_space.modality import Modality
from search_space.network.branch import Branch

T = TypeVar("T")
SharedRows = Sequence[Tensor | None]
"""For each input of a network (B,): where each sample's own is among fewer that samples share; None
where each has one."""
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
    """A whole design, from token ids, pixels and sounds to logits."""

    def __init__(
        self,
        genotype: Genotype,
        shapes: Shapes,
        fusion: Fusion,
        trunks: Mapping[Modality, nn.Module],
    ) -> None:
        super().__init__()
        wanted = features_of(genotype, shapes)
        self.wanted = {m: tuple(f for f in wanted if f.modality == m) for m in genotype.encoders}
        """The features that are read, by modality, in the order of the inputs."""
        self.trunks, self.fusion = (
            nn.ModuleDict({str(m): trunk for m, trunk in trunks.items()}),
            fusion,
        )

    def forward(self, *inputs: Tensor, rows: SharedRows | None = None) -> Tensor:
        """Logits (B, classes) from the inputs that `input_names` lists, in that order.

        What samples share is given once; `rows` then says whose it is.
        """
        logits: Tensor = self.fusion(*self.read(*inputs, rows=rows))
        return logits

    def read(
        self, *inputs: Tensor, rows: SharedRows | None = None
    ) -> tuple[dict[Feature, Tensor], Tensor | None]:
        """What the fusion reads of these inputs: features, and the text's mask (B, L)."""
        given = by_modality(tuple(self.wanted), inputs)
        shared = by_modality(tuple(self.wanted), rows or [None] * len(inputs))
        features: dict[Feature, Tensor] = {}
        for modality, wanted in self.wanted.items():
            made, own = self.trunks[modality](*given[modality], wanted), shared[modality][0]
            features |= made if own is None else {f: tensor[own] for f, tensor in made.items()}
        return features, given["text"][1] if "text" in given else None


INPUTS: Mapping[Modality, tuple[str, ...]] = {
    "text": ("input_ids", "attention_mask"),
    "vision": ("pixel_values",),
    "audio": ("input_values",),
}
"""What each trunk takes: ids and mask (B, L); pixels (B, 3, S, S); a sound as its encoder reads it,
(B, samples) or (B, bands and frames in any order)."""


def input_names(genotype: Genotype) -> tuple[str, ...]:
    """The network's inputs in order."""
    return tuple(name for modality in genotype.encoders for name in INPUTS[modality])


def by_modality(
    modalities: Iterable[Modality], inputs: Sequence[T]
) -> dict[Modality, tuple[T, ...]]:
    """A network's inputs, in the order of `input_names`, by whose they are."""
    found: dict[Modality, tuple[T, ...]] = {}
    for modality in modalities:
        count = len(INPUTS[modality])
        found[modality], inputs = tuple(inputs[:count]), inputs[count:]
    return found


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
    trunks = {
        modality: load_trunk(encoders[name], genotype.deepest_tap(modality), seed)
        for modality, name in genotype.encoders.items()
    }
    fusion = new_fusion(genotype, shapes, classes, seed)
    return FusionNetwork(genotype, shapes, fusion, trunks).eval()


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
