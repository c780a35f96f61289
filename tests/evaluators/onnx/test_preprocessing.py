"""A graph prepares pictures and sounds as training does, within the tolerance that it states."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from audio_encoders import OWN_EXTRACTOR, hugging, noise, tone
from onnx import TensorProto, helper
from PIL import Image

from evaluators.onnx.artifacts import ParityError
from evaluators.onnx.preprocessing.graph import (
    Filters,
    Rules,
    preparation,
    write_with_preprocessing,
)
from evaluators.onnx.preprocessing.parity import (
    PIXEL_LEVELS,
    SOUND_DIFFERENCE,
    Differences,
    compare,
)
from search_space.encoders.sounds import sound_input, sound_recipe

LOG_MEL = hugging("mobilenet_v2", {"num_channels": 1, "depth_multiplier": 0.35})
CLICK = np.eye(1, 50, dtype=np.float32)[0]
SOUNDS = {"a tone": tone(440), "noise": noise(60_000), "a click": CLICK}
RULE = {"size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.25, 0.2]}
PIXELS = (32, 32)
PICTURES = ((32, 32), (40, 31), (300, 100), (97, 700), (1, 1), (480, 640))


def prepared_by(
    folder: Path, rules: Rules, filters: Filters | None = None
) -> onnxruntime.InferenceSession:
    """The preparation inside a written graph."""
    (modality,) = rules
    name = {"vision": "pixel_values", "audio": "input_values"}[modality]
    size = (3, *PIXELS) if modality == "vision" else rules[modality]["size"]
    plain = network(folder / "network.onnx", "Identity", name, size)
    whole = folder / "whole.onnx"
    write_with_preprocessing(plain, rules, filters, whole)
    model = preparation(plain, whole)
    onnx.checker.check_model(model)
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=providers)


def as_training(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Float32 (1, 3, S, S) of a picture, by Pillow and numpy."""
    square = np.asarray(Image.fromarray(picture).resize(PIXELS, Image.Resampling.BILINEAR))
    mean, std = (np.array(RULE[key], np.float32) for key in ("mean", "std"))
    values = (square.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def smooth(height: int, width: int) -> npt.NDArray[np.uint8]:
    """A picture whose channels differ and whose values change slowly."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [np.sin(y / 9) + np.cos(x / 7), np.sin((x + y) / 11) * 2, np.cos(y / 13) * 2]
    return (127 + 60 * np.stack(channels, 2)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", PICTURES)
def test_a_picture_of_any_size_is_within_two_levels_of_pillows(
    size: tuple[int, int], tmp_path: Path
) -> None:
    prepare = prepared_by(tmp_path, {"vision": RULE})
    drawn = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    levels = 255 * np.array(RULE["std"]).reshape(1, 3, 1, 1)
    for picture, allowed in ((drawn, PIXEL_LEVELS), (smooth(*size), 1.0)):
        (made,) = prepare.run(None, {"image": picture})
        apart = np.abs(made - as_training(picture)) * levels
        assert made.shape == (1, 3, 32, 32) and apart.max() < allowed + 1e-3


@pytest.mark.parametrize("sound", list(SOUNDS))
@pytest.mark.parametrize("name", ["wav2vec2", "whisper", "log-mel bands"])
def test_a_sound_is_prepared_as_training_reads_it(name: str, sound: str, tmp_path: Path) -> None:
    spec = {**OWN_EXTRACTOR, "log-mel bands": LOG_MEL}[name]
    recipe = sound_recipe(spec)
    assert recipe is not None
    prepare = prepared_by(tmp_path, {"audio": recipe[0]}, recipe[1])
    samples = (32_767 * SOUNDS[sound]).astype(np.int16)
    (made,) = prepare.run(None, {"sound": samples})
    expected = sound_input(spec).of(samples.astype(np.float32) / np.float32(32_768))
    assert made.shape == (1, *expected.shape)
    assert np.abs(made[0] - expected).max() < SOUND_DIFFERENCE


def network(
    file: Path,
    kind: str = "GlobalAveragePool",
    name: str = "pixel_values",
    size: Sequence[int] = (3, *PIXELS),
) -> Path:
    """Write a network of one operator, whose values are the logits."""
    nodes = [
        helper.make_node(kind, [name], ["values"]),
        helper.make_node("Flatten", ["values"], ["logits"]),
    ]
    read = helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, *size))
    given = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, "classes"))
    graph = helper.make_graph(nodes, "network", [read], [given])
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(file))
    return file


def compared(folder: Path, rule: dict[str, object], kind: str = "GlobalAveragePool") -> Differences:
    """A network, compared with one that has the preparation of `rule` before it."""
    plain, whole = network(folder / "network.onnx"), folder / "whole.onnx"
    after = network(folder / "after.onnx", kind)
    write_with_preprocessing(after, {"vision": rule}, None, whole)
    onnx.checker.check_model(str(whole))
    pictures = [smooth(*size) for size in PICTURES]
    rows = [({"pixel_values": as_training(each)}, {"image": each}) for each in pictures]
    return compare(plain, whole, {"vision": RULE}, rows)


def test_the_network_gives_what_it_gives_on_prepared_inputs(tmp_path: Path) -> None:
    found = compared(tmp_path, RULE)
    assert found.samples == len(PICTURES) and found.classes == 0 and found.sound is None
    assert found.pixel_levels is not None and found.pixel_levels < 1.001
    assert found.pixel_share is not None and found.pixel_share < 0.5
    assert found.logit < 0.01 and found.probability < 0.01


def test_a_written_graph_that_prepares_by_another_rule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"a pixel differs by 1\d+ .allowed 2"):
        compared(tmp_path, {**RULE, "mean": [0.5, 0.4, 0.7]})


def test_a_written_graph_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"a logit differs by .* network on the same tensors"):
        compared(tmp_path, RULE, kind="GlobalMaxPool")


def test_logits_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    rows = [({"pixel_values": as_training(smooth(9, 9))}, {"image": smooth(9, 9)})]
    whole, broken = tmp_path / "whole.onnx", tmp_path / "broken.onnx"
    write_with_preprocessing(network(tmp_path / "network.onnx"), {"vision": RULE}, None, whole)
    model = onnx.load(str(whole))
    model.graph.node[-1].output[0] = "finite"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0), "zero"))
    model.graph.node.append(helper.make_node("Div", ["finite", "zero"], ["logits"]))
    onnx.save(model, str(broken))
    with pytest.raises(ParityError, match="not finite"):
        compare(tmp_path / "network.onnx", broken, {"vision": RULE}, rows)
