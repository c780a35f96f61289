"""The tiny space and data with sound."""

import wave
from pathlib import Path

import numpy as np
from tiny import SPACE

SOUND = """
[[audio_encoder]]
name = "tiny-wav2vec2"
library = "transformers"
source = "tiny-wav2vec2"
weights = "random"
model_type = "wav2vec2"
seconds = 1
config = { hidden_size = 16, num_hidden_layers = 3, num_attention_heads = 2, \
intermediate_size = 32, conv_dim = [8, 8], conv_kernel = [40, 8], conv_stride = [40, 8], \
num_conv_pos_embeddings = 8, num_conv_pos_embedding_groups = 2, num_feat_extract_layers = 2 }
"""
OPERATORS = 'operators = ["concatenation", "sum", "gated", "bottleneck"]'
OF_TWO = SPACE[SPACE.index("operators") : SPACE.index("\nwidths")]
HEARING = SPACE.replace(OF_TWO, OPERATORS) + SOUND
MAY_HEAR = HEARING.replace("\n", '\noptional = ["vision", "audio"]\n', 1)


def write_sounds(data: Path) -> None:
    """A second of a tone for every picture, higher where it is light, in noise."""
    (data / "sounds").mkdir()
    rng = np.random.default_rng(0)
    lines = (data / "label.csv").read_text("utf-8").splitlines()[1:]
    for name, _, label, _ in (line.split(",") for line in lines):
        hertz = {"dark": 220.0, "light": 1760.0}[label]
        tone = np.sin(2 * np.pi * hertz * np.arange(16_000) / 16_000)
        values = 8_000 * (tone + rng.normal(0, 0.5, 16_000))
        with wave.open(str(data / "sounds" / f"{name}.wav"), "wb") as file:
            file.setnchannels(1), file.setsampwidth(2), file.setframerate(16_000)
            file.writeframes(values.astype("<i2").tobytes())
