"""An export's encoders and fusion beside its whole network: written, compared, timed in turns."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from torch import Tensor

from device_agent.wire.request import TensorSpec
from evaluators.onnx.split.files import Part, check_parts, write_parts
from search_space.design.genotype import Genotype
from search_space.network.network import input_names
from studies.config.options import DeviceOptions
from studies.config.settings import Settings
from studies.config.usage import UsageError
from studies.results.study_outcome import SETTINGS
from studies.results.text import ms
from studies.trained.timing import TimingDevice, time_in_turns

WHOLE = "whole"
SHARES = (0.0, 0.5, 0.9)
"""Shares of repeated inputs for which a card states the expected latency."""


def check_splits(number: int, genotype: Genotype) -> None:
    """Raises UsageError for a design that has no parts."""
    if not genotype.is_fused:
        (modality,) = genotype.encoders
        raise UsageError(
            f"--split: trial {number} reads {modality} alone, so there is nothing to split; leave "
            "--split out"
        )


def device_of(study: optuna.Study, name: str | None) -> DeviceOptions:
    """Where the parts of a study's design are timed: on its first device, or on the one named.

    A board beside the study's first one is used as the study does, with its runtime and threads.
    """
    stored: DeviceOptions = Settings.from_stored(study.user_attrs[SETTINGS]).device
    if name is None:
        return replace(stored, names=stored.boards.first[:1])
    for options in stored.unlike:
        if options.names == (name,):
            return options
    return replace(stored, names=(name,), timing="auto")


def write_split(
    whole: Path,
    genotype: Genotype,
    inputs: tuple[TensorSpec, ...],
    rows: list[tuple[Tensor, ...]],
    expected: np.ndarray,
    device: TimingDevice,
) -> dict[str, Any]:
    """Write the parts beside the whole graph, and return what the card says of them.

    Args:
        whole: the graph that is split.
        genotype: its design.
        inputs: of the whole graph.
        rows: inputs of batch 1 that whole and parts are compared for.
        expected: (N, classes), logits of the whole graph for them.
        device: times the whole and its parts in turns.

    Raises:
        ParityError: The parts do not give what the whole gives.
        NotSplit: The design cannot be split.
        MeasureError: The device cannot run a part, or no reading was stable.
    """
    parts = write_parts(whole, genotype, inputs, whole.parent)
    difference = check_parts(parts, genotype, input_names(genotype), rows, expected)
    files = {WHOLE: whole, **{part.name: part.path for part in parts}}
    readings = time_in_turns(device, files)
    return {
        "device": device.name,
        "device_fingerprint": device.fingerprint,
        "greatest_difference_from_whole": difference,
        "compared_samples": len(rows),
        "whole_ms": _ms(readings[WHOLE]),
        "parts": [_as_json(part, readings[part.name]) for part in parts],
    }


def _as_json(part: Part, reading: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": part.name,
        "modality": part.modality,
        "file": part.path.name,
        "sha256": part.sha256,
        "inputs": [spec.as_json() for spec in part.inputs],
        "gives": [{"name": c.name, "dtype": c.dtype, "shape": list(c.shape)} for c in part.gives],
        "bytes": part.bytes,
        "ms": _ms(reading),
    }


def _ms(reading: Mapping[str, Any]) -> list[float]:
    return [reading["median_ms"], *reading["interval_ms"]]


def expected_ms(split: Mapping[str, Any], name: str, share: float) -> float:
    """Mean latency by the parts where a share of the inputs of one encoder is kept.

    Args:
        split: what `write_split` returned.
        name: of the encoder: text, image or sound.
        share: 0 to 1.
    """
    run = {part["name"]: float(part["ms"][0]) for part in split["parts"]}
    return sum(run.values()) - share * run[name]


def in_words(split: Mapping[str, Any]) -> str:
    """`text 3.1 ms, image 11.9 ms, fusion 0.2 ms on local; whole 15.1 ms`."""
    parts = ", ".join(f"{part['name']} {ms(part['ms'][0])} ms" for part in split["parts"])
    return f"{parts} on {split['device']}; whole {ms(split['whole_ms'][0])} ms"


def readme_lines(split: Mapping[str, Any]) -> list[str]:
    """The section of an export's README about its parts."""
    lines = [
        "## Encode an input once",
        "",
        "The same network as encoders and a fusion. `python predict.py --split` runs them; "
        "`Network(keep=100)` keeps the last 100 encoded inputs by content, and "
        '`Network().encode(image="picture.png")` gives one that `predict` takes instead of the '
        "file.",
        "",
        "| file | ms (95 % interval) | cached per input, bytes |",
        "|---|---|---|",
    ]
    for part in split["parts"]:
        middle, low, high = map(ms, part["ms"])
        lines.append(f"| `{part['file']}` | {middle} ({low} to {high}) | {part['bytes'] or ''} |")
    middle, low, high = map(ms, split["whole_ms"])
    lines += [f"| `network.onnx` | {middle} ({low} to {high}) | |", ""]
    lines += ["| expected ms by the share of repeats | 0 % | 50 % | 90 % |", "|---|---|---|---|"]
    for part in split["parts"]:
        if part["modality"]:
            shares = [ms(expected_ms(split, part["name"], share)) for share in SHARES]
            lines.append(f"| {part['name']} | {' | '.join(shares)} |")
    lines += [
        "",
        f"Timed on {split['device']}; the outputs differ by at most "
        f"{split['greatest_difference_from_whole']:.1e} from those of `network.onnx`.",
        "",
    ]
    return lines
