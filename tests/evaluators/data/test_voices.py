"""The voices of the faces set are as informative as stated, and change nothing else."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from evaluators.data import (
    BUILT_IN,
    FACES,
    SPLITS,
    DataError,
    DataSet,
    Modality,
    Sample,
    faces_data,
    faces_folder,
    measured_ceilings,
    read_sound,
    shapes_folder,
)
from evaluators.data.generative import scenes
from evaluators.data.generative.scenes import Tone
from evaluators.data.synthetic.face_set import data_set as rendering
from evaluators.data.synthetic.face_set import voice_track
from evaluators.data.synthetic.face_set.voices import Voice, speak

SMALL = {"train": (60, 3), "valid": (20, 2), "test": (30, 2)}
THREE: tuple[Modality, ...] = ("text", "vision", "audio")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("voices")


@pytest.fixture(scope="module")
def data(cache: Path) -> DataSet:
    return faces_data(cache, modalities=THREE)


def small(cache: Path, monkeypatch: pytest.MonkeyPatch, seed: int = 0) -> DataSet:
    monkeypatch.setattr(rendering, "SIZES", SMALL)
    return faces_data(cache, seed, modalities=THREE)


@pytest.mark.slow
def test_every_clip_has_a_voice_of_one_and_a_half_to_four_seconds(data: DataSet) -> None:
    assert len(data.samples) == 2199 and data.modalities == THREE
    for sample in data.samples[::7]:
        sound = read_sound(sample)
        assert sample.recording.parts[-3:] == ("Sounds", sample.group, f"{sample.id[11:]}.wav")
        assert 1.5 <= len(sound) / 16_000 <= 4
        assert 0.01 < sound.std() < 0.2 and np.abs(sound).max() < 1


def test_pictures_texts_and_labels_are_the_same_with_voices_and_without(
    tmp_path: Path, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "SIZES", SMALL)
    silent = faces_data(tmp_path)
    assert not (faces_folder(tmp_path) / "Sounds").exists()
    heard = small(tmp_path, monkeypatch)
    assert faces_data(tmp_path) == silent and silent.fingerprint != heard.fingerprint
    for one, other in zip(silent.samples, heard.samples, strict=True):
        assert (one.text, one.label, one.score, one.image) == (
            other.text,
            other.label,
            other.score,
            other.image,
        )
    assert silent.ceilings is not None and heard.ceilings is not None
    assert silent.ceilings.items() < heard.ceilings.items()


def test_the_same_seed_draws_the_same_voices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (small(tmp_path / name, monkeypatch) for name in "ab")
    for one, other in zip(first.samples, second.samples, strict=True):
        assert one.recording.read_bytes() == other.recording.read_bytes()
    assert first.fingerprint == second.fingerprint
    third = small(tmp_path / "a", monkeypatch, seed=1)
    sounds = [data.samples[0].recording.read_bytes() for data in (first, third)]
    assert sounds[0] != sounds[1]


def test_tones_fit_their_labels_as_often_as_the_table_says(cache: Path, data: DataSet) -> None:
    with open(faces_folder(cache) / "Sounds" / "voices.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = {sample.id: sample.label for sample in data.samples}
    found: Counter[tuple[int, int]] = Counter()
    for row in rows:
        said = 2 * labels[f"{row['video_id']}/{row['clip_id']}"] - 1
        found[int(row["tone"]) * said, int(row["strength"])] += 1
    assert len(rows) == len(labels) and sum(scenes.TONES.values()) == 100
    for tone, percent in scenes.TONES.items():
        assert abs(100 * found[tone] / len(rows) - percent) < 1


def test_the_ceilings_follow_from_the_accuracy_of_the_tones(data: DataSet) -> None:
    assert sum(chance for chance, _ in scenes.heard_outcomes()) == 1
    negative = sum(chance for chance, scene in scenes.outcomes() if scene.label == 0)
    neutral = 0.2 * float(max(negative, 1 - negative))
    # Words and face know all but the noise; a strong tone outweighs them, right 45 times of 46.
    ceilings = {"audio": 0.45 + 0.19 + neutral, "all": 0.95 + 0.05 * 0.45 - 0.95 * 0.01}
    assert data.ceilings == pytest.approx(scenes.ceilings() | ceilings, abs=1e-12)


@pytest.mark.parametrize("split", SPLITS)
def test_the_stated_ceilings_are_what_the_best_decisions_reach(
    data: DataSet, cache: Path, split: str
) -> None:
    measured = measured_ceilings(faces_folder(cache), split, audio=True)  # type: ignore[arg-type]
    assert data.ceilings is not None and set(measured) == set(data.ceilings)
    for name, share in measured.items():
        assert share.low <= data.ceilings[name] <= share.high
        assert abs(share.value - data.ceilings[name]) < 5 / share.count + 0.005


def spectrum(sample: Sample) -> np.ndarray:
    """Mean and deviation over time of the logarithm of the energy in 40 bands up to 7.5 kHz."""
    frames = np.lib.stride_tricks.sliding_window_view(read_sound(sample), 400)[::160]
    power = np.abs(np.fft.rfft(frames * np.hanning(400), 512)) ** 2
    bands = np.log(power[:, :240].reshape(len(power), 40, 6).sum(2) + 1e-6)
    return np.concatenate([bands.mean(0), bands.std(0)])


def test_a_linear_probe_hears_the_label_in_the_voices_and_no_more_than_is_there(
    data: DataSet,
) -> None:
    means = {split: np.stack([spectrum(s) for s in data.split(split)]) for split in SPLITS}
    signs = {split: np.array([2 * s.label - 1 for s in data.split(split)]) for split in SPLITS}
    centre, spread = means["train"].mean(0), means["train"].std(0)
    seen = {split: (found - centre) / spread for split, found in means.items()}
    system = seen["train"].T @ seen["train"] + 10 * np.eye(80)
    weights = np.linalg.solve(system, seen["train"].T @ signs["train"])
    right = float(np.mean((seen["test"] @ weights > 0) == (signs["test"] > 0)))
    assert data.ceilings is not None
    assert data.majority("test")[1] + 0.1 < right < data.ceilings["audio"] + 0.02


def test_a_positive_tone_is_higher_louder_and_faster_than_a_negative_one() -> None:
    person = Voice(pitch=120, tract=1, tempo=4, level=0, tilt=1.5, noise=-60)

    def means(tone: Tone) -> np.ndarray:
        rng = np.random.default_rng(0)
        sounds = [speak(person, tone, rng).astype(float) for _ in range(40)]
        return np.mean([(_pitch(sound), np.std(sound), -len(sound)) for sound in sounds], 0)

    assert (means(Tone(1, 2)) > means(Tone(0, 0))).all()
    assert (means(Tone(0, 0)) > means(Tone(-1, 2))).all()


def _pitch(sound: np.ndarray) -> float:
    """The fundamental of the middle of a voice in Hz, by autocorrelation."""
    middle = sound[len(sound) // 2 - 2000 : len(sound) // 2 + 2000]
    alike = np.correlate(middle, middle, "full")[len(middle) - 1 :]
    return 16_000 / (60 + int(alike[60:270].argmax()))


def test_an_interrupted_drawing_of_voices_leaves_the_set_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(voice_track, "wav_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            small(tmp_path, monkeypatch)
    folder = faces_folder(tmp_path)
    assert (folder / "label.csv").is_file()
    assert not [path for path in folder.iterdir() if "Sounds" in path.name and path.is_dir()]
    assert len(small(tmp_path, monkeypatch).samples) == 110


def test_voices_that_lost_a_file_are_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = small(tmp_path, monkeypatch)
    data.samples[0].recording.unlink()
    assert faces_data(tmp_path, modalities=THREE) == data


def test_the_faces_have_sound_and_the_shapes_say_that_they_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "SIZES", SMALL)
    assert BUILT_IN[FACES].draw(tmp_path, modalities=("text", "audio")).samples[0].sound
    with pytest.raises(DataError, match="built-in:shapes has no sound; choose built-in:faces or"):
        BUILT_IN["built-in:shapes"].draw(tmp_path, modalities=THREE)
    assert not shapes_folder(tmp_path).exists()
