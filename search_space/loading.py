"""Encoders by name: their networks, weights, shapes and preprocessing, from folder, hub or timm."""

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from search_space.encoders import EncoderError, EncoderShape, EncoderSpec, UnknownEncoderError
from search_space.libraries import import_timm, import_transformers
from search_space.trunks import (
    MobileNetV2Trunk,
    TextTrunk,
    TimmTrunk,
    VisionTrunk,
    ViTTrunk,
    layers_of,
    timm_depth,
)


def load_trunk(spec: EncoderSpec, depth: int, seed: int = 0) -> nn.Module:
    """The encoder cut after `depth` layers, in evaluation mode.

    Random weights are drawn from `seed`, the same for every depth. Raises EncoderError where
    configuration or weights cannot be had, or where the encoder has no such tap.
    """
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        model = _load_timm(spec) if spec.library == "timm" else _load_transformers(spec)
    finally:
        torch.random.set_rng_state(state)
    return cut(spec, model, depth).eval()


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
    if spec.library == "timm":
        return TimmTrunk(model, depth)
    if spec.modality == "text":
        return TextTrunk(model, depth)
    if cast(Any, model).config.model_type == "mobilenet_v2":
        return MobileNetV2Trunk(model, depth)
    return ViTTrunk(model, depth)


def _load_timm(spec: EncoderSpec) -> nn.Module:
    if spec.modality != "vision":
        raise EncoderError(
            f"{spec.modality} encoder {spec.source!r}: timm has vision encoders only"
        )
    timm = import_timm()
    if spec.source not in timm.list_models() and spec.source not in timm.list_pretrained():
        raise UnknownEncoderError(
            f"vision encoder {spec.source!r}: timm has no such model; "
            "`python -c 'import timm; print(timm.list_models())'` lists them"
        )
    try:
        model = timm.create_model(
            spec.source, pretrained=spec.weights == "pretrained", num_classes=0, **spec.config
        )
    except Exception as error:  # architectures and hub clients raise whatever they like
        if spec.weights == "random" or isinstance(error, (AssertionError, TypeError)):
            raise EncoderError(
                f"vision encoder {spec.source}: timm cannot build it with config "
                f"{dict(spec.config)} ({_first_line(error)})"
            ) from error
        raise EncoderError(
            f"vision encoder {spec.source}: no pretrained weights ({_first_line(error)}); fetch "
            "them into the hub's cache on a machine with a network, or pass --weights random"
        ) from error
    if not hasattr(model, "forward_intermediates"):
        raise EncoderError(f"vision encoder {spec.source}: timm gives it no intermediate features")
    return cast(nn.Module, model)


def _config(spec: EncoderSpec) -> Any:
    transformers = import_transformers()
    here = f"{spec.modality} encoder {spec.source}"
    if spec.model_type is not None and not (
        spec.weights == "pretrained" or Path(spec.source).is_dir()
    ):
        try:
            known = transformers.AutoConfig.for_model(spec.model_type)
        except ValueError as error:
            raise EncoderError(
                f"{here}: transformers knows no model_type {spec.model_type!r}"
            ) from error
        unknown = [key for key in spec.config if not hasattr(known, key)]
        if unknown:
            raise EncoderError(f"{here}: {', '.join(unknown)}: no setting of {spec.model_type}")
        try:
            return transformers.AutoConfig.for_model(spec.model_type, **spec.config)
        except Exception as error:  # each configuration checks itself in its own way
            raise EncoderError(f"{here}: {' '.join(str(error).split())}") from error
    try:
        return transformers.AutoConfig.from_pretrained(spec.source, local_files_only=True)
    except Exception as error:
        if Path(spec.source).is_dir():
            raise EncoderError(
                f"{here}: no usable config.json there ({_first_line(error)}); "
                "give the folder that save_pretrained wrote"
            ) from error
        raise EncoderError(
            f"{here}: neither a folder nor in the hub's cache; "
            f"run `hf download {spec.source}` or give a local folder"
        ) from error


def _from_config(spec: EncoderSpec) -> nn.Module:
    transformers = import_transformers()
    config = _config(spec)
    try:  # a configuration may ask for half precision, which the fusion does not compute in
        model = transformers.AutoModel.from_config(config, dtype=torch.float32)
    except Exception as error:
        raise EncoderError(
            f"{spec.modality} encoder {spec.source}: transformers cannot build it "
            f"({_first_line(error)})"
        ) from error
    if config.model_type == "mobilenet_v2":
        # transformers draws its convolutions so small that no signal passes an untrained BatchNorm
        # in evaluation mode: 1e-24 after the last layer, zero in half precision.
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return cast(nn.Module, model)


