"""One real clip of CMU-MOSI, from the video file to a prediction by designs of text, frame and
sound."""

import csv
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from quick_evaluators import QUICK, quality
from torch import Tensor

from evaluators.data import DataSet, Sample, load
from evaluators.data.media.waves import SOUND_HZ, read_sound, wav_bytes
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.training.plan import ON_FROZEN
from search_space.design.genotype import FusionPoint, Genotype
from search_space.modality import MODALITIES
from search_space.space.named import load_space

VIDEO, CLIP = "Oz06ZWiO20M", "6"
OTHERS = {"train": 7, "valid": 4, "test": 4}
"""Rows of other clips whose videos are not at hand: plain pictures and tones stand in for them."""


@pytest.fixture(scope="module")
def folder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
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
        sounds = root / "Sounds" / row["video_id"]
        sounds.mkdir(parents=True, exist_ok=True)
        heard = 8000 * np.sin(np.arange(20_000) * (0.05 + 0.02 * k))
        (sounds / f"{row['clip_id']}.wav").write_bytes(wav_bytes(heard.astype(np.int16)))
    with open(root / "label.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(kept)
    return root


@pytest.fixture(scope="module")
def mosi(folder: Path) -> DataSet:
    return load(folder, cache=folder.parent / "cache", accept_faults=True)


@pytest.fixture(scope="module")
def heard(folder: Path) -> DataSet:
    """The same with the sound of every clip."""
    return load(folder, cache=folder.parent / "cache", accept_faults=True, modalities=MODALITIES)


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


def test_its_sound_is_a_voice_at_16_khz(folder: Path, heard: DataSet) -> None:
    (own,) = (s for s in heard.samples if s.id == f"{VIDEO}/{CLIP}")
    sound = read_sound(own)
    with av.open(str(folder / "Raw" / VIDEO / f"{CLIP}.mp4")) as container:
        stream = container.streams.audio[0]
        seconds = float(stream.duration * stream.time_base)
    assert len(sound) / SOUND_HZ == pytest.approx(seconds, abs=0.1)
    loud = np.abs(sound)
    assert 0.05 < loud.max() <= 1 and np.sqrt((sound**2).mean()) > 0.005
    power = np.abs(np.fft.rfft(sound)) ** 2
    voice = power[np.fft.rfftfreq(len(sound), 1 / SOUND_HZ) < 4000].sum()
    assert voice > 0.9 * power.sum(), "speech, no noise"


def test_its_row_is_predicted_from_text_frame_and_sound(
    shared: Path, heard: DataSet, tmp_path: Path
) -> None:
    weights = shared / "weights"
    space = load_space(
        "trimodal",
        text_encoders=[str(weights / "all-MiniLM-L6-v2")],
        vision_encoders=[str(weights / "mobilenet_v2_1.0_224")],
    )
    text, vision, audio = (space.encoders_of(modality)[0] for modality in MODALITIES)
    points = (FusionPoint(4, 16, "concatenation", 64, 4),)
    genotype = Genotype(
        text, vision, 64, points, text_pooling="mean", audio_encoder=audio, audio_pooling="max"
    )
    evaluator = quality(heard, tmp_path, QUICK, space)
    found = evaluator.evaluate(genotype)
    assert found.details["fidelity"] == ON_FROZEN
    assert len(found.details["right"][0]) == OTHERS["valid"]
    (own,) = (s for s in heard.samples if s.id == f"{VIDEO}/{CLIP}")
    logits = predicted(evaluator, genotype, own)
    assert logits.shape == (1, 2) and logits.isfinite().all()
    other = next(s for s in heard.split("train") if s is not own)
    for part in ("text", "image", "sound"):  # each is read
        changed = replace(own, **{part: getattr(other, part)})
        assert (predicted(evaluator, genotype, changed) - logits).abs().max() > 1e-4, part


def predicted(evaluator: QualityEvaluator, genotype: Genotype, sample: Sample) -> Tensor:
    network = evaluator.trainer.trained(genotype)
    (row,) = evaluator.exporter.inputs(genotype, [sample])
    with torch.inference_mode():
        logits: Tensor = network(*row)
    return logits
