"""What a fusion operator is: what it takes and gives, how much it computes, and its network."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_space.modality import MODALITIES, Modality
from search_space.operators.numpy_layers import Array, Paddings, Weights
from search_space.operators.work import On, Work

if TYPE_CHECKING:  # commands that train nothing read what operators are, and import no torch
    from torch import nn


Operator = str
"""Name of a fusion operator."""


@dataclass(frozen=True)
class Signature:
    """What an operator takes and gives, with B the batch, N its width.

    tokens: modalities that it takes as tokens (B, S, N); the others it takes pooled, (B, N).
    gives: of which modalities it gives tokens, each to be pooled and all concatenated; of none
    where it gives one vector by itself.
    equal_widths: whether the vectors that it takes must be equally wide.
    needs: modalities without which it has no meaning. most: how many it can fuse.
    projects_result: whether a width of the fusion point is that of a projection after the operator,
    and not of projections before it.
    needs_width: whether the trunks' own widths would make it, or what it gives, too wide.
    widest: the greatest width that it works in; None where only what it gives is limited.
    """

    tokens: tuple[Modality, ...] = ()
    gives: tuple[Modality, ...] = ()
    equal_widths: bool = False
    needs: tuple[Modality, ...] = ()
    most: int = len(MODALITIES)
    projects_result: bool = False
    needs_width: bool = False
    widest: int | None = None

    def fuses(self, modalities: Collection[Modality]) -> bool:
        """Whether it can fuse all of these at once."""
        return set(self.needs) <= set(modalities) and len(modalities) <= self.most


class FusionOperator(ABC):
    """One way to fuse two modalities or three.

    Its module takes the vectors (B, N) of the modalities, in the order of a design's encoders, and
    gives one vector. If its signature gives tokens, the module takes the padding of each modality
    first, and gives a tuple of tokens (B, S, N), one for each modality that it gives tokens of.
    """

    signature: ClassVar[Signature]
    starts_linear: ClassVar[bool] = False
    """Whether its module begins with a linear map of each modality: the `nn.Linear`s with bias of
    an `nn.ModuleList` named `factors`, in the order of the modalities."""
    first_weights: ClassVar[int] = 0
    """How its first weights are drawn: part of the keys of designs trained with it. Raise it when
    that changes."""

    def output_width(self, widths: Mapping[Modality, int]) -> int:
        """Return how many features it gives, pooled, of modalities that are so wide."""
        given = sum(modality in widths for modality in self.signature.gives)
        return next(iter(widths.values())) * max(1, given)

    def work(self, lengths: Sequence[int], width: int) -> Iterable[tuple[On, Work]]:
        """Return its work on so many tokens of each modality, at the width that it works in.

        An operator without products with weights and without attention has none worth counting.
        """
        return ()

    @abstractmethod
    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Compute in NumPy what its module gives; a vector is a tuple of one."""

    @abstractmethod
    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a new module for the width that it works in and how many modalities it fuses."""
