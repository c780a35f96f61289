"""predict.py prepares sounds with numpy alone as training reads them."""

from pathlib import Path

import numpy as np
import pytest
from audio_encoders import OWN_EXTRACTOR, hugging, noise, tone

from evaluators.data.media.waves import read_sound, wav_bytes
from search_space.encoders.sounds import sound_input, sound_recipe
from studies.trained import predict

LOG_MEL = hugging("mobilenet_v2", {"num_channels": 1, "depth_multiplier": 0.35})
ENCODERS = {**OWN_EXTRACTOR, "log-mel bands": LOG_MEL}
OF_TRANSFORMERS_ALONE = "audio-spectrogram-transformer"
SOUNDS = {
    "a tone": tone(440),
    "noise": noise(60_000),
    "a click": np.eye(1, 50, dtype=np.float32)[0],
}


def prepared(folder: Path, name: str, sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A sound as predict.py and as training prepares it."""
    spec = ENCODERS[name]
    recipe = sound_recipe(spec)
    assert recipe is not None
    rule, filters = recipe
    if filters is not None:
        np.save(folder / predict.FILTERS, filters)
    file = folder / "sound.wav"
    file.write_bytes(wav_bytes((32_767 * sound).astype(np.int16)))
    network = predict.Network.__new__(predict.Network)
    network.folder, network.card = folder, {"preprocessing": {"audio": rule}}
    return network._sound(file)[0], sound_input(spec).of(read_sound(file))


@pytest.mark.parametrize("sound", list(SOUNDS))
@pytest.mark.parametrize("name", [name for name in ENCODERS if name != OF_TRANSFORMERS_ALONE])
def test_a_sound_is_prepared_as_training_reads_it(tmp_path: Path, name: str, sound: str) -> None:
    own, expected = prepared(tmp_path, name, SOUNDS[sound])
    assert own.shape == expected.shape and own.dtype == np.float32
    assert np.abs(own - expected).max() < 1e-3


def test_what_transformers_alone_can_prepare_is_known() -> None:
    assert sound_recipe(ENCODERS[OF_TRANSFORMERS_ALONE]) is None
