"""A sound as what an audio encoder reads, as ONNX operators."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, ValueInfoProto, helper

from evaluators.data.media.waves import FULL_SCALE
from evaluators.onnx.preprocessing.nodes import Nodes

SOUND = "sound"
_LEAST_VARIANCE = 1e-7
"""Added to the variance of a waveform, as Wav2Vec2FeatureExtractor does."""


def sound_input() -> ValueInfoProto:
    """The input of a sound: int16 (samples,), one channel, of any length but 0."""
    return helper.make_tensor_value_info(SOUND, TensorProto.INT16, ["samples"])


def add_sound(
    nodes: Nodes, rule: Mapping[str, Any], filters: npt.NDArray[np.float32] | None, to: str
) -> None:
    """Add the nodes that make float32 (1, *size) of a sound, cut or ended in silence.

    Args:
        nodes: takes them.
        rule: as `search_space.encoders.sounds.sound_recipe` gives it.
        filters: (bands, frequencies) of a rule whose kind is log-mel.
        to: name of the output.
    """
    kept = nodes.whole([rule["seconds"] * rule["hertz"]])
    cut = nodes.add("Slice", SOUND, nodes.whole([0]), kept)
    wave = nodes.add("Div", nodes.cast(cut, TensorProto.FLOAT), nodes.floats(FULL_SCALE))
    if rule["kind"] == "log-mel":
        assert filters is not None
        _add_bands(nodes, wave, rule, filters, to)
        return
    if rule["normalised"]:
        mean = nodes.add("ReduceMean", wave, nodes.whole([0]), keepdims=1)
        centred = nodes.add("Sub", wave, mean)
        square = nodes.add("Mul", centred, centred)
        variance = nodes.add("ReduceMean", square, nodes.whole([0]), keepdims=1)
        deviation = nodes.add("Sqrt", nodes.add("Add", variance, nodes.floats(_LEAST_VARIANCE)))
        wave = nodes.add("Div", centred, deviation)
    whole = _ended_in_silence(nodes, wave, rule["size"][0])
    nodes.add("Unsqueeze", whole, nodes.whole([0]), output=to)


def _ended_in_silence(nodes: Nodes, wave: str, length: int) -> str:
    """The waveform (N,) with zeros behind it, (length,)."""
    lacking = nodes.add("Sub", nodes.whole([length]), nodes.add("Shape", wave))
    pads = nodes.add("Concat", nodes.whole([0]), lacking, axis=0)
    return nodes.add("Pad", wave, pads, nodes.floats(0))


def _add_bands(
    nodes: Nodes,
    wave: str,
    rule: Mapping[str, Any],
    filters: npt.NDArray[np.float32],
    to: str,
) -> None:
    """Log-mel bands in the manner of Whisper, of `rule["size"]` with a batch of 1."""
    window, hop, fft, frames = rule["window"], rule["hop"], rule["fft"], rule["size"][-1]
    whole = _ended_in_silence(nodes, wave, rule["samples"])
    mirrored = nodes.add("Pad", whole, nodes.whole([fft // 2, fft // 2]), mode="reflect")
    signal = nodes.add("Unsqueeze", mirrored, nodes.whole([0, 2]))
    hann = np.zeros(fft)
    start = (fft - window) // 2
    hann[start : start + window] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    spectrum = nodes.add(
        "STFT", signal, nodes.whole(hop), nodes.floats(hann), nodes.whole(fft), onesided=1
    )  # (1, frames or more, fft / 2 + 1, 2)
    first = nodes.add("Slice", spectrum, nodes.whole([0]), nodes.whole([frames]), nodes.whole([1]))
    power = nodes.add("ReduceSumSquare", first, nodes.whole([3]), keepdims=0)
    by_band = nodes.add("MatMul", power, nodes.floats(filters.T))  # (1, frames, bands)
    bands = nodes.add("Transpose", by_band, perm=[0, 2, 1])
    logs = nodes.add("Log", nodes.add("Max", bands, nodes.floats(rule["floor"])))
    decades = nodes.add("Div", logs, nodes.floats(np.log(10)))
    least = nodes.add(
        "Sub", nodes.add("ReduceMax", decades, keepdims=1), nodes.floats(rule["range"])
    )
    half = nodes.floats(rule["range"] / 2)
    shifted = nodes.add("Add", nodes.add("Max", decades, least), half)
    scaled = nodes.add("Div", shifted, half)
    nodes.add("Reshape", scaled, nodes.whole([1, *rule["size"]]), output=to)
