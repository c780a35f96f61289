"""One real clip of CMU-MOSI, from the video file to a prediction by a text and vision design."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_evaluators_contract import QUICK, quality
from torch import Tensor

from evaluators.data import DataSet, Sample, load
from evaluators.quality import ON_FROZEN, QualityEvaluator
from search_space.genotype import FusionPoint, Genotype
from search_space.named import load_space

VIDEO, CLIP = "Oz06ZWiO20M", "6"
OTHERS = {"train": 7, "valid": 4, "test": 4}
"""Rows of other clips whose videos are not at hand: plain pictures stand in for their frames."""


@pytest.fixture(scope="module")
def mosi(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    source = shared / "data" / "mosi"
    clip = source / "Raw" / VIDEO / f"{CLIP}.mp4"
    if not clip.is_file():
        pytest.skip(f"the clip {clip} is not there")
    root = tmp_path_factory.mktemp("mosi")
    (root / "Raw" / VIDEO).mkdir(parents=True)
    (root / "Raw" / VIDEO / clip.name).symlink_to(clip)
    with open(source / "label.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    own = [row for row in rows if (row["video_id"], row["clip_id"]) == (VIDEO, CLIP)]
    kept = list(own)
    for split, count in OTHERS.items():
        kept += [row for row in rows if row["mode"] == split and row not in own][::40][:count]
    for k, row in enumerate(kept[1:]):
        frames = root / "Frames" / row["video_id"]
        frames.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 36), (9 * k, 60, 90)).save(frames / f"{row['clip_id']}.png")
    with open(root / "label.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(kept)
    return load(root, cache=root.parent / "cache", accept_faults=True)


@pytest.fixture(scope="module")
def real(mosi: DataSet) -> Sample:
    (found,) = (s for s in mosi.samples if s.id == f"{VIDEO}/{CLIP}")
    return found


def test_the_clip_becomes_its_middle_frame(real: Sample) -> None:
    assert real.image is not None
    with Image.open(real.image) as frame:
        assert frame.size == (480, 360) and frame.mode == "RGB"
        lowest, highest = zip(*frame.getextrema(), strict=True)
        assert max(lowest) < 60 and min(highest) > 180, "a lit scene, no blank picture"
    assert (real.split, real.score, real.label) == ("train", -0.8, 0)


def test_its_row_is_predicted_from_text_and_frame(
    shared: Path, mosi: DataSet, real: Sample, tmp_path: Path
) -> None:
    weights = shared / "weights"
    space = load_space(
        "demo",
        text_encoders=[str(weights / "all-MiniLM-L6-v2")],
        vision_encoders=[str(weights / "mobilenet_v2_1.0_224")],
    )
    text, vision = space.text_encoders[0], space.vision_encoders[0]
    points = (FusionPoint(4, 16, "concatenation", 64),)
    genotype = Genotype(text, vision, 64, points, text_pooling="mean")
    evaluator = quality(mosi, tmp_path, QUICK, space)
    found = evaluator.evaluate(genotype)
    assert found.details["fidelity"] == ON_FROZEN
    assert len(found.details["right"][0]) == OTHERS["valid"]
    logits = predicted(evaluator, genotype, real)
    assert logits.shape == (1, 2) and logits.isfinite().all()
    other = next(s for s in mosi.split("train") if s is not real)
    unlike = [replace(real, image=other.image), replace(real, text=other.text)]
    for changed in unlike:  # both the frame and the words are read
        assert (predicted(evaluator, genotype, changed) - logits).abs().max() > 1e-4


def predicted(evaluator: QualityEvaluator, genotype: Genotype, sample: Sample) -> Tensor:
    network = evaluator.trained(genotype)
    (row,) = evaluator.inputs(genotype, [sample])
    with torch.inference_mode():
        logits: Tensor = network(*row)
    return logits
