"""What an audio encoder takes of a sound: its waveform, or the bands of its spectrum over time.

Encoders of transformers bring a feature extractor of their own. Any other reads log-mel bands as a
picture of one channel, in the manner of Whisper: base 10, down to 8 below the sound's greatest.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from search_space.design.encoder import SOUND_HZ, EncoderError, EncoderSpec
from search_space.encoders.configs import config_of, first_line
from search_space.encoders.libraries import from_pretrained, import_transformers
from search_space.encoders.plugins import plugin_encoder

Floats = NDArray[np.float32]

BANDS = 64
WINDOW, HOP, FFT = 400, 160, 1024
"""Samples: 25 ms every 10 ms, padded so that the lowest band still holds a frequency."""
_FLOOR, _RANGE = 1e-10, 8.0


@dataclass(frozen=True)
class SoundInput:
    """How sounds become the input of one encoder.

    size: extents of the input of one sound. settings: changes whenever that input could.
    """

    size: tuple[int, ...]
    settings: str
    _samples: int = field(repr=False)
    _made: Callable[[Floats], Floats] = field(repr=False)

    def of(self, waveform: Floats) -> Floats:
        """A sound (N,) at SOUND_HZ, in -1..1, as the encoder reads it: float32 of `size`.

        What is longer than the encoder reads is cut, what is shorter ends in silence.
        """
        made = self._made(waveform[: self._samples])
        # Waveforms alone are still short: silence stands behind what was normalised.
        lacking = [(0, whole - part) for whole, part in zip(self.size, made.shape, strict=True)]
        return np.pad(made, lacking).astype(np.float32, copy=False)


def shortened(spec: EncoderSpec, seconds: int) -> EncoderSpec:
    """The audio encoder reading at most so many seconds.

    It is as it was where it reads no more than that, where its input has one length whatever the
    sound (Whisper, AST), or where its weights belong to a picture of one size.
    """
    if seconds >= spec.seconds:
        return spec
    config = dict(spec.config)
    if isinstance(size := config.get("img_size"), list) and len(size) == 2:
        if spec.weights == "pretrained":
            return spec
        config["img_size"] = [size[0], seconds * SOUND_HZ // HOP]
    shorter = replace(spec, seconds=seconds, config=config)
    return spec if sound_input(shorter).size == sound_input(spec).size else shorter


@lru_cache(maxsize=64)
def sound_input(spec: EncoderSpec) -> SoundInput:
    """What an audio encoder takes of a sound.

    Raises EncoderError where it takes none, or not at SOUND_HZ, or its folder's settings cannot be
    read.
    """
    samples = spec.seconds * SOUND_HZ
    if _reads_waveform(spec):
        return SoundInput((samples,), json.dumps(["waveform", samples]), samples, _unchanged)
    if _reads_log_mel(spec):
        size = (1, BANDS, samples // HOP)
        settings = ["log-mel", WINDOW, HOP, FFT, _FLOOR, _RANGE, *size]
        return SoundInput(size, json.dumps(settings), samples, _log_mel(samples))
    extractor = _extractor(spec)
    if extractor.sampling_rate != SOUND_HZ:
        raise EncoderError(
            f"audio encoder {spec.source}: it was trained on sounds of {extractor.sampling_rate:,} "
            f"samples a second, sounds are read at {SOUND_HZ:,}: choose another"
        )

    def extracted(waveform: Floats) -> Floats:
        found = extractor(waveform, sampling_rate=SOUND_HZ, return_tensors="np")
        (values,) = (found[name] for name in ("input_values", "input_features") if name in found)
        return np.asarray(values[0], dtype=np.float32)

    size = extracted(np.zeros(samples, np.float32)).shape
    least = WINDOW if len(size) > 1 else 1  # a spectrum is of no less than one window

    def made(waveform: Floats) -> Floats:
        return extracted(np.pad(waveform, (0, max(0, least - len(waveform)))))

    settings = [extractor.to_dict(), samples]
    return SoundInput(size, json.dumps(settings, sort_keys=True, default=str), samples, made)


def sound_recipe(spec: EncoderSpec) -> tuple[dict[str, Any], Floats | None] | None:
    """Return what a program without this library needs to prepare sounds as `sound_input` does.

    Returns:
        JSON values (`kind` is log-mel or waveform) and the mel filters (bands, frequencies), if
        any; None where transformers alone can prepare the sounds of this encoder.
    """
    found = sound_input(spec)
    known: dict[str, Any] = {"hertz": SOUND_HZ, "seconds": spec.seconds, "size": list(found.size)}
    mel = {"kind": "log-mel", "hop": HOP, "floor": _FLOOR, "range": _RANGE}
    if found.settings.startswith('["log-mel"'):
        sizes = {"window": WINDOW, "fft": FFT, "samples": spec.seconds * SOUND_HZ}
        return {**known, **mel, **sizes}, _filters().numpy()
    if _reads_waveform(spec):
        return {**known, "kind": "waveform", "normalised": False}, None
    extractor = _extractor(spec)
    kind = type(extractor).__name__
    if kind == "Wav2Vec2FeatureExtractor":
        return {**known, "kind": "waveform", "normalised": bool(extractor.do_normalize)}, None
    if kind == "WhisperFeatureExtractor" and not extractor.dither:
        sizes = {"window": extractor.n_fft, "fft": extractor.n_fft, "hop": extractor.hop_length}
        whole = {"samples": extractor.n_samples}  # what is shorter ends in silence
        return {**known, **mel, **sizes, **whole}, extractor.mel_filters.T.astype(np.float32)
    return None


def _reads_waveform(spec: EncoderSpec) -> bool:
    """Whether this is an encoder of a plugin that reads waveforms as they are."""
    return spec.library == "plugin" and plugin_encoder(str(spec.model_type)).sound == "waveform"


def _reads_log_mel(spec: EncoderSpec) -> bool:
    """Whether an encoder reads log-mel bands as a picture."""
    if spec.library != "transformers":
        return True
    return bool(config_of(spec).model_type == "mobilenet_v2")


def _unchanged(waveform: Floats) -> Floats:
    return waveform


def _extractor(spec: EncoderSpec) -> Any:
    """The feature extractor in the encoder's folder; for random weights its kind's own."""
    import_transformers()
    from transformers.models.auto import feature_extraction_auto

    known: Any = feature_extraction_auto

    if spec.weights == "pretrained":
        try:
            return from_pretrained("AutoFeatureExtractor", spec.source)
        except EncoderError:
            raise
        except Exception as error:  # no such file, a torn one, or one of another kind of encoder
            raise EncoderError(
                f"audio encoder {spec.source}: no usable preprocessor_config.json there "
                f"({first_line(error)}); give the folder that save_pretrained wrote"
            ) from error
    config = config_of(spec)
    name = known.FEATURE_EXTRACTOR_MAPPING_NAMES.get(config.model_type)
    kind = None if name is None else known.feature_extractor_class_from_name(name)
    if kind is None:
        raise EncoderError(
            f"audio encoder {spec.source}: a {config.model_type} reads no sound: choose an audio "
            "encoder of transformers, or timm/NAME, which reads log-mel bands"
        )
    return kind(**_sizes(spec, config))


def _sizes(spec: EncoderSpec, config: Any) -> dict[str, int]:
    """What a feature extractor must know of its encoder's sizes. Raises EncoderError."""
    if config.model_type == "audio-spectrogram-transformer":
        return {"num_mel_bins": config.num_mel_bins, "max_length": config.max_length}
    if config.model_type == "whisper":
        frames = 2 * config.max_source_positions  # its second convolution halves them
        seconds, beyond = divmod(frames * 160, SOUND_HZ)
        if beyond or not seconds:
            raise EncoderError(
                f"audio encoder {spec.source}: max_source_positions = "
                f"{config.max_source_positions} are no whole seconds: give a multiple of 50"
            )
        return {"feature_size": config.num_mel_bins, "chunk_length": seconds}
    return {}


def _log_mel(samples: int) -> Callable[[Floats], Floats]:
    """Waveforms (N,) to (1, BANDS, samples // HOP)."""

    def made(waveform: Floats) -> Floats:
        padded = torch.zeros(samples)
        padded[: len(waveform)] = torch.from_numpy(waveform)
        window = torch.hann_window(WINDOW)
        spectrum = torch.stft(padded, FFT, HOP, WINDOW, window, return_complex=True)
        power = spectrum[:, : samples // HOP].abs().square()
        bands = (_filters() @ power).clamp(min=_FLOOR).log10()
        bands = torch.maximum(bands, bands.max() - _RANGE)
        return ((bands + _RANGE / 2) / (_RANGE / 2)).unsqueeze(0).numpy()

    return made


@cache
def _filters() -> torch.Tensor:
    """(BANDS, frequencies) of the mel scale, from 0 Hz to half of SOUND_HZ."""
    import_transformers()
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(
        FFT // 2 + 1, BANDS, 0.0, SOUND_HZ / 2, SOUND_HZ, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(bank.T.astype(np.float32)).contiguous()
