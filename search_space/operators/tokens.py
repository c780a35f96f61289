"""Fusion operators that read token sequences. They give tokens, which are pooled next.

Each takes the padding of its tokens first: a modality (B, S), True where a token is padding, which
is read by none, and None where all are real (text alone is padded). Then, in the order of the
design's encoders, each modality as tokens (B, S, N) or as a vector (B, N). Whose tokens each gives,
in the order of the tuple, stands in `signatures.SIGNATURES`.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from search_space.design.encoder import Modality
from search_space.design.rules import ATTENTION_HEADS

Paddings = Sequence[Tensor | None]

MLP_RATIO = 2
"""Features in the middle of an encoder layer's MLP, by its width."""
PREFIX_TOKENS = 4
BOTTLENECK_TOKENS = 4
INITIAL_SD = 0.02
"""Of learned tokens and embeddings before training, as in BERT and ViT."""


class CrossAttention(nn.Module):
    """Tokens of one modality query those of the other, with a residual.

    LayerNorm(Q + MultiheadAttention(query Q, key K, value K)), four heads. Text queries the image
    ("cross-attention") or the image the text ("cross-attention-vision").
    """

    def __init__(self, width: int, queries: Modality = "text") -> None:
        super().__init__()
        self.queries = queries
        self.attention = nn.MultiheadAttention(width, ATTENTION_HEADS, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, padding: Paddings, text: Tensor, vision: Tensor) -> tuple[Tensor, ...]:
        """(B, L, N) and (B, P, N) to the tokens that query."""
        asking, asked, unread = text, vision, padding[1]
        if self.queries == "vision":
            asking, asked, unread = vision, text, padding[0]
        attended, _ = self.attention(
            asking, asked, asked, key_padding_mask=unread, need_weights=False
        )
        return (self.norm(asking + attended),)

    def extra_repr(self) -> str:
        """Whose tokens query."""
        return f"{self.queries} queries"


class CrossAttentionBoth(nn.Module):
    """Cross-attention both ways at once, each with weights of its own.

    Source: ViLBERT's co-attention (Lu et al., 2019), without its MLPs.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.text = CrossAttention(width, "text")
        self.vision = CrossAttention(width, "vision")

    def forward(self, padding: Paddings, text: Tensor, vision: Tensor) -> tuple[Tensor, ...]:
        """(B, L, N) and (B, P, N) to both of these sizes."""
        return *self.text(padding, text, vision), *self.vision(padding, text, vision)


def encoder_layer(width: int) -> nn.TransformerEncoderLayer:
    """A standard transformer encoder layer, (B, S, N) to (B, S, N).

    x + Attention(LayerNorm(x)), then x + MLP(LayerNorm(x)): four heads, GELU, no dropout.
    """
    return nn.TransformerEncoderLayer(
        width,
        ATTENTION_HEADS,
        MLP_RATIO * width,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )


class SingleSequence(nn.Module):
    """Early fusion: the tokens of all modalities as one sequence through one encoder layer.

    A learned embedding of its modality is added to each token. Source: VisualBERT (Li et al.,
    2019).
    """

    def __init__(self, width: int, modalities: int) -> None:
        super().__init__()
        self.modality = nn.Parameter(INITIAL_SD * torch.randn(modalities, width))
        self.layer = encoder_layer(width)

    def forward(self, padding: Paddings, *tokens: Tensor) -> tuple[Tensor, ...]:
        """(B, S, N) each, the text's first, to the text's."""
        states = torch.cat([t + self.modality[k] for k, t in enumerate(tokens)], dim=1)
        unread = joint_padding(padding, tokens)
        return (self.layer(states, src_key_padding_mask=unread)[:, : tokens[0].shape[1]],)


class Prefix(nn.Module):
    """Four tokens made from the pooled image stand before the text's in one encoder layer.

    One Linear makes them. Source: ClipCap (Mokady et al., 2021), whose prefix an MLP makes.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.prefix = nn.Linear(width, PREFIX_TOKENS * width)
        self.layer = encoder_layer(width)

    def forward(self, padding: Paddings, text: Tensor, vision: Tensor) -> tuple[Tensor, ...]:
        """(B, L, N) and (B, N) to the text's (B, L, N)."""
        prefix = self.prefix(vision).view(len(text), PREFIX_TOKENS, -1)
        states = torch.cat([prefix, text], dim=1)
        unread = joint_padding((None, padding[0]), (prefix, text))
        return (self.layer(states, src_key_padding_mask=unread)[:, PREFIX_TOKENS:],)


class Bottleneck(nn.Module):
    """Attention bottlenecks: the modalities meet in four learned tokens alone.

    Twice, each modality's own encoder layer runs over its tokens and the bottleneck tokens. After
    the first, these are the mean of what the modalities made of them, so that in the second each
    reads the others through them. Source: Nagrani et al., 2021, at the two layers that one exchange
    needs.
    """

    def __init__(self, width: int, modalities: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(INITIAL_SD * torch.randn(BOTTLENECK_TOKENS, width))
        self.layers = nn.ModuleList(
            nn.ModuleList(encoder_layer(width) for _ in range(2)) for _ in range(modalities)
        )

    def forward(self, padding: Paddings, *tokens: Tensor) -> tuple[Tensor, ...]:
        """(B, S, N) each to all of these sizes."""
        states = list(tokens)
        shared = self.tokens.expand(states[0].shape[0], -1, -1)
        unread = [
            joint_padding((p, None), (t, shared)) for p, t in zip(padding, states, strict=True)
        ]
        for turn in range(2):
            made = []
            for k, (layers, own) in enumerate(zip(self.layers, states, strict=True)):
                layer = cast(nn.ModuleList, layers)[turn]
                both = layer(torch.cat([own, shared], dim=1), src_key_padding_mask=unread[k])
                states[k] = both[:, : own.shape[1]]
                made.append(both[:, own.shape[1] :])
            shared = sum(made[1:], made[0]) / len(made)
        return tuple(states)


def joint_padding(padding: Paddings, tokens: Sequence[Tensor]) -> Tensor | None:
    """Of several sequences (B, S, N) one after another: (B, all S), None where all are real."""
    if all(each is None for each in padding):
        return None
    read = [
        torch.zeros(t.shape[:2], dtype=torch.bool, device=t.device) if p is None else p
        for p, t in zip(padding, tokens, strict=True)
    ]
    return torch.cat(read, dim=1)
