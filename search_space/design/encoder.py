"""What an encoder is and what it can give: its source, its layers and their shapes.

Values only; the networks themselves are built in `trunks`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from search_space.errors import ENCODER, USAGE, FusionNasError
from search_space.modality import Modality

Library = Literal["transformers", "timm", "plugin"]
Weights = Literal["pretrained", "random"]

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 32, 1024
"""Pixels a side of the pictures that a vision encoder may be asked to read."""
MAX_VISION_TOKENS_SIDE = 7
"""A picture's feature map is average-pooled to at most 7x7 tokens before it meets the others."""
MAX_AUDIO_TOKENS = 49
"""A sound's is averaged over its bands, and over time to at most so many tokens."""
SOUND_HZ = 16_000
"""Samples a second of every sound that is read."""
SOUND_SECONDS, MAX_SECONDS = 10, 60
"""What an audio encoder reads of a sound where nothing else is asked for, and at most."""


class EncoderError(FusionNasError):
    """An encoder or its weights cannot be had; the text names it and the way out."""

    exit_code = ENCODER


class UnknownEncoderError(EncoderError):
    """There is no encoder of this name, or no such folder."""

    exit_code = USAGE


@dataclass(frozen=True)
class EncoderSpec:
    """Which network to load as a trunk.

    `source` is a hub id, a timm model name or a local folder. `config` holds settings that stand
    in for a configuration file (transformers) or are given to `timm.create_model`; with it,
    random weights need neither folder nor hub. `model_type` names the architecture for such a
    configuration, as transformers does ("bert", "mobilenet_v2", "vit"); for an encoder of a plugin
    it is the plugin's name, and `source` its folder of weights, if any. `seconds` of a sound are
    read by an audio encoder: what is longer is cut, what is shorter ends in silence. Pictures are
    read at `image_size` pixels a side by a vision encoder; 0 stands for the size that it was made
    for. In every layer of a ViT `merging` pairs of similar tokens are merged; 0 for none.
    """

    name: str
    modality: Modality
    library: Library
    source: str
    weights: Weights = "pretrained"
    model_type: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    seconds: int = SOUND_SECONDS
    image_size: int = 0
    merging: int = 0

    @property
    def base(self) -> str:
        """The encoder's name without the size of its pictures and what it merges."""
        return self.name.removesuffix(_variant(self.image_size, self.merging))

    def at(self, image_size: int) -> "EncoderSpec":
        """Return the same vision encoder on pictures of so many pixels a side."""
        name = self.base + _variant(image_size, self.merging)
        return replace(self, name=name, image_size=image_size)

    def with_merging(self, pairs: int) -> "EncoderSpec":
        """Return the same vision encoder that merges so many pairs of tokens in a layer."""
        name = self.base + _variant(self.image_size, pairs)
        return replace(self, name=name, merging=pairs)

    def as_json(self) -> dict[str, Any]:
        """The encoder as plain JSON values; `from_json` is its inverse."""
        return {
            "name": self.name,
            "modality": self.modality,
            "library": self.library,
            "source": self.source,
            "weights": self.weights,
            "model_type": self.model_type,
            "config": dict(self.config),
            **({"seconds": self.seconds} if self.modality == "audio" else {}),
            **({"image_size": self.image_size} if self.image_size else {}),
            **({"merging": self.merging} if self.merging else {}),
        }

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> "EncoderSpec":
        """The encoder that `as_json` wrote. Raises TypeError for unknown fields."""
        return EncoderSpec(**fields)

    def __hash__(self) -> int:
        return hash(json.dumps(self.as_json(), sort_keys=True))


def _variant(image_size: int, merging: int) -> str:
    """What a name ends in where an encoder is not as it was made."""
    return (f"-{image_size}px" if image_size else "") + (f"-merge{merging}" if merging else "")


@dataclass(frozen=True)
class EncoderShape:
    """What the layers of an encoder give, index 0 being tap 1.

    widths: features per token or per cell of the feature map, one figure a tap.
    sides: (height, width) of each tap's feature map in cells, for audio bands and time steps (one
    band where it has none); empty for text.
    max_tokens: the longest text in tokens; 0 for the others.
    has_class_token, has_pooler: whether the poolings "cls" (vision) and "pooler" (text) exist.
    is_causal: of text: no token reads those after it, so the pooling "cls" says nothing.
    sound_size: extents of a sound as it is read: samples, or bands and frames in the encoder's
    order; empty for the others.
    adapts: whether its last layers can be trained with low-rank adapters.
    most_merged: pairs of tokens that a layer can merge at most; 0 where tokens are not merged.
    """

    name: str
    modality: Modality
    widths: tuple[int, ...]
    sides: tuple[tuple[int, int], ...] = ()
    max_tokens: int = 0
    has_class_token: bool = False
    has_pooler: bool = False
    image_size: int = 0
    sound_size: tuple[int, ...] = ()
    is_causal: bool = False
    adapts: bool = False
    most_merged: int = 0

    @property
    def input_size(self) -> tuple[int, ...]:
        """Extents of one picture or sound as it is read; empty for text."""
        return (3, self.image_size, self.image_size) if self.image_size else self.sound_size

    def token_grid(self, tap: int) -> tuple[int, int]:
        """Rows and columns of the form "tokens" of a tap, of a picture or a sound."""
        height, width = self.sides[tap - 1]
        down, along = token_kernel(self.modality, height, width)
        return -(-height // down), -(-width // along)

    @property
    def depth(self) -> int:
        """The number of taps; the last one is the encoder's own output."""
        return len(self.widths)


def token_kernel(modality: Modality, height: int, width: int) -> tuple[int, int]:
    """Cells of a feature map that are averaged into one token, along each side."""
    if modality == "audio":
        return height, -(-width // MAX_AUDIO_TOKENS)
    side = -(-max(height, width) // MAX_VISION_TOKENS_SIDE)
    return side, side


def is_timm_folder(source: str) -> bool:
    """Whether this is a folder with a configuration of timm, as the hub has it."""
    try:
        settings = json.loads(Path(source, "config.json").expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return (
        isinstance(settings, dict) and "architecture" in settings and "model_type" not in settings
    )


def spec_for(modality: Modality, source: str, weights: Weights) -> EncoderSpec:
    """The encoder that a user names on the command line: a folder, a timm model or a hub id.

    A folder's name carries the first eight digits of its configuration's SHA-256, so that two
    folders of one name are two encoders. `timm/NAME` means timm, as does a folder
    downloaded for it, which as an audio encoder reads
    log-mel bands as a picture; a bare NAME of a vision encoder without a slash means it too. Raises
    EncoderError where the folder holds no model.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        config = folder / "config.json"
        if not config.is_file():
            raise EncoderError(
                f"{modality} encoder {source}: the folder holds no config.json; "
                "give the folder that save_pretrained wrote"
            )
        digest = hashlib.sha256(config.read_bytes()).hexdigest()[:8]
        name = f"{folder.resolve().name}@{digest}"
        library: Library = "timm" if is_timm_folder(source) else "transformers"
        return EncoderSpec(name, modality, library, str(folder.resolve()), weights)
    if source.startswith((".", "/", "~")):
        raise UnknownEncoderError(f"{modality} encoder {source}: there is no such folder")
    if source.startswith("timm/"):
        return EncoderSpec(source, modality, "timm", source.removeprefix("timm/"), weights)
    if modality == "vision" and "/" not in source:
        return EncoderSpec(f"timm/{source}", modality, "timm", source, weights)
    return EncoderSpec(source, modality, "transformers", source, weights)