def _load_transformers(spec: EncoderSpec) -> nn.Module:
    if spec.weights == "random":
        return _from_config(spec)
    _config(spec)
    here = f"{spec.modality} encoder {spec.source}"
    try:
        model, report = import_transformers().AutoModel.from_pretrained(
            spec.source, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except OSError as error:
        raise EncoderError(
            f"{here}: no weights there ({_first_line(error)}); "
            "give a folder that holds model.safetensors, or pass --weights random"
        ) from error
    except Exception as error:  # torn files and weights of other sizes
        raise EncoderError(
            f"{here}: its weights do not fit its config.json or cannot be read "
            f"({_first_line(error)}); save the model anew"
        ) from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise EncoderError(
            f"{here}: {len(missing)} weights are missing, "
            f"{missing[0]} first; the file is not one of this architecture"
        )
    if report["missing_keys"]:
        model.pooler = None  # an untrained pooler is no pooler
    return cast(nn.Module, model)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@lru_cache(maxsize=64)
def describe(spec: EncoderSpec) -> EncoderShape:
    """Depth, widths and limits of an encoder, found by running its shape alone (no weights).

    Raises EncoderError where the encoder cannot be had.
    """
    model = _without_weights(spec)
    if spec.modality == "text":
        config = cast(Any, model).config
        return EncoderShape(
            spec.name,
            "text",
            (config.hidden_size,) * _depth(spec, model),
            max_tokens=_longest_text(spec, model),
            has_pooler=_has_pooler(spec, model),
        )
    size = image_size(spec, model)
    try:
        trunk = cast(VisionTrunk, cut(spec, model, _depth(spec, model)).eval())
        with torch.no_grad():
            taps = list(trunk.taps(torch.zeros(1, 3, size, size, device="meta")))
        sides = tuple((grid.shape[2], grid.shape[3]) for grid, _ in taps)
    except EncoderError:
        raise
    except Exception as error:  # some models put out lists, or tokens without a place
        raise EncoderError(
            f"vision encoder {spec.source}: its layers give no feature maps to tap "
            f"({_first_line(error)}); choose another encoder"
        ) from error
    return EncoderShape(
        spec.name,
        "vision",
        widths=tuple(grid.shape[1] for grid, _ in taps),
        sides=sides,
        has_class_token=all(token is not None for _, token in taps),
        image_size=size,
    )


def _longest_text(spec: EncoderSpec, model: nn.Module) -> int:
    longest = getattr(cast(Any, model).config, "max_position_embeddings", None)
    if longest is None:
        raise EncoderError(
            f"text encoder {spec.source}: {type(model).__name__} names no longest text "
            "(max_position_embeddings): choose a BERT-like encoder"
        )
    for name, table in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(table, nn.Embedding):
            # RoBERTa's first padding_idx + 1 rows stand for no position.
            return int(longest) - (0 if table.padding_idx is None else table.padding_idx + 1)
    return int(longest)


def _file_of(spec: EncoderSpec, name: str) -> Path | None:
    """A file of the encoder's folder or, for pretrained weights, of the hub's cache."""
    if spec.weights == "random" and not Path(spec.source).is_dir():
        return None
    try:
        found = import_transformers().utils.cached_file(spec.source, name, local_files_only=True)
    except OSError:
        return None
    return None if found is None else Path(found)


def _has_pooler(spec: EncoderSpec, model: nn.Module) -> bool:
    if getattr(model, "pooler", None) is None:
        return False
    weights = None if spec.weights == "random" else _file_of(spec, "model.safetensors")
    if weights is None:
        return True
    from safetensors import safe_open

    with safe_open(str(weights), "pt") as file:
        return any("pooler." in key for key in file.keys())  # noqa: SIM118  (not a dict)


def _without_weights(spec: EncoderSpec) -> nn.Module:
    with torch.device("meta"):
        return (
            _load_timm(replace(spec, weights="random"))
            if spec.library == "timm"
            else _from_config(spec)
        )


def image_size(spec: EncoderSpec, model: nn.Module) -> int:
    """Side in pixels of the square image that a vision encoder takes."""
    if spec.library == "timm":
        size = spec.config.get("img_size") or cast(Any, model).default_cfg["input_size"][-1]
    else:
        size = getattr(cast(Any, model).config, "image_size", None)
    if size is None:
        raise EncoderError(
            f"vision encoder {spec.source}: {type(model).__name__} names no image size: choose "
            "MobileNetV2, a ViT-like encoder or timm"
        )
    return int(size[0] if isinstance(size, (tuple, list)) else size)


def normalisation(spec: EncoderSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, a channel, that pixels in 0..1 are normalised with."""
    if spec.library == "timm":
        cfg = import_timm().models.get_pretrained_cfg(spec.source)
        if cfg is not None and spec.weights == "pretrained":
            return tuple(cfg.mean), tuple(cfg.std)
        return (0.5,) * 3, (0.5,) * 3
    file = _file_of(spec, "preprocessor_config.json")
    settings = {} if file is None else json.loads(file.read_text(encoding="utf-8"))
    mean, std = settings.get("image_mean", (0.5,) * 3), settings.get("image_std", (0.5,) * 3)
    return tuple(mean), tuple(std)


@lru_cache(maxsize=64)
def describe_vocabulary(spec: EncoderSpec) -> int:
    """How many token ids a text encoder knows."""
    return int(_config(spec).vocab_size)
