"""Trunks: encoders cut at their deepest tap, giving the features that a fusion reads.

Taps count layers from 1. Tap k below the depth is what layer k puts out; the last tap is the
encoder's own output, so with its final norm (ViT) or final convolution (MobileNetV2).

Trunks of which the last layers are adapted (`AdaptableTrunk`) can be run from a tap on: given its
features instead of texts or pictures, they compute the taps after it.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_space.design.encoder import EncoderError, token_kernel
from search_space.encoders.features import Feature

Features = Mapping[Feature, Tensor]


@runtime_checkable
class AdaptableTrunk(Protocol):
    """A trunk that can be run from one of its taps on."""

    def last_layers(self, start: int) -> list[nn.Module]:
        """The layers from `start` on, and what is run after them before the last tap.

        `start` is counted from 1 in the whole trunk.
        """

    def go_on_from(self, tap: int) -> None:
        """Drop the layers up to this tap; from now on `forward` is given its states.

        Those of a text (B, L, C) instead of ids; the map (B, C, H, W) instead of pixels, or the
        tokens (B, S, C) that a ViT's layers hand on.
        """


class LayerOutputs:
    """What each layer of a transformer puts out, of which all after the first `depth` are dropped.

    Raises EncoderError for a model that keeps no list of its layers.
    """

    def __init__(self, model: nn.Module, depth: int) -> None:
        self.parent, self._name, layers = layers_of(model)
        self.full_depth, self._is_whole = len(layers), depth == len(layers)
        self.kept: list[Tensor] = []
        self.first = 1
        self._given: GivenStates | None = None
        setattr(self.parent, self._name, layers[:depth])
        for layer in layers[:depth]:
            layer.register_forward_hook(self._keep)

    def _keep(self, _layer: nn.Module, _inputs: Any, output: Any) -> None:
        self.kept.append(output if isinstance(output, Tensor) else output[0])

    def since(self, start: int) -> list[nn.Module]:
        """The layers that are left from `start` on, counted from 1 in the whole model."""
        layers = cast(nn.ModuleList, getattr(self.parent, self._name))
        return list(layers[start - self.first :])

    def go_on_from(self, model: nn.Module, tap: int) -> None:
        """Drop the layers up to a tap and the embeddings, whose place `give` fills."""
        setattr(self.parent, self._name, nn.ModuleList(self.since(tap + 1)))
        self.first, self._given = tap + 1, GivenStates(cast(Any, model).embeddings)
        cast(Any, model).embeddings = self._given

    def give(self, states: Tensor) -> bool:
        """States (B, S, C) to go on from in the next run; False where it starts at the inputs."""
        if self._given is not None:
            self._given.states = states
        return self._given is not None

    def of(self, run: Callable[[], Any]) -> list[Tensor]:
        """By layer, in a run of the model; the last of all is as the whole model gives it."""
        self.kept = []
        last = run().last_hidden_state
        states, self.kept = self.kept, []
        if self._is_whole:
            states[-1] = last
        return states


class GivenStates(nn.Module):
    """Replaces a transformer's embeddings and returns given states."""

    def __init__(self, embeddings: nn.Module) -> None:
        super().__init__()
        self.states: Tensor | None = None
        if hasattr(embeddings, "patch_embeddings"):  # a ViT looks up the type of its weights
            self.patch_embeddings = embeddings.patch_embeddings

    def forward(self, *_inputs: Any, **_named: Any) -> Tensor:
        """The states, whatever is to be embedded."""
        assert self.states is not None
        return self.states


