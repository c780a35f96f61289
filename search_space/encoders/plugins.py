"""Encoders of plugins: found by entry points of the group `fusion_nas.encoders`.

Nothing here imports torch, so that commands that build no network start without it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from search_space.design.encoder import (
    SOUND_SECONDS,
    EncoderError,
    EncoderSpec,
    UnknownEncoderError,
    Weights,
)
from search_space.modality import MODALITIES, Modality
from search_space.plugins import NotUsable, Plugin, Plugins, load_plugins

if TYPE_CHECKING:
    from torch import nn

GROUP = "fusion_nas.encoders"
Sound = Literal["log-mel", "waveform"]


class PluginEncoder(ABC):
    """An encoder of another package; `docs/how-to/plugins.md` shows how.

    Attributes:
        modality: what it reads.
        widths: features of each tap, a token or a cell of the feature map.
        max_tokens: of text: the longest that it reads.
        vocabulary: of text: how many token ids it knows.
        image_size: of vision: pixels a side of the pictures that it reads.
        mean, std: of vision: what pixels in 0..1 are normalised with, a channel.
        sound: of audio: `log-mel` for (B, 1, 64, frames), 100 frames a second, or `waveform` for
            (B, samples) at 16 kHz, in -1..1.
    """

    modality: ClassVar[Modality]
    widths: ClassVar[tuple[int, ...]]
    max_tokens: ClassVar[int] = 0
    vocabulary: ClassVar[int] = 0
    image_size: ClassVar[int] = 0
    mean: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 0.5)
    std: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 0.5)
    sound: ClassVar[Sound] = "log-mel"

    @abstractmethod
    def build(self, depth: int, folder: Path | None) -> "nn.Module":
        """Return the encoder up to tap `depth`. Import torch here, not above.

        The module keeps its layers, one a tap, in `layers`, an `nn.ModuleList`. Called with token
        ids (B, L) and a mask (B, L), 1 for real tokens, it gives a list of (B, L, C), one a tap.
        Called with pictures (B, 3, S, S) or sounds, it gives a list of pairs, one a tap: feature
        map (B, C, H, W), and class token (B, C) or None. The last tap of the whole encoder is its
        own output, with its final norm, if it has one.

        Args:
            depth: from 1 to the number of `widths`. First weights of the layers up to `depth` do
                not depend on it, for the same `torch.manual_seed`.
            folder: holds the weights, and the `tokenizer.json` of a text encoder; None for first
                weights as torch draws them.
        """


def plugin_encoder(name: str) -> PluginEncoder:
    """Return the encoder of this name. Raises UnknownEncoderError."""
    found = _plugins().usable.get(name)
    if found is None:
        raise UnknownEncoderError(f"encoder {why_unknown(name)}")
    return found


def is_encoder(name: str) -> bool:
    """Whether a plugin that can be used has an encoder of this name."""
    return name in _plugins().usable


def names_plugin(given: str) -> bool:
    """Whether NAME or NAME:FOLDER names the encoder of a plugin.

    A folder of the same name comes first, as it does for data sets.
    """
    return not Path(given).expanduser().is_dir() and is_encoder(given.partition(":")[0])


def why_unknown(name: str, package: str = "") -> str:
    """Return what to say of a name that no plugin has; `package` is known to have had it."""
    if failure := _plugins().failure(name):
        return failure
    if package:
        return f"{name!r} is of the plugin {package}, which is not installed: install it"
    return f"{name!r} is of no plugin: install the one that has it"


def spec_of_plugin(
    modality: Modality, given: str, weights: Weights | None = None
) -> EncoderSpec | None:
    """Return the encoder that NAME or NAME:FOLDER names; None where that is no plugin's.

    A folder of the same name comes first. Weights are those of the folder after the colon; without
    one they are random. Raises EncoderError where the plugin cannot be used, is of another modality
    or lacks the folder that is asked for, and for a folder of its name that holds no encoder.
    """
    name, colon, source = given.partition(":")
    here = f"{modality} encoder {given}"
    if (own := Path(given).expanduser()).is_dir():
        if is_encoder(given) and not (own / "config.json").is_file():
            origin = _plugins().origins([given])[given]
            raise EncoderError(
                f"{here}: the folder {own.resolve()} comes before the plugin {origin}, and holds "
                "no config.json: to use the plugin, run in another working directory"
            )
        return None
    if failure := _plugins().failure(name):
        raise EncoderError(f"{modality} encoder {failure}")
    if name not in _plugins().usable:
        return None
    encoder = _plugins().usable[name]
    if encoder.modality != modality:
        raise EncoderError(
            f"{here}: it reads {encoder.modality}: give --{encoder.modality}-encoder"
        )
    folder = Path(source).expanduser()
    if colon and not folder.is_dir():
        raise UnknownEncoderError(f"{here}: there is no folder {source}")
    if weights == "pretrained" and not colon:
        raise EncoderError(f"{here}: it has no weights of its own: give {name}:FOLDER")
    return EncoderSpec(
        f"{name}:{folder.resolve().name}" if colon else name,
        modality,
        "plugin",
        str(folder.resolve()) if colon else name,
        weights or ("pretrained" if colon else "random"),
        model_type=name,
        seconds=SOUND_SECONDS,
    )


def encoder_plugins() -> tuple[Plugin, ...]:
    """Return every plugin found, with the reason where one cannot be used."""
    return _plugins().found


def encoder_origins(specs: Iterable[EncoderSpec]) -> dict[str, str]:
    """Return package and version of the plugins that encoders are of, by the plugins' names."""
    names = {str(spec.model_type) for spec in specs if spec.library == "plugin"}
    return _plugins().origins(names) if names else {}


@cache
def _plugins() -> Plugins[PluginEncoder]:
    return load_plugins(GROUP, _encoder, ())


def _encoder(found: object) -> PluginEncoder:
    """Return the encoder of a class. Raises NotUsable."""
    if not (isinstance(found, type) and issubclass(found, PluginEncoder)):
        raise NotUsable(f"{found!r} is not a subclass of fusion_nas.encoders.PluginEncoder")
    here = found.__name__
    modality, widths = getattr(found, "modality", None), getattr(found, "widths", None)
    if modality not in MODALITIES:
        raise NotUsable(f"{here}.modality is none of {', '.join(MODALITIES)}")
    whole = isinstance(widths, tuple) and all(type(width) is int and width > 0 for width in widths)
    if not widths or not whole:
        raise NotUsable(f"{here}.widths is not a tuple of positive whole numbers, one a tap")
    needed = {"text": ("max_tokens", "vocabulary"), "vision": ("image_size",), "audio": ()}
    for name in needed[modality]:
        if type(getattr(found, name)) is not int or getattr(found, name) <= 0:
            raise NotUsable(f"{here}.{name} is not a positive whole number")
    if found.sound not in ("log-mel", "waveform"):
        raise NotUsable(f"{here}.sound is neither 'log-mel' nor 'waveform'")
    return found()
