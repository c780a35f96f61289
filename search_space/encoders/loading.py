"""Encoders by name: their networks, weights and shapes, from folder, hub or timm."""

from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, cast

import torch
from torch import nn

from search_space.design.encoder import (
    EncoderError,
    EncoderShape,
    EncoderSpec,
    UnknownEncoderError,
    is_timm_folder,
)
from search_space.design.genotype import MIN_TEXT_TOKENS
from search_space.encoders.configs import check_folder, config_of, first_line
from search_space.encoders.libraries import from_pretrained, import_timm, import_transformers
from search_space.encoders.merging.trunk import merging_trunk, most_merged_by
from search_space.encoders.pixels import image_size
from search_space.encoders.plugin_trunks import check_finite, plugin_shape, plugin_trunk
from search_space.encoders.plugins import plugin_encoder
from search_space.encoders.resizing import create_at_size, resize
from search_space.encoders.sounds import sound_input
from search_space.encoders.tap_check import check_text_taps, goes_on_from_taps
from search_space.encoders.trunks import (
    MapTrunk,
    MobileNetV2Trunk,
    SoundTrunk,
    TextTrunk,
    TimmTrunk,
    ViTTrunk,
    layers_of,
    timm_depth,
)

_UNREAD = ("pooler.", "masked_spec_embed")
"""Weights that need not be there: no trunk reads them, or it is told that they are missing."""
FETCH = "fetch them into the hub's cache on a machine with a network"
SMALL_WEIGHTS = 5_000_000
"""Random weights of a text encoder that are drawn only to describe it, at most."""
MIN_VOCABULARY = 4
"""Token ids that mark padding, unknown words, the start and the end of a text."""


def load_trunk(spec: EncoderSpec, depth: int, seed: int = 0) -> nn.Module:
    """The encoder cut after `depth` layers, in evaluation mode.

    Random weights are drawn from `seed`, the same for every depth. Raises EncoderError where
    configuration or weights cannot be had or are no finite numbers, or where the encoder has no
    such tap.
    """
    if spec.library == "plugin":
        return plugin_trunk(spec, depth, seed)
    return cut(spec, _load(spec, seed), depth).eval()


def _load(spec: EncoderSpec, seed: int = 0) -> nn.Module:
    """The whole model with its weights, every one a finite number."""
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        model = _load_timm(spec) if spec.library == "timm" else _load_transformers(spec)
    finally:
        torch.random.set_rng_state(state)
    if spec.weights == "pretrained":
        check_finite(spec, model)
    if spec.modality == "text":
        check_text_taps(spec, model)
    return model


def _depth(spec: EncoderSpec, model: nn.Module) -> int:
    """How many taps a whole model has."""
    if spec.library == "timm":
        return timm_depth(model)
    if cast(Any, model).config.model_type == "mobilenet_v2":
        return len(cast(nn.ModuleList, model.layer))
    return len(layers_of(model)[2])


def cut(spec: EncoderSpec, model: nn.Module, depth: int) -> nn.Module:
    """A trunk of the first `depth` layers of a whole model, which it takes over."""
    full = _depth(spec, model)
    if not 1 <= depth <= full:
        raise EncoderError(f"{spec.modality} tap {depth} of {spec.name}: it has taps 1 to {full}")
    if spec.merging:
        return merging_trunk(spec, model, depth)
    if spec.library == "timm":
        return TimmTrunk(model, depth)
    if spec.modality == "text":
        return TextTrunk(model, depth)
    if cast(Any, model).config.model_type == "mobilenet_v2":
        return MobileNetV2Trunk(model, depth)
    return SoundTrunk(model, depth) if spec.modality == "audio" else ViTTrunk(model, depth)


