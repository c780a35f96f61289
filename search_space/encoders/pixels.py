"""Which pixels a vision encoder takes: the side of its pictures, and how they are normalised."""

import json
import math
from pathlib import Path
from typing import Any, cast

from torch import nn

from search_space.design.encoder import EncoderError, EncoderSpec, is_timm_folder
from search_space.encoders.libraries import import_timm, import_transformers
from search_space.encoders.plugins import plugin_encoder

_FILE = "preprocessor_config.json"
_NO_WISH = (0.5,) * 3
_LEAST_DEVIATION = 1e-6
"""Pixels lie in 0..1: dividing by less says nothing about them."""

Channels = tuple[float, ...]


def image_size(spec: EncoderSpec, model: nn.Module) -> int:
    """Side in pixels of the square image that a vision encoder was made for."""
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


def normalisation(spec: EncoderSpec) -> tuple[Channels, Channels]:
    """Mean and standard deviation, a channel, that pixels in 0..1 are normalised with.

    One number in the encoder's file stands for all three channels, as in transformers. Raises
    EncoderError where that file cannot be read or holds no such numbers.
    """
    if spec.library == "plugin":
        encoder = plugin_encoder(str(spec.model_type))
        return encoder.mean, encoder.std
    if spec.library == "timm":
        if spec.weights != "pretrained":
            return _NO_WISH, _NO_WISH
        if is_timm_folder(spec.source):
            settings = _timm_settings(spec)
            mean, std = (_channels(spec, settings, key) for key in ("mean", "std"))
            if min(std) < _LEAST_DEVIATION:
                raise _refused(spec, "std", settings["std"])
            return mean, std
        cfg = import_timm().models.get_pretrained_cfg(spec.source)
        return (_NO_WISH, _NO_WISH) if cfg is None else (tuple(cfg.mean), tuple(cfg.std))
    settings = _settings(spec)
    mean, std = (_channels(spec, settings, key) for key in ("image_mean", "image_std"))
    if min(std) < _LEAST_DEVIATION:
        raise _refused(spec, "image_std", settings["image_std"])
    return mean, std


def _timm_settings(spec: EncoderSpec) -> dict[str, Any]:
    """What a downloaded folder of timm says of the pixels that its weights were trained on."""
    config = json.loads(Path(spec.source, "config.json").read_text(encoding="utf-8"))
    settings = config.get("pretrained_cfg", config)
    return settings if isinstance(settings, dict) else {}


def _settings(spec: EncoderSpec) -> dict[str, Any]:
    file = _file_of(spec)
    if file is None:
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise EncoderError(
            f"vision encoder {spec.source}: no usable {_FILE} there ({said}); correct or remove it"
        ) from error
    if not isinstance(settings, dict):
        raise EncoderError(
            f"vision encoder {spec.source}: no usable {_FILE} there (it holds no settings); "
            "correct or remove it"
        )
    return settings


def _file_of(spec: EncoderSpec) -> Path | None:
    """The file in the encoder's folder or, for pretrained weights, in the hub's cache."""
    if spec.weights == "random" and not Path(spec.source).is_dir():
        return None
    try:
        found = import_transformers().utils.cached_file(spec.source, _FILE, local_files_only=True)
    except OSError:
        return None
    return None if found is None else Path(found)


def _channels(spec: EncoderSpec, settings: dict[str, Any], key: str) -> Channels:
    said = settings.get(key, list(_NO_WISH))
    values = said if isinstance(said, list) else [said] * 3
    numbers = all(type(v) in (int, float) and math.isfinite(v) for v in values)
    if len(values) != 3 or not numbers:
        raise _refused(spec, key, said)
    return tuple(float(v) for v in values)


def _refused(spec: EncoderSpec, key: str, said: Any) -> EncoderError:
    above = " above 0" if key.endswith("std") else ""
    file = "config.json" if spec.library == "timm" else _FILE
    return EncoderError(
        f"vision encoder {spec.source}: {key} = {said!r} in its {file}: give one number{above}, "
        "or three, one a channel"
    )
