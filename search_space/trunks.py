"""Trunks: encoders cut at their deepest tap, giving the features that a fusion reads.

Taps count layers from 1. Tap k below the depth is what layer k puts out; the last tap is the
encoder's own output, so with its final norm (ViT) or final convolution (MobileNetV2).
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_space.encoders import EncoderError, EncoderShape, EncoderSpec, UnknownEncoderError
from search_space.features import Feature, token_kernel
from search_space.libraries import import_timm, import_transformers

Features = Mapping[Feature, Tensor]


class TextTrunk(nn.Module):
    """A BERT-like encoder of transformers up to its deepest tap."""

    def __init__(self, model: nn.Module, depth: int) -> None:
        super().__init__()
        self.full_depth = len(_layers(model)[2])
        self.depth = depth
        layers = _keep_layers(model, depth)
        self.pooler = getattr(model, "pooler", None) if depth == self.full_depth else None
        if hasattr(model, "pooler"):
            cast(Any, model).pooler = None
        self.model = model
        self._outputs: list[Tensor] = []
        for layer in layers:
            layer.register_forward_hook(self._keep)

    def _keep(self, _layer: nn.Module, _inputs: Any, output: Any) -> None:
        self._outputs.append(output if isinstance(output, Tensor) else output[0])

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, wanted: tuple[Feature, ...]
    ) -> dict[Feature, Tensor]:
        """Features of token ids (B, L) under a mask (B, L), 1 for real tokens."""
        self._outputs = []
        last = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        states, self._outputs = self._outputs, []
        if self.depth == self.full_depth:
            states[-1] = last
        return {f: self._form(f, states[f.tap - 1], attention_mask) for f in wanted}

    def _form(self, feature: Feature, states: Tensor, mask: Tensor) -> Tensor:
        if feature.form == "tokens":
            return states
        if feature.form == "pooler":
            if self.pooler is None:
                raise ValueError("this text encoder has no pooler at this tap")
            return cast(Tensor, self.pooler(states))
        return pool_text(states, mask, feature.form)


def pool_text(states: Tensor, mask: Tensor, form: str) -> Tensor:
    """(B, L, C) under a mask (B, L) to (B, C): the first token, or the mean of real tokens."""
    if form == "mean":
        weight = mask.to(states.dtype).unsqueeze(-1)
        return (states * weight).sum(1) / weight.sum(1).clamp(min=1)
    return states[:, 0]


class VisionTrunk(nn.Module):
    """What the three kinds of vision trunk share: from feature map and class token to features."""

    def taps(self, pixel_values: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Feature map (B, C, H, W) and class token (B, C), if any, of each tap in order."""
        raise NotImplementedError

    def forward(self, pixel_values: Tensor, wanted: tuple[Feature, ...]) -> dict[Feature, Tensor]:
        """Features of images (B, 3, S, S), normalised as the encoder wants them."""
        made = {
            f: _vision_form(f.form, grid, class_token)
            for tap, (grid, class_token) in enumerate(self.taps(pixel_values), start=1)
            for f in wanted
            if f.tap == tap
        }
        return {f: made[f] for f in wanted}


def _vision_form(form: str, grid: Tensor, class_token: Tensor | None) -> Tensor:
    if form == "grid":
        return grid
    if form == "mean":
        return grid.mean((2, 3))
    if form == "max":
        return grid.amax((2, 3))
    if form == "cls":
        if class_token is None:
            raise ValueError("this vision encoder has no class token")
        return class_token
    kernel = token_kernel(grid.shape[2], grid.shape[3])
    if kernel > 1:
        grid = F.avg_pool2d(grid, kernel, ceil_mode=True, count_include_pad=False)
    tokens = grid.flatten(2).transpose(1, 2)
    return tokens if class_token is None else torch.cat([class_token.unsqueeze(1), tokens], 1)


