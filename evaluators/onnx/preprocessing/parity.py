"""How far a graph with its preprocessing inside is from the network on prepared inputs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from evaluators.data.answers import answers_of, probabilities_of
from evaluators.onnx.artifacts import ParityError
from evaluators.onnx.preprocessing.graph import Rules, preparation

PIXEL_LEVELS = 2.0
"""Greatest difference of a pixel from Pillow's, in levels of 255: each direction is rounded."""
SOUND_DIFFERENCE = 1e-3
"""Greatest difference of a prepared sound; logarithms of bands magnify rounding."""
LOGIT_DIFFERENCE = 1e-4
"""Greatest difference of a logit from the network's on the tensors that the graph prepared."""

Fed = Mapping[str, npt.NDArray[Any]]
_ROUNDING = 1e-3
"""Levels by which two floats of one pixel may differ."""


@dataclass(frozen=True)
class Differences:
    """Greatest differences over some samples; None for a modality that is not prepared.

    Attributes:
        samples: that were compared.
        pixel_levels: of a pixel, in levels of 255.
        pixel_share: pixels and channels that differ at all, as a share of all.
        sound: of a value of a prepared sound.
        logit: of a logit.
        probability: of the probability of a class.
        classes: samples whose most probable class is another.
    """

    samples: int
    pixel_levels: float | None
    pixel_share: float | None
    sound: float | None
    logit: float
    probability: float
    classes: int


def compare(
    network: Path,
    whole: Path,
    rules: Rules,
    rows: Iterable[tuple[Fed, Fed]],
    multi_label: bool = False,
) -> Differences:
    """Compare a graph with its preprocessing inside with the network, on this CPU.

    The preparation is taken from the graph itself. The network, run on the tensors that it makes,
    must give the logits of the graph.

    Args:
        network: the ONNX file of the network.
        whole: that of the network with its preprocessing.
        rules: how each modality is prepared.
        rows: of each sample what the network reads, prepared as for training, and what the graph
            with preprocessing reads.
        multi_label: whether an answer is a set of classes, each with a probability of its own.

    Raises:
        ParityError: A pixel, a sound or a logit differs by more than its tolerance, or a logit is
            not finite.
    """
    prepare = _session(preparation(network, whole).SerializeToString())
    names = [entry.name for entry in prepare.get_outputs()]
    needed = [entry.name for entry in prepare.get_inputs()]
    plain, complete = _session(str(network)), _session(str(whole))
    apart: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in names}
    logits: list[list[npt.NDArray[np.float64]]] = []
    for read, raw in rows:
        made = prepare.run(names, {name: raw[name] for name in needed})
        for name, values in zip(names, made, strict=True):
            apart[name].append(np.abs(values.astype(np.float64) - read[name]))
        own = {**read, **dict(zip(names, made, strict=True))}
        found = [
            session.run(["logits"], dict(fed))[0][0].astype(np.float64)
            for session, fed in ((plain, read), (complete, raw), (plain, own))
        ]
        logits.append(found)
    pixels, sound = _levels(apart.get("pixel_values"), rules), apart.get("input_values")
    given = np.array(logits)  # (samples, 3, classes)
    if not np.isfinite(given).all():
        raise ParityError(
            "the graph with preprocessing gives logits that are not finite; nothing was written"
        )
    odds, answers = probabilities_of(given, multi_label), answers_of(given, multi_label)
    other = answers[:, 0] != answers[:, 1]
    differences = Differences(
        samples=len(logits),
        pixel_levels=None if pixels is None else float(pixels.max()),
        pixel_share=None if pixels is None else float((pixels > _ROUNDING).mean()),
        sound=None if sound is None else float(np.array(sound).max()),
        logit=float(np.abs(given[:, 0] - given[:, 1]).max()),
        probability=float(np.abs(odds[:, 0] - odds[:, 1]).max()),
        classes=int((other.any(1) if multi_label else other).sum()),
    )
    _check(differences, float(np.abs(given[:, 1] - given[:, 2]).max()))
    return differences


def _session(model: str | bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])


def _levels(
    apart: Sequence[npt.NDArray[np.float64]] | None, rules: Rules
) -> npt.NDArray[np.float64] | None:
    """Differences of normalised pixels, each (1, 3, S, S), in levels of 255."""
    rule = rules.get("vision")
    if apart is None or rule is None:
        return None
    levels: npt.NDArray[np.float64] = np.array(apart) * 255
    return levels * np.array(rule["std"], np.float64).reshape(1, 1, 3, 1, 1)


def _check(found: Differences, own_logit: float) -> None:
    """Raise ParityError for a difference over its tolerance.

    Args:
        found: from the network on inputs that were prepared as for training.
        own_logit: of a logit from the network's on inputs that the graph prepared.
    """
    as_trained = "that of training"
    for what, value, allowed, other in (
        ("a pixel", found.pixel_levels, PIXEL_LEVELS + _ROUNDING, as_trained),
        ("a prepared sound", found.sound, SOUND_DIFFERENCE, as_trained),
        ("a logit", own_logit, LOGIT_DIFFERENCE, "that of the network on the same tensors"),
    ):
        if value is not None and not value <= allowed:
            raise ParityError(
                f"the graph with preprocessing: {what} differs by {value:.3g} (allowed "
                f"{allowed:.3g}) from {other}; nothing was written. please report it"
            )
