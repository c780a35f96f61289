"""Fusion operators that read token sequences. They give tokens, which are pooled next.

Each takes text tokens (B, L, N), the image as tokens (B, P, N) or as a vector (B, N), and the
text's mask (B, L), 1 where a token is real: padding is read by none. Whose tokens each gives, in
the order of the tuple, stands in `signatures.SIGNATURES`.
"""

import torch
from torch import Tensor, nn

from search_space.encoders import Modality
from search_space.poolings import padding_of
from search_space.rules import ATTENTION_HEADS

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

    def forward(self, text: Tensor, vision: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """(B, L, N) and (B, P, N) to the tokens that query."""
        asking, asked, padding = text, vision, None
        if self.queries == "vision":
            asking, asked, padding = vision, text, padding_of(mask)
        attended, _ = self.attention(
            asking, asked, asked, key_padding_mask=padding, need_weights=False
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

    def forward(self, text: Tensor, vision: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """(B, L, N) and (B, P, N) to both of these sizes."""
        return *self.text(text, vision, mask), *self.vision(text, vision, mask)


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
    """Early fusion: text and image tokens as one sequence through one encoder layer.

    A learned embedding of its modality is added to each token. Source: VisualBERT (Li et al.,
    2019).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modality = nn.Parameter(INITIAL_SD * torch.randn(2, width))
        self.layer = encoder_layer(width)

    def forward(self, text: Tensor, vision: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """(B, L, N) and (B, P, N) to the text's (B, L, N)."""
        length = text.shape[1]
        states = torch.cat([text + self.modality[0], vision + self.modality[1]], dim=1)
        padding = torch.cat([padding_of(mask), _read(vision)], dim=1)
        return (self.layer(states, src_key_padding_mask=padding)[:, :length],)


class Prefix(nn.Module):
    """Four tokens made from the pooled image stand before the text's in one encoder layer.

    One Linear makes them. Source: ClipCap (Mokady et al., 2021), whose prefix an MLP makes.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.prefix = nn.Linear(width, PREFIX_TOKENS * width)
        self.layer = encoder_layer(width)

    def forward(self, text: Tensor, vision: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """(B, L, N) and (B, N) to the text's (B, L, N)."""
        prefix = self.prefix(vision).view(len(text), PREFIX_TOKENS, -1)
        states = torch.cat([prefix, text], dim=1)
        padding = torch.cat([_read(prefix), padding_of(mask)], dim=1)
        return (self.layer(states, src_key_padding_mask=padding)[:, PREFIX_TOKENS:],)


class Bottleneck(nn.Module):
    """Attention bottlenecks: the modalities meet in four learned tokens alone.

    Twice, each modality's own encoder layer runs over its tokens and the bottleneck tokens. After
    the first, these are the mean of what both modalities made of them, so that in the second each
    reads the other through them. Source: Nagrani et al., 2021, at the two layers that one exchange
    needs.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(INITIAL_SD * torch.randn(BOTTLENECK_TOKENS, width))
        self.text = nn.ModuleList(encoder_layer(width) for _ in range(2))
        self.vision = nn.ModuleList(encoder_layer(width) for _ in range(2))

    def forward(self, text: Tensor, vision: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """(B, L, N) and (B, P, N) to both of these sizes."""
        length, cells = text.shape[1], vision.shape[1]
        shared = self.tokens.expand(text.shape[0], -1, -1)
        padding = torch.cat([padding_of(mask), _read(shared)], dim=1)
        for of_text, of_vision in zip(self.text, self.vision, strict=True):
            said = of_text(torch.cat([text, shared], dim=1), src_key_padding_mask=padding)
            seen = of_vision(torch.cat([vision, shared], dim=1))
            text, vision = said[:, :length], seen[:, :cells]
            shared = (said[:, length:] + seen[:, cells:]) / 2
        return text, vision


def _read(tokens: Tensor) -> Tensor:
    """(B, S) of False: none of these tokens (B, S, N) is padding."""
    return torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
