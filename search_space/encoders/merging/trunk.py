"""ViTs that merge similar tokens in every layer.

Between attention and MLP of a layer, r pairs of tokens are merged (`matching`). A token that
stands for s patches takes part in attention as s equal ones would: log s is added to its scores
("proportional attention", Bolya et al. 2023, arXiv 2210.09461, equation 1). Where a layer has
fewer than 2 r tokens besides the class token, half of these are merged, as in the authors' code.

What a fusion reads of merged tokens are those of a picture whose patches each hold the token that
they were merged into ("unmerging": Bolya and Hoffman 2023, arXiv 2303.17604), so that a tap has
the extents that it has without merging. A mean is then one weighted by sizes, and needs no map.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_space.design.encoder import EncoderError, EncoderSpec
from search_space.encoders.features import Feature
from search_space.encoders.libraries import import_timm
from search_space.encoders.merging.matching import match, merge_means, merge_sums, most_merged
from search_space.encoders.trunks import MapTrunk, as_grid, layers_of, map_form

MODEL_TYPES = ("vit", "dinov2")
"""Architectures of transformers whose tokens can be merged."""
WHICH = "ViT and DINOv2 of transformers and VisionTransformer of timm do"
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


class MergingBlock(nn.Module, ABC):
    """A layer of a ViT in two halves, between which tokens can be merged."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    @abstractmethod
    def attend(self, tokens: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor]:
        """Run the first half on tokens (B, N, C) of sizes (B, N, 1).

        Returns:
            The tokens after attention and residual (B, N, C), and keys (B, N, D) in the mean over
            heads.
        """

    @abstractmethod
    def transform(self, tokens: Tensor) -> Tensor:
        """Run the second half, the MLP with its residual, on tokens (B, N, C)."""


