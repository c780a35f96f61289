"""Networks of the fusion operators that give tokens; `definitions` says what each computes.

Each takes the padding of its tokens first: a modality (B, S), True where a token is padding, which
is read by none, and None where all are real (text alone is padded). Then, in the order of the
design's encoders, each modality as tokens (B, S, N) or as a vector (B, N). Whose tokens each gives,
in the order of the tuple, is in its signature.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from search_space.modality import Modality
from search_space.operators.work import ATTENTION_HEADS, MLP_RATIO

Paddings = Sequence[Tensor | None]

INITIAL_SD = 0.02
"""Of learned tokens and embeddings before training, as in BERT and ViT."""


class CrossAttention(nn.Module):
    """The network of `definitions.CrossAttention`, or of CrossAttentionVision."""

    def __init__(self, width: int, queries: Modality) -> None:
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
    """The network of `definitions.CrossAttentionBoth`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.text = CrossAttention(width, "text")
        self.vision = CrossAttention(width, "vision")

    def forward(self, padding: Paddings, text: Tensor, vision: Tensor) -> tuple[Tensor, ...]:
        """(B, L, N) and (B, P, N) to both of these sizes."""
        return *self.text(padding, text, vision), *self.vision(padding, text, vision)


class NonLocal(nn.Module):
    """The network of `definitions.NonLocal`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries = nn.Linear(width, width)
        self.keys = nn.Linear(width, width)
        self.values = nn.Linear(width, width)

    def forward(self, padding: Paddings, text: Tensor, vision: Tensor) -> tuple[Tensor, ...]:
        """(B, L, N) and (B, P, N), of which all are real, to (B, L, N)."""
        queries = self.queries(text)
        shares = torch.softmax(queries @ self.keys(vision).transpose(1, 2), dim=2)
        return (queries + shares @ self.values(vision),)


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
    """The network of `definitions.SingleSequence`."""

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
    """The network of `definitions.Prefix`."""

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.prefix = nn.Linear(width, tokens * width)
        self.layer = encoder_layer(width)

    def forward(self, padding: Paddings, text: Tensor, vision: Tensor) -> tuple[Tensor, ...]:
        """(B, L, N) and (B, N) to the text's (B, L, N)."""
        prefix = self.prefix(vision).view(len(text), self.tokens, -1)
        states = torch.cat([prefix, text], dim=1)
        unread = joint_padding((None, padding[0]), (prefix, text))
        return (self.layer(states, src_key_padding_mask=unread)[:, self.tokens :],)


class Bottleneck(nn.Module):
    """The network of `definitions.Bottleneck`."""

    def __init__(self, width: int, modalities: int, tokens: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(INITIAL_SD * torch.randn(tokens, width))
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
