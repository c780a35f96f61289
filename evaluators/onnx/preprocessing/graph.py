"""A network's ONNX graph with the preparation of its pictures and sounds before it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, ValueInfoProto, helper

from evaluators.onnx.preprocessing.nodes import PREFIX, Nodes
from evaluators.onnx.preprocessing.picture import IMAGE, add_image, image_input
from evaluators.onnx.preprocessing.sound import SOUND, add_sound, sound_input
from search_space.network.network import INPUTS

Rules = Mapping[str, Mapping[str, Any] | None]
"""By modality, how an input is prepared; as `card.json` of an export has it."""
Filters = npt.NDArray[np.float32]


def write_with_preprocessing(
    network: Path, rules: Rules, filters: Filters | None, file: Path
) -> str:
    """Write a network that reads pictures and sounds as they are decoded.

    Instead of `pixel_values` it reads "image", uint8 (height, width, 3), and instead of
    `input_values` "sound", int16 (samples,), both of any extent. Token ids stay inputs.

    Args:
        network: the ONNX file, of operator set 18 or later and batch 1.
        rules: how each modality is prepared; at least one of vision and audio.
        filters: (bands, frequencies) of log-mel bands.
        file: is written.

    Returns:
        The SHA-256 of the file.
    """
    model = onnx.load(str(network))
    made, inputs = _preparation(rules, filters)
    prepared = set(inputs)
    read = [inputs.get(entry.name, entry) for entry in model.graph.input]
    nodes = [*made.nodes, *model.graph.node]
    for field, entries in (("input", read), ("node", nodes)):
        kept = [type(entry).FromString(entry.SerializeToString()) for entry in entries]
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(kept)
    model.graph.initializer.extend(made.constants)
    assert not prepared & {entry.name for entry in model.graph.input}
    content = model.SerializeToString()
    file.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def preparation(network: Path, whole: Path) -> ModelProto:
    """Return the preparation that a written graph holds: its nodes up to the network's inputs.

    Args:
        network: the ONNX file of the network.
        whole: the file that `write_with_preprocessing` wrote of it.
    """
    model = onnx.load(str(whole))
    nodes = [node for node in model.graph.node if node.name.startswith(PREFIX)]
    made = {name for node in nodes for name in node.output}
    given = [entry for entry in onnx.load(str(network)).graph.input if entry.name in made]
    read = [entry for entry in model.graph.input if entry.name in (IMAGE, SOUND)]
    constants = [each for each in model.graph.initializer if each.name.startswith(PREFIX)]
    graph = helper.make_graph(nodes, "preparation", read, given, constants)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _preparation(rules: Rules, filters: Filters | None) -> tuple[Nodes, dict[str, ValueInfoProto]]:
    """The nodes, and by the network's own input that they make, what they read."""
    nodes, inputs = Nodes(), {}
    if vision := rules.get("vision"):
        (name,) = INPUTS["vision"]
        add_image(nodes, vision, name)
        inputs[name] = image_input()
    if audio := rules.get("audio"):
        (name,) = INPUTS["audio"]
        add_sound(nodes, audio, filters, name)
        inputs[name] = sound_input()
    return nodes, inputs
