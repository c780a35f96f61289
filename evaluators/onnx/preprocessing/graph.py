"""A network's ONNX graph with the preparation of its pictures and sounds before it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, ValueInfoProto, helper

from evaluators.onnx.preprocessing.nodes import Nodes
from evaluators.onnx.preprocessing.picture import add_image, image_input
from evaluators.onnx.preprocessing.sound import add_sound, sound_input
from evaluators.onnx.versions import IR_VERSION, OPSET
from search_space.network.network import INPUTS

Rules = Mapping[str, Mapping[str, Any] | None]
"""By modality, how an input is prepared; as `card.json` of an export has it."""
Filters = npt.NDArray[np.float32]


def write_with_preprocessing(
    network: Path, rules: Rules, filters: Filters | None, file: Path
) -> str:
    """Write a network that reads pictures and sounds as they are decoded.

    In place of `pixel_values` it reads "image", uint8 (height, width, 3), and in place of
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


def preparation(rules: Rules, filters: Filters | None) -> ModelProto:
    """The preparation alone: from pictures and sounds to what the network reads."""
    made, inputs = _preparation(rules, filters)
    sizes = {"pixel_values": (3, *2 * (vision["size"],))} if (vision := rules.get("vision")) else {}
    if audio := rules.get("audio"):
        sizes["input_values"] = tuple(audio["size"])
    given = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, *size))
        for name, size in sizes.items()
    ]
    graph = helper.make_graph(
        made.nodes, "preparation", list(inputs.values()), given, made.constants
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )


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