class _OfTransformers(MergingBlock):
    """A layer of ViT or DINOv2 of transformers."""

    def attend(self, tokens: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor]:
        layer, attention = cast(Any, self.layer), cast(Any, self.layer).attention
        is_vit = hasattr(layer, "layernorm_before")
        normal = (layer.layernorm_before if is_vit else layer.norm1)(tokens)
        extents = (*normal.shape[:2], -1, attention.head_dim)
        query, key, value = (
            project(normal).view(extents).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        dropout = attention.attention_dropout if self.training else 0.0
        mixed = attention.o_proj(_attend(query * attention.scaling, key, value, sizes, dropout))
        mixed = layer.dropout(mixed) if is_vit else layer.drop_path(layer.layer_scale1(mixed))
        return mixed + tokens, key.mean(1)

    def transform(self, tokens: Tensor) -> Tensor:
        layer = cast(Any, self.layer)
        if hasattr(layer, "layernorm_after"):
            made = layer.dropout(layer.mlp(layer.layernorm_after(tokens)))
        else:
            made = layer.drop_path(layer.layer_scale2(layer.mlp(layer.norm2(tokens))))
        return cast(Tensor, made + tokens)


class _OfTimm(MergingBlock):
    """A block of timm's VisionTransformer."""

    def attend(self, tokens: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor]:
        layer, attention = cast(Any, self.layer), cast(Any, self.layer).attn
        batch, count = tokens.shape[:2]
        made = attention.qkv(layer.norm1(tokens))
        made = made.reshape(batch, count, 3, attention.num_heads, attention.head_dim)
        query, key, value = made.permute(2, 0, 3, 1, 4).unbind(0)
        query, key = attention.q_norm(query), attention.k_norm(key)
        dropout = attention.attn_drop.p if self.training else 0.0
        mixed = _attend(query * attention.scale, key, value, sizes, dropout)
        mixed = attention.proj_drop(attention.proj(attention.norm(mixed)))
        return tokens + layer.drop_path1(layer.ls1(mixed)), key.mean(1)

    def transform(self, tokens: Tensor) -> Tensor:
        layer = cast(Any, self.layer)
        return cast(Tensor, tokens + layer.drop_path2(layer.ls2(layer.mlp(layer.norm2(tokens)))))


def _attend(
    query: Tensor, key: Tensor, value: Tensor, sizes: Tensor | None, dropout: float
) -> Tensor:
    """Proportional attention: (B, H, N, D) of each, sizes (B, N, 1), to (B, N, H D)."""
    scores = query @ key.transpose(2, 3)
    if sizes is not None:
        scores = scores + sizes.log().transpose(1, 2).unsqueeze(1)
    weights = F.dropout(scores.softmax(-1), dropout, training=dropout > 0)
    return (weights @ value).transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class _Merged:
    """The tokens that a layer gives, and what they stand for.

    tokens: (B, N, C), the class token first if there is one. sizes: (B, N, 1) in patches.
    sources: (B, N, P), 1.0 where a token stands for a patch; None where no map is asked for.
    """

    tokens: Tensor
    sizes: Tensor
    sources: Tensor | None


class MergingTrunk(MapTrunk):
    """A ViT in whose every layer r pairs of tokens are merged."""

    def __init__(
        self,
        embedding: nn.Module,
        blocks: list[MergingBlock],
        norm: nn.Module,
        sides: tuple[int, int],
        has_class_token: bool,
        r: int,
    ) -> None:
        """Make a trunk of the parts of a ViT.

        Args:
            embedding: pixels to tokens with their positions, the class token first if any.
            blocks: the layers up to the deepest tap.
            norm: what follows the last of them.
            sides: rows and columns of patches.
            has_class_token: whether a class token stands before the patches.
            r: pairs of tokens to merge in a layer.
        """
        super().__init__()
        self.embedding, self.blocks, self.norm = embedding, nn.ModuleList(blocks), norm
        self.sides, self.prefix, self.r = sides, int(has_class_token), r

    def forward(self, values: Tensor, wanted: tuple[Feature, ...]) -> dict[Feature, Tensor]:
        """Features of pictures (B, 3, S, S); a map of tokens only where one is asked for."""
        mapped = any(feature.form in ("grid", "tokens") for feature in wanted)
        made: dict[Feature, Tensor] = {}
        for tap, state in enumerate(self._states(values, mapped), start=1):
            made |= {f: self._form(f, state) for f in wanted if f.tap == tap}
        return {f: made[f] for f in wanted}

    def taps(self, values: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        for state in self._states(values, mapped=True):
            yield self._grid(state), state.tokens[:, 0] if self.prefix else None

    def _states(self, values: Tensor, mapped: bool) -> Iterator[_Merged]:
        tokens: Tensor = self.embedding(values)
        sizes: Tensor | None = None
        sources = self._own_patches(tokens) if mapped else None
        for k, block in enumerate(self.blocks, start=1):
            assert isinstance(block, MergingBlock)
            tokens, keys = block.attend(tokens, sizes)
            r = min(self.r, most_merged(int(tokens.shape[1]), bool(self.prefix)))
            if r:
                matching = match(keys, r, bool(self.prefix))
                tokens, sizes = merge_means(tokens, sizes, matching)
                sources = None if sources is None else merge_sums(sources, matching)
            assert sizes is not None, "the first layer merges"
            tokens = block.transform(tokens)
            last = k == len(self.blocks)
            yield _Merged(self.norm(tokens) if last else tokens, sizes, sources)

    def _own_patches(self, tokens: Tensor) -> Tensor:
        """(B, N, P): before any merging every token stands for its own patch."""
        patches = self.sides[0] * self.sides[1]
        eye = torch.eye(patches, device=tokens.device, dtype=tokens.dtype)
        eye = F.pad(eye, (0, 0, self.prefix, 0))
        return eye.expand(int(tokens.shape[0]), -1, -1)

    def _form(self, feature: Feature, state: _Merged) -> Tensor:
        tokens = state.tokens[:, self.prefix :]
        if feature.form == "mean":
            patches = self.sides[0] * self.sides[1]
            return (tokens * state.sizes[:, self.prefix :]).sum(1) / patches
        if feature.form == "max":
            return tokens.amax(1)
        class_token = state.tokens[:, 0] if self.prefix else None
        if feature.form == "cls" and class_token is not None:
            return class_token
        return map_form(feature, self._grid(state), class_token)

    def _grid(self, state: _Merged) -> Tensor:
        """(B, C, H, W): in the place of each patch the token that it was merged into."""
        assert state.sources is not None
        sources = state.sources[:, self.prefix :].transpose(1, 2)
        return as_grid(sources @ state.tokens[:, self.prefix :], *self.sides)


class _TimmEmbedding(nn.Module):
    """What timm's VisionTransformer does before its first block."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for unread in ("norm", "fc_norm", "head_drop", "head", "attn_pool", "blocks"):
            if getattr(model, unread, None) is not None:
                setattr(model, unread, nn.Identity())
        self.model = model

    def forward(self, values: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) to tokens (B, N, C)."""
        model = cast(Any, self.model)
        tokens = model._pos_embed(model.patch_embed(values))
        return cast(Tensor, model.norm_pre(model.patch_drop(tokens)))


def most_merged_by(spec: EncoderSpec, model: nn.Module) -> int:
    """Return how many pairs of tokens the first layer of a whole model can merge.

    0 for an encoder whose tokens are not merged: the parts of its layers are not known.
    """
    if spec.modality != "vision" or spec.library == "plugin":
        return 0
    sides = (_timm_sides if spec.library == "timm" else _sides)(model)
    return sides[0] * sides[1] // 2 if sides else 0


def merging_trunk(spec: EncoderSpec, model: nn.Module, depth: int) -> MergingTrunk:
    """Return a trunk of the first `depth` layers of a whole model, which it takes over.

    Args:
        spec: the encoder; `merging` pairs of tokens are merged in a layer.
        model: the whole model; has been checked to have this depth.
        depth: layers of the trunk.

    Raises:
        EncoderError: the encoder does not merge tokens, or not so many.
    """
    here, most = f"vision encoder {spec.source}", most_merged_by(spec, model)
    if not most:
        raise EncoderError(
            f"{here} does not merge tokens ({WHICH}): leave image_merging out for it"
        )
    if not 1 <= spec.merging <= most:
        raise EncoderError(
            f"{here} cannot merge {spec.merging} pairs of tokens in a layer: "
            f"its pictures have {2 * most} patches or one more, so give 1 to {most}"
        )
    if spec.library == "timm":
        return _of_timm(model, depth, spec.merging)
    return _of_transformers(model, depth, spec.merging)


def _of_transformers(model: nn.Module, depth: int, r: int) -> MergingTrunk:
    sides = _sides(model)
    assert sides is not None
    layers = layers_of(model)[2]
    blocks: list[MergingBlock] = [_OfTransformers(layer) for layer in layers[:depth]]
    norm = cast(Any, model).layernorm if depth == len(layers) else nn.Identity()
    return MergingTrunk(cast(Any, model).embeddings, blocks, norm, sides, True, r)


def _of_timm(model: nn.Module, depth: int, r: int) -> MergingTrunk:
    sides, layers, norm = _timm_sides(model), cast(Any, model).blocks, cast(Any, model).norm
    assert sides is not None
    blocks: list[MergingBlock] = [_OfTimm(layer) for layer in layers[:depth]]
    norm = norm if depth == len(layers) else nn.Identity()
    has_class_token = bool(cast(Any, model).num_prefix_tokens)
    return MergingTrunk(_TimmEmbedding(model), blocks, norm, sides, has_class_token, r)


def _sides(model: nn.Module) -> tuple[int, int] | None:
    """Rows and columns of patches of a ViT of transformers; None for any other model."""
    config = cast(Any, model).config
    if config.model_type not in MODEL_TYPES or not hasattr(model, "embeddings"):
        return None
    for layer in layers_of(model)[2]:
        attention = getattr(layer, "attention", None)
        if not all(hasattr(attention, name) for name in (*_PROJECTIONS, "head_dim", "scaling")):
            return None
    if not isinstance(config.image_size, int) or not isinstance(config.patch_size, int):
        return None
    return (config.image_size // config.patch_size,) * 2


def _timm_sides(model: nn.Module) -> tuple[int, int] | None:
    """The same for timm's VisionTransformer with at most a class token before the patches."""
    import_timm()
    from timm.layers.attention import Attention
    from timm.models.vision_transformer import Block, VisionTransformer

    if type(model) is not VisionTransformer:
        return None
    whole: Any = model
    if whole.num_prefix_tokens != int(whole.has_class_token):
        return None
    for block in whole.blocks:
        if type(block) is not Block or type(block.attn) is not Attention:
            return None
        if getattr(block.attn, "gate", None) is not None:
            return None
    rows, columns = whole.patch_embed.grid_size
    return int(rows), int(columns)