class MobileNetV2Trunk(VisionTrunk):
    """transformers' MobileNetV2: one tap a bottleneck, the last with the final convolution."""

    def __init__(self, model: nn.Module, depth: int) -> None:
        super().__init__()
        self.conv_stem = model.conv_stem
        layers = cast(nn.ModuleList, model.layer)
        self.layer = layers[:depth]
        self.conv_1x1 = cast(nn.Module, model.conv_1x1) if depth == len(layers) else None
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                # Its configuration's .997 is TensorFlow's share of the past; torch counts the new.
                module.momentum = 0.1

    def taps(self, pixel_values: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        states = cast(nn.Module, self.conv_stem)(pixel_values)
        for k, layer in enumerate(self.layer, start=1):
            states = layer(states)
            if self.conv_1x1 is not None and k == len(self.layer):
                states = self.conv_1x1(states)
            yield states, None


class ViTTrunk(VisionTrunk):
    """A ViT-like encoder of transformers: class token first, if any, then a square of patches."""

    def __init__(self, model: nn.Module, depth: int) -> None:
        super().__init__()
        self.full_depth = len(_layers(model)[2])
        self.depth = depth
        layers = _keep_layers(model, depth)
        if depth < self.full_depth:
            cast(Any, model).layernorm = nn.Identity()
        cast(Any, model).pooler = None
        config = cast(Any, model).config
        if not hasattr(config, "patch_size"):
            raise EncoderError(
                f"{type(model).__name__} is no ViT-like encoder: choose MobileNetV2, a ViT-like "
                "encoder or timm"
            )
        self.side = config.image_size // config.patch_size
        self.model = model
        self._outputs: list[Tensor] = []
        for layer in layers:
            layer.register_forward_hook(self._keep)

    def _keep(self, _layer: nn.Module, _inputs: Any, output: Any) -> None:
        self._outputs.append(output if isinstance(output, Tensor) else output[0])

    def taps(self, pixel_values: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        self._outputs = []
        last = self.model(pixel_values=pixel_values).last_hidden_state
        states, self._outputs = self._outputs, []
        if self.depth == self.full_depth:
            states[-1] = last
        count = self.side * self.side
        for tokens in states:
            class_token = tokens[:, 0] if tokens.shape[1] > count else None
            yield _as_grid(tokens[:, -count:], self.side, self.side), class_token


class TimmTrunk(VisionTrunk):
    """Any timm model with `forward_intermediates`: one tap an intermediate feature."""

    def __init__(self, model: nn.Module, depth: int) -> None:
        super().__init__()
        timm_model = cast(Any, model)
        self.indices = list(range(depth))
        self.whole = depth == timm_depth(model)
        self.prefix_tokens = int(getattr(model, "num_prefix_tokens", 0) or 0)
        parameters = inspect.signature(timm_model.forward_intermediates).parameters
        self.gives_prefix = self.prefix_tokens > 0 and "return_prefix_tokens" in parameters
        self.has_class_token = self.gives_prefix and self.prefix_tokens > _registers(model)
        self.channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        # EfficientNet's final convolution is pruned with the head, though it makes the output.
        widened = timm_model.num_features != timm_model.feature_info[-1]["num_chs"]
        timm_model.prune_intermediate_layers(
            self.indices, prune_norm=not self.whole, prune_head=not (self.whole and widened)
        )
        self.model = model

    def taps(self, pixel_values: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        options: dict[str, Any] = {"return_prefix_tokens": True} if self.gives_prefix else {}
        result = cast(Any, self.model).forward_intermediates(
            pixel_values,
            indices=self.indices,
            output_fmt="NCHW",
            stop_early=not self.whole,
            intermediates_only=not self.whole,
            **options,
        )
        final, states = result if self.whole else (None, result)
        for k, state in enumerate(states, start=1):
            grid, prefix = state if self.gives_prefix else (state, None)
            if final is not None and k == len(states):
                grid, prefix = self._final(final, grid)
            yield grid, (prefix[:, 0] if prefix is not None and self.has_class_token else None)

    def _final(self, output: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's own output as feature map and prefix tokens."""
        if output.ndim == 4:
            return (output.permute(0, 3, 1, 2) if self.channels_last else output), output[:, :0]
        height, width = grid.shape[2], grid.shape[3]
        prefix, patches = output[:, : -height * width], output[:, -height * width :]
        return _as_grid(patches, height, width), prefix


def _as_grid(patches: Tensor, height: int, width: int) -> Tensor:
    """(B, H W, C) to (B, C, H, W)."""
    return patches.transpose(1, 2).reshape(-1, patches.shape[2], height, width)


def _registers(model: nn.Module) -> int:
    """How many of a timm model's prefix tokens are registers, which stand after the class token."""
    if hasattr(model, "num_reg_tokens"):
        return int(cast(Any, model).num_reg_tokens)
    table = getattr(model, "reg_token", None)
    return 0 if table is None else int(table.shape[1])


def timm_depth(model: nn.Module) -> int:
    """How many intermediate features a timm model offers."""
    return len(cast(Any, model).feature_info)


def _layers(model: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """The list of a whole model's layers with its parent and name. Raises EncoderError."""
    count = getattr(cast(Any, model).config, "num_hidden_layers", None)
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return parent, name, child
    raise EncoderError(
        f"{type(model).__name__} keeps no list of {count} layers (shared layers, as in ALBERT, "
        "cannot be tapped): choose a BERT-like text encoder, or MobileNetV2, a ViT-like encoder "
        "or timm for vision"
    )


def _keep_layers(model: nn.Module, depth: int) -> nn.ModuleList:
    """Drops all transformer layers after the first `depth` and gives those back."""
    parent, name, layers = _layers(model)
    kept = layers[:depth]
    setattr(parent, name, kept)
    return kept


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
    return len(_layers(model)[2])


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
            f"{here}: neither a folder nor in the hub's cache ({_first_line(error)}); "
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
