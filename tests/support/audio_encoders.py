"""Small audio encoders of every kind, and sounds for them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from search_space.design.encoder import (
    SOUND_HZ,
    EncoderSpec,
)
from search_space.encoders.sounds import Floats, sound_input

CONVOLUTIONS = {
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (10, 8, 4),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "layerdrop": 0.5,
    "mask_time_prob": 0.5,
    "mask_time_length": 2,
}
SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
DROPOUTS = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")
WAVEFORMS = {**SIZES, "num_hidden_layers": 3, **CONVOLUTIONS, **dict.fromkeys(DROPOUTS, 0.0)}


def hugging(model_type: str, config: dict[str, Any], seconds: int = 1) -> EncoderSpec:
    return EncoderSpec(
        *(model_type, "audio", "transformers", model_type, "random", model_type, config, seconds)
    )


def from_timm(name: str, seconds: int = 1, **config: Any) -> EncoderSpec:
    return EncoderSpec(f"timm/{name}", "audio", "timm", name, "random", None, config, seconds)


WHISPER = {
    "d_model": 16,
    "encoder_layers": 3,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_mel_bins": 20,
    "max_source_positions": 100,
    "vocab_size": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "encoder_layerdrop": 0.5,
    "dropout": 0.0,
}
SPECTROGRAM = {
    **SIZES,
    "num_hidden_layers": 3,
    "num_mel_bins": 32,
    "max_length": 100,
    "frequency_stride": 10,
    "time_stride": 10,
    "patch_size": 16,
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0),
}
OWN_EXTRACTOR = {
    "wav2vec2": hugging("wav2vec2", WAVEFORMS),
    "wav2vec2 with its norms first": hugging(
        "wav2vec2", {**WAVEFORMS, "do_stable_layer_norm": True, "feat_extract_norm": "layer"}
    ),
    "hubert": hugging("hubert", WAVEFORMS),
    "wavlm": hugging("wavlm", WAVEFORMS),
    "whisper": hugging("whisper", WHISPER),
    "audio-spectrogram-transformer": hugging("audio-spectrogram-transformer", SPECTROGRAM),
}


def tone(hz: float, seconds: float = 1.0, loud: float = 0.5) -> Floats:
    """A sine at 16 kHz."""
    times = np.arange(round(seconds * SOUND_HZ)) / SOUND_HZ
    return (loud * np.sin(2 * np.pi * hz * times)).astype(np.float32)


def noise(count: int, seed: int = 0) -> Floats:
    """White noise of so many samples."""
    return np.random.default_rng(seed).normal(0, 0.2, count).clip(-1, 1).astype(np.float32)


def heard(spec: EncoderSpec, *sounds: Floats) -> Tensor:
    """Sounds as the encoder reads them, (B, ...)."""
    return torch.stack([torch.from_numpy(sound_input(spec).of(sound)) for sound in sounds])