def _load_timm(spec: EncoderSpec) -> nn.Module:
    if spec.modality == "text":
        raise EncoderError(f"text encoder {spec.source!r}: timm has no encoders of text")
    timm = import_timm()
    folder = is_timm_folder(spec.source)
    check_folder(spec)
    if not (folder or spec.source in timm.list_models() or spec.source in timm.list_pretrained()):
        raise UnknownEncoderError(
            f"{spec.modality} encoder {spec.source!r}: timm has no such model; "
            "`python -c 'import timm; print(timm.list_models())'` lists them; an encoder of a "
            "plugin needs its package installed"
        )
    channels = {"in_chans": 1} if spec.modality == "audio" else {}
    try:
        create = partial(
            timm.create_model,
            f"local-dir:{spec.source}" if folder else spec.source,
            pretrained=spec.weights == "pretrained",
            num_classes=0,
            **channels,
        )
        model = create_at_size(spec, create)
    except EncoderError:
        raise
    except Exception as error:  # architectures and hub clients raise whatever they like
        if spec.weights == "random" or isinstance(error, (AssertionError, TypeError)):
            raise EncoderError(
                f"{spec.modality} encoder {spec.source}: timm cannot build it with config "
                f"{dict(spec.config)} ({first_line(error)})"
            ) from error
        raise EncoderError(
            f"{spec.modality} encoder {spec.source}: no pretrained weights ({first_line(error)}); "
            f"{'give a folder that holds model.safetensors' if folder else FETCH}, or pass "
            "--weights random"
        ) from error
    if not hasattr(model, "forward_intermediates"):
        raise EncoderError(
            f"{spec.modality} encoder {spec.source}: timm gives it no intermediate features"
        )
    return model


def _from_config(spec: EncoderSpec) -> nn.Module:
    transformers = import_transformers()
    config = config_of(spec)
    try:  # a configuration may ask for half precision, which the fusion does not compute in
        model = transformers.AutoModel.from_config(
            config, dtype=torch.float32, trust_remote_code=False
        )
    except Exception as error:
        raise EncoderError(
            f"{spec.modality} encoder {spec.source}: transformers cannot build it "
            f"({first_line(error)})"
        ) from error
    if config.model_type == "mobilenet_v2":
        # transformers draws its convolutions so small that no signal passes an untrained BatchNorm
        # in evaluation mode: 1e-24 after the last layer, zero in half precision.
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return _encoder_of(spec, model)


def _load_transformers(spec: EncoderSpec) -> nn.Module:
    if spec.weights == "random":
        return _from_config(spec)
    config_of(spec)
    here = f"{spec.modality} encoder {spec.source}"
    try:
        model, report = from_pretrained(
            "AutoModel", spec.source, output_loading_info=True, dtype=torch.float32
        )
    except EncoderError:
        raise
    except OSError as error:
        raise EncoderError(
            f"{here}: no weights there ({first_line(error)}); "
            "give a folder that holds model.safetensors, or pass --weights random"
        ) from error
    except Exception as error:  # torn files and weights of other sizes
        raise EncoderError(
            f"{here}: its weights do not fit its config.json or cannot be read "
            f"({first_line(error)}); save the model again"
        ) from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(_UNREAD))
    if missing:
        raise EncoderError(
            f"{here}: {len(missing)} weights are missing, "
            f"{missing[0]} first; the file is not one of this architecture"
        )
    if report["missing_keys"]:
        model.pooler = None  # an untrained pooler is no pooler
    return _encoder_of(spec, model)


def _encoder_of(spec: EncoderSpec, model: Any) -> nn.Module:
    """The model, or that part of it which reads the sound or text where another one writes.

    Vision models are those for pictures of the size that is asked for.
    """
    if spec.modality == "vision":
        resize(spec, model)
    writes = spec.modality in ("audio", "text") and model.config.is_encoder_decoder
    return cast(nn.Module, model.get_encoder() if writes else model)


@lru_cache(maxsize=64)
def describe(spec: EncoderSpec) -> EncoderShape:
    """Depth, widths and limits of an encoder, found by running its shape alone.

    Only text encoders have their weights loaded, and large random ones do not: to see whether there
    is a pooler, whether the encoder is causal, and that its taps are hidden states.
    Raises EncoderError where the encoder cannot be had.
    """
    if spec.library == "plugin":
        return plugin_shape(spec)
    model = _without_weights(spec)
    return _text_shape(spec, model) if spec.modality == "text" else _map_shape(spec, model)


