"""Vision encoders on pictures of another size than they were made for."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from search_space.design.encoder import EncoderError, EncoderSpec


def resize(spec: EncoderSpec, model: nn.Module) -> None:
    """Make a whole vision model of transformers take pictures of `spec.image_size` pixels a side.

    Convolutional encoders take any size. Position embeddings of a ViT are interpolated
    bicubically, as transformers does, once, so that the exported graph holds a constant table.

    Args:
        spec: the encoder; an `image_size` of 0 changes nothing.
        model: the whole model with its weights, or without storage (meta). Changed in place.

    Raises:
        EncoderError: for a size that the encoder does not take.
    """
    config = cast(Any, model).config
    own = getattr(config, "image_size", None)
    if spec.image_size not in (0, own) and config.model_type != "mobilenet_v2":
        _resize_vit(spec, model, spec.image_size)


def create_at_size(spec: EncoderSpec, create: Callable[..., nn.Module]) -> nn.Module:
    """Create a model of timm for pictures of `spec.image_size` pixels a side.

    Models that are built for one size take it as an argument, and timm resamples their pretrained
    position embeddings; convolutional ones have no such argument.

    Args:
        spec: the encoder; with an `image_size` of 0 the model is created as it is.
        create: `timm.create_model` with all other arguments.

    Raises:
        EncoderError: for a size that is no multiple of the model's patches.
    """
    config = dict(spec.config)
    if spec.modality != "vision" or not spec.image_size:
        return create(**config)
    config.pop("img_size", None)
    try:
        model = create(**config, img_size=spec.image_size)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return create(**config)
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", 1)
    side = patch[0] if isinstance(patch, tuple) else patch
    if spec.image_size % side:
        raise _no_multiple(spec, side)
    return model


def _resize_vit(spec: EncoderSpec, model: nn.Module, size: int) -> None:
    config, embeddings = cast(Any, model).config, getattr(model, "embeddings", None)
    table = getattr(embeddings, "position_embeddings", None)
    patch = getattr(config, "patch_size", None)
    if not isinstance(table, nn.Parameter) or not isinstance(patch, int):
        raise _refused(spec, f"{type(model).__name__} has no table of positions to interpolate")
    if size % patch:
        raise _no_multiple(spec, patch)
    cells = config.image_size // patch
    prefix, grid = table[:, : -cells * cells], table[:, -cells * cells :]
    square = grid.reshape(1, cells, cells, -1).permute(0, 3, 1, 2)
    # As transformers' interpolate_pos_encoding does.
    made = F.interpolate(square, size=(size // patch,) * 2, mode="bicubic", align_corners=False)
    flat = made.permute(0, 2, 3, 1).reshape(1, -1, table.shape[2])
    positions = nn.Parameter(torch.cat([prefix, flat], 1).detach())
    cast(Any, embeddings).position_embeddings = positions
    config.image_size = size
    for module in model.modules():
        if hasattr(module, "image_size") and hasattr(module, "patch_size"):
            cast(Any, module).image_size = (size, size)
        if hasattr(module, "num_patches"):
            cast(Any, module).num_patches = (size // patch) ** 2


def _no_multiple(spec: EncoderSpec, patch: int) -> EncoderError:
    return _refused(spec, f"give a multiple of its patches of {patch} pixels")


def _refused(spec: EncoderSpec, why: str) -> EncoderError:
    return EncoderError(
        f"vision encoder {spec.source} does not take pictures of {spec.image_size} pixels: {why}"
    )