class TextTrunk(nn.Module):
    """A BERT-like encoder of transformers up to its deepest tap."""

    def __init__(self, model: nn.Module, depth: int) -> None:
        super().__init__()
        self.layers = LayerOutputs(model, depth)
        self.full_depth, self.depth = self.layers.full_depth, depth
        self.pooler = getattr(model, "pooler", None) if depth == self.full_depth else None
        if hasattr(model, "pooler"):
            cast(Any, model).pooler = None
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, wanted: tuple[Feature, ...]
    ) -> dict[Feature, Tensor]:
        """Features of token ids (B, L) under a mask (B, L), 1 for real tokens."""
        if self.layers.give(input_ids):
            input_ids = attention_mask  # nothing reads them but for their size
        states = self.layers.of(
            lambda: self.model(input_ids=input_ids, attention_mask=attention_mask)
        )
        first = self.layers.first
        return {f: self._form(f, states[f.tap - first], attention_mask) for f in wanted}

    def last_layers(self, start: int) -> list[nn.Module]:
        """As `AdaptableTrunk` has it; the pooler is not adapted."""
        return self.layers.since(start)

    def go_on_from(self, tap: int) -> None:
        """As `AdaptableTrunk` has it."""
        self.layers.go_on_from(self.model, tap)

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


class MapTrunk(nn.Module, ABC):
    """What trunks of pictures and sounds share: from feature map and class token to features."""

    first = 1
    """The first tap that is computed."""

    @abstractmethod
    def taps(self, values: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Feature map (B, C, H, W) and class token (B, C), if any, of each tap in order."""
        ...

    def forward(self, values: Tensor, wanted: tuple[Feature, ...]) -> dict[Feature, Tensor]:
        """Features of images (B, 3, S, S) or sounds, normalised as the encoder wants them."""
        made = {
            f: map_form(f, grid, class_token)
            for tap, (grid, class_token) in enumerate(self.taps(values), start=self.first)
            for f in wanted
            if f.tap == tap
        }
        return {f: made[f] for f in wanted}


def map_form(feature: Feature, grid: Tensor, class_token: Tensor | None) -> Tensor:
    """A feature of a map (B, C, H, W) and a class token (B, C), if there is one."""
    form = feature.form
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
    # Plain numbers: a trace would make the extents part of the graph.
    kernel = token_kernel(feature.modality, int(grid.shape[2]), int(grid.shape[3]))
    if max(kernel) > 1:
        grid = F.avg_pool2d(grid, kernel, ceil_mode=True, count_include_pad=False)
    tokens = grid.flatten(2).transpose(1, 2)
    if class_token is None or feature.modality == "audio":  # of which no fusion reads one
        return tokens
    return torch.cat([class_token.unsqueeze(1), tokens], 1)


class MobileNetV2Trunk(MapTrunk):
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

    def taps(self, values: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        states = cast(nn.Module, self.conv_stem)(values) if self.first == 1 else values
        for k, layer in enumerate(self.layer, start=1):
            states = layer(states)
            if self.conv_1x1 is not None and k == len(self.layer):
                states = self.conv_1x1(states)
            yield states, None

    def last_layers(self, start: int) -> list[nn.Module]:
        """As `AdaptableTrunk` has it, with the final convolution."""
        layers = list(self.layer[start - self.first :])
        return layers if self.conv_1x1 is None else [*layers, self.conv_1x1]

    def go_on_from(self, tap: int) -> None:
        """As `AdaptableTrunk` has it."""
        self.layer, self.first = self.layer[tap + 1 - self.first :], tap + 1


class ViTTrunk(MapTrunk):
    """A ViT-like encoder of transformers: class token first, if any, then a square of patches."""

    def __init__(self, model: nn.Module, depth: int) -> None:
        super().__init__()
        self.layers = LayerOutputs(model, depth)
        self.full_depth, self.depth = self.layers.full_depth, depth
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

    def taps(self, values: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        self.layers.give(values)
        states = self.layers.of(lambda: self.model(pixel_values=values))
        count = self.side * self.side
        for tokens in states:
            class_token = tokens[:, 0] if tokens.shape[1] > count else None
            yield as_grid(tokens[:, -count:], self.side, self.side), class_token

    def last_layers(self, start: int) -> list[nn.Module]:
        """As `AdaptableTrunk` has it; the final norm stays as it is."""
        return self.layers.since(start)

    def go_on_from(self, tap: int) -> None:
        """As `AdaptableTrunk` has it."""
        self.layers.go_on_from(self.model, tap)
        self.first = tap + 1


class SoundTrunk(MapTrunk):
    """An audio encoder of transformers: its vectors over time as a map of one band.

    The spectrogram transformer (AST) gives a true map: bands by time, after two prefix tokens.
    Sounds have one length and end in silence, which no mask leaves out.
    """

    def __init__(self, model: nn.Module, depth: int) -> None:
        super().__init__()
        self.layers = LayerOutputs(model, depth)
        self.full_depth, self.depth = self.layers.full_depth, depth
        if depth < self.full_depth:
            _drop_final_norm(model, self.layers.parent)
        # Parts that training leaves out at random would make it another network every time.
        cast(Any, model).config.apply_spec_augment = False
        for unread in ("masked_spec_embed", "adapter"):  # what follows the encoder is no tap
            if hasattr(model, unread):
                setattr(model, unread, None)
        for module in (model.config, *model.modules()):
            if hasattr(module, "layerdrop"):
                module.layerdrop = 0.0
        self.model, self.sides = model, _spectrogram_sides(model)

    def taps(self, values: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        for tokens in self.layers.of(lambda: self.model(values)):
            height, width = self.sides or (1, tokens.shape[1])
            yield as_grid(tokens[:, -height * width :], height, width), None


_NORM_LAST = ("whisper", "moonshine", "wav2vec2-conformer")


def _drop_final_norm(model: nn.Module, parent: nn.Module) -> None:
    """Takes the norm after the last layer from an encoder; some have one before the first.

    parent: what holds the layers, and may hold that norm.
    """
    config = cast(Any, model).config
    if hasattr(model, "layernorm"):
        cast(Any, model).layernorm = nn.Identity()
    elif config.model_type in _NORM_LAST or getattr(config, "do_stable_layer_norm", False):
        cast(Any, parent).layer_norm = nn.Identity()


def _spectrogram_sides(model: nn.Module) -> tuple[int, int] | None:
    """(bands, time steps) of the patches that a spectrogram transformer reads; None for others."""
    config = cast(Any, model).config
    if config.model_type != "audio-spectrogram-transformer":
        return None
    return (
        (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1,
        (config.max_length - config.patch_size) // config.time_stride + 1,
    )


class TimmTrunk(MapTrunk):
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

    def taps(self, values: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        options: dict[str, Any] = {"return_prefix_tokens": True} if self.gives_prefix else {}
        result = cast(Any, self.model).forward_intermediates(
            values,
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
        return as_grid(patches, height, width), prefix


class PluginTextTrunk(nn.Module):
    """A text encoder of a plugin, which gives the states of its taps (B, L, C)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, wanted: tuple[Feature, ...]
    ) -> dict[Feature, Tensor]:
        """Features of token ids (B, L) under a mask (B, L), 1 for real tokens."""
        states = self.model(input_ids, attention_mask)
        return {
            f: states[f.tap - 1]
            if f.form == "tokens"
            else pool_text(states[f.tap - 1], attention_mask, f.form)
            for f in wanted
        }


class PluginMapTrunk(MapTrunk):
    """A vision or audio encoder of a plugin, which gives a map and a class token of each tap."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def taps(self, values: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        yield from self.model(values)


def as_grid(patches: Tensor, height: int, width: int) -> Tensor:
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


def layers_of(model: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """The list of a whole model's layers with its parent and name. Raises EncoderError."""
    count = getattr(cast(Any, model).config, "num_hidden_layers", None)
    for path, parent in model.named_modules():
        for name, child in parent.named_children():
            # Those of a waveform, or after the encoder, may be as many.
            beside = any(word in f"{path}.{name}" for word in ("conv", "adapter"))
            if isinstance(child, nn.ModuleList) and len(child) == count and not beside:
                return parent, name, child
    raise EncoderError(
        f"{type(model).__name__} keeps no list of {count} layers (shared layers, as in ALBERT, "
        "cannot be tapped): choose a BERT-like text encoder, or MobileNetV2, a ViT-like encoder "
        "or timm for vision"
    )