def _text_shape(spec: EncoderSpec, model: nn.Module) -> EncoderShape:
    here = f"text encoder {spec.source}"
    config = cast(Any, model).config
    for setting in ("hidden_size", "vocab_size"):
        if not hasattr(config, setting):
            raise EncoderError(
                f"{here}: {type(model).__name__} names no {setting}: choose a BERT-like encoder"
            )
    depth, longest = _depth(spec, model), _longest_text(spec, model)
    for found, least, what in (
        (depth, 1, "layers (num_hidden_layers)"),
        (longest, MIN_TEXT_TOKENS, "positions for tokens (max_position_embeddings)"),
        (config.vocab_size, MIN_VOCABULARY, "token ids (vocab_size)"),
    ):
        if found < least:
            raise EncoderError(
                f"{here}: it has {found} {what}, at least {least} are needed: choose another"
            )
    small = sum(weight.numel() for weight in model.parameters()) <= SMALL_WEIGHTS
    loaded = _load(spec) if small or spec.weights == "pretrained" else None
    with_pooler = model if spec.weights == "random" else loaded
    has_pooler = getattr(with_pooler, "pooler", None) is not None
    is_causal = loaded is not None and check_text_taps(spec, loaded)
    # Without weights it is not known; their training then finds it out.
    adapts = hasattr(model, "embeddings")
    return EncoderShape(
        spec.name,
        "text",
        (config.hidden_size,) * depth,
        max_tokens=longest,
        has_pooler=has_pooler,
        is_causal=is_causal,
        adapts=adapts if loaded is None else goes_on_from_taps(loaded, depth),
    )


def _map_shape(spec: EncoderSpec, model: nn.Module) -> EncoderShape:
    sound = spec.modality == "audio"
    side = 0 if sound else spec.image_size or image_size(spec, model)
    size = sound_input(spec).size if sound else (3, side, side)
    most_merged = most_merged_by(spec, model)
    try:
        trunk = cast(MapTrunk, cut(spec, model, _depth(spec, model)).eval())
        adapts = _hands_on_its_taps(trunk)
        with torch.no_grad():
            taps = list(trunk.taps(torch.zeros(1, *size, device="meta")))
        sides = tuple((grid.shape[2], grid.shape[3]) for grid, _ in taps)
    except EncoderError:
        raise
    except Exception as error:  # some models put out lists, or tokens without a place
        raise EncoderError(
            f"{spec.modality} encoder {spec.source}: its layers give no feature maps to tap "
            f"({first_line(error)}); {_way_out(size)}"
        ) from error
    return EncoderShape(
        spec.name,
        spec.modality,
        widths=tuple(grid.shape[1] for grid, _ in taps),
        sides=sides,
        has_class_token=not sound and all(token is not None for _, token in taps),
        image_size=side,
        sound_size=size if sound else (),
        adapts=adapts,
        most_merged=most_merged,
    )


def _hands_on_its_taps(trunk: nn.Module) -> bool:
    """Whether a layer reads what the tap before it gives, and nothing else."""
    if isinstance(trunk, ViTTrunk):  # others have tokens that are no tap's, as DeiT's second one
        return cast(Any, trunk.model).config.model_type in ("vit", "dinov2")
    return isinstance(trunk, MobileNetV2Trunk)


def _way_out(size: tuple[int, ...]) -> str:
    """What may make a trunk of pictures read a spectrum of these extents, or anything else."""
    if len(size) != 3 or size[0] != 1:
        return "choose another encoder"
    return (
        f"it is given {size[1]} bands by {size[2]} frames as a picture of one channel: say so in a "
        f"TOML file by img_size = [{size[1]}, {size[2]}] (timm) or num_channels = 1 "
        "(transformers) in its config, or choose another encoder"
    )


def _longest_text(spec: EncoderSpec, model: nn.Module) -> int:
    longest = getattr(cast(Any, model).config, "max_position_embeddings", None)
    if longest is None or longest < 1:  # XLNet says -1 for a text of any length
        raise EncoderError(
            f"text encoder {spec.source}: {type(model).__name__} names no longest text "
            "(max_position_embeddings): choose a BERT-like encoder"
        )
    for name, table in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(table, nn.Embedding):
            # RoBERTa's first padding_idx + 1 rows stand for no position.
            return int(longest) - (0 if table.padding_idx is None else table.padding_idx + 1)
    return int(longest)


def _without_weights(spec: EncoderSpec) -> nn.Module:
    with torch.device("meta"):
        return (
            _load_timm(replace(spec, weights="random"))
            if spec.library == "timm"
            else _from_config(spec)
        )


@lru_cache(maxsize=64)
def describe_vocabulary(spec: EncoderSpec) -> int:
    """How many token ids a text encoder knows."""
    if spec.library == "plugin":
        return plugin_encoder(str(spec.model_type)).vocabulary
    return int(config_of(spec).vocab_size)
