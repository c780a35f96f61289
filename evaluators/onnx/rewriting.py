"""What exact rewrites make of a design's texts, of its content key, and how they are told.

The rewrites of the network itself are in `search_space.network.rewrites`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor
from torch.nn.functional import pad

from search_space.design.genotype import Genotype
from search_space.design.reading import reads_tokens
from search_space.network.rewrites import NONE, REWRITES_VERSION, Rewrites, folded_blocks

TextLengths = Callable[[str], Sequence[int]]
"""Tokens of every text of the data, by the name of a text encoder."""


class Rewriting:
    """Rewrites for one data set.

    Without `text_lengths` the data are not known, and texts are as long as a design says.
    """

    def __init__(self, rewrites: Rewrites = NONE, text_lengths: TextLengths | None = None) -> None:
        self.rewrites, self._text_lengths = rewrites, text_lengths

    def longest(self, genotype: Genotype) -> int:
        """Tokens of the longest text that the design's graph is given; 0 without text."""
        return min(genotype.text_tokens, max(self._lengths(genotype), default=genotype.text_tokens))

    def timed(self, genotype: Genotype) -> Genotype:
        """The design with the text length that its graph is timed at.

        That of its padded texts; where every text runs at its own length, their mean, rounded up.
        Adapters are merged into the weights, so a design with them is timed as the one without.
        """
        tokens = self.longest(genotype)
        lengths = self._lengths(genotype)
        if lengths and self.open_axes(genotype):
            tokens = -(-sum(min(length, tokens) for length in lengths) // len(lengths))
        return replace(genotype.without_adapters, text_tokens=tokens)

    def _lengths(self, genotype: Genotype) -> list[int]:
        """Tokens of every text of the data, at least 1; empty where padding is not cut."""
        name = genotype.text_encoder
        if not (self.rewrites.cut_padding and name and self._text_lengths):
            return []
        return [max(1, length) for length in self._text_lengths(name)]

    def key(self, genotype: Genotype) -> dict[str, object]:
        """What a content key must hold besides the timed design; nothing for a graph as written."""
        folded = folded_blocks(genotype, self.rewrites) > 0
        opened = bool(self.open_axes(genotype))
        return {"rewrites": [REWRITES_VERSION, folded, opened]} if folded or opened else {}

    def words(self, genotype: Genotype) -> tuple[str, ...]:
        """What is rewritten of this design, for people; empty where nothing is.

        Designs of one timed graph have the same words, for they share its evaluation.
        """
        said = []
        if blocks := folded_blocks(genotype, self.rewrites):
            said.append(f"attention over one key folded into its linear form ({blocks} blocks)")
        lengths, tokens = self._lengths(genotype), self.timed(genotype).text_tokens
        if self.open_axes(genotype):
            at = f", timed at {tokens} tokens, their mean" if lengths else ""
            said.append(f"each text at its own length{at}")
        elif lengths and tokens == max(lengths):
            said.append(f"texts padded to {tokens} tokens, the longest of the data")
        return tuple(said)

    def open_axes(self, genotype: Genotype) -> dict[str, dict[int, str]]:
        """The axes of the graph's inputs that take any extent, as the exporter wants them.

        None where a fusion reads the text's tokens themselves: attention modules are exported for
        the length that they were traced with. Such designs are padded to the longest text.
        """
        closed = any(reads_tokens(genotype, point, "text") for point in genotype.points)
        if closed or not (self.rewrites.own_length and genotype.text_encoder):
            return {}
        return {name: {1: "tokens"} for name in ("input_ids", "attention_mask")}

    def fed(self, genotype: Genotype, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Inputs of batch 1 as the graph takes them; any padding stands on the right of a text.

        Raises ValueError for a text that does not fit.
        """
        if not genotype.text_encoder:
            return inputs
        ids, mask, *rest = inputs
        real, longest = max(1, int(mask.sum())), self.longest(genotype)
        if real > longest:
            raise ValueError(
                f"a text of {real} tokens where the graph takes {longest}: build it for these data"
            )
        length = real if self.open_axes(genotype) else longest
        fit = (0, length - ids.shape[1])  # a negative end cuts
        return (pad(ids, fit), pad(mask, fit), *rest)
