"""Audio encoders as trunks, and what each takes of a sound: its waveform, or its log-mel bands."""

import copy
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audio_encoders import OWN_EXTRACTOR, SIZES, WHISPER, from_timm, heard, hugging, noise, tone
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from evaluators.features.trunk_weights import load_prefix, save_state
from search_space.design.encoder import (
    MAX_AUDIO_TOKENS,
    SOUND_HZ,
    EncoderError,
    EncoderSpec,
    spec_for,
)
from search_space.encoders.features import Feature, Form, map_tokens
from search_space.encoders.libraries import import_transformers
from search_space.encoders.loading import describe, load_trunk
from search_space.encoders.sounds import BANDS, HOP, Floats, sound_input
from search_space.encoders.trunks import MapTrunk
from search_space.space.named import SpaceError, load_space

torch.set_num_threads(1)


LOG_MEL = {
    "mobilenet_v2": hugging("mobilenet_v2", {"num_channels": 1, "depth_multiplier": 0.35}),
    "xcit": from_timm(
        *("xcit_nano_12_p16_224", 2),
        **{"img_size": (64, 200), "embed_dim": 32, "depth": 3, "num_heads": 4},
    ),
    "resnet": from_timm("resnet10t"),
    "vit": from_timm(
        *("vit_tiny_patch16_224", 2),
        **{"img_size": (64, 200), "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4},
    ),
}
ENCODERS = {**OWN_EXTRACTOR, **LOG_MEL}
WITH_DROPPED_LAYERS = ("wav2vec2", "wav2vec2 with its norms first", "hubert", "wavlm", "whisper")
FORMS: tuple[Form, ...] = ("mean", "max", "tokens")


def every(depth: int, *forms: Form) -> tuple[Feature, ...]:
    return tuple(Feature("audio", tap, form) for tap in range(1, depth + 1) for form in forms)


@cache
def trunk_of(name: str, depth: int) -> nn.Module:
    return load_trunk(ENCODERS[name], depth)


def features(trunk: nn.Module, values: Tensor, depth: int, *forms: Form) -> dict[Feature, Tensor]:
    with torch.no_grad():
        found: dict[Feature, Tensor] = trunk(values, every(depth, *forms))
    return found


@pytest.mark.parametrize("name", ENCODERS)
class TestEveryAudioEncoder:
    """What holds for each kind of encoder of sound."""

    def test_its_shape_is_that_of_the_features_that_it_gives(self, name: str) -> None:
        spec, sounds = ENCODERS[name], (tone(440), noise(9000))
        shape, values = describe(spec), heard(spec, *sounds)
        assert (shape.modality, shape.has_class_token, shape.max_tokens) == ("audio", False, 0)
        assert tuple(values.shape[1:]) == shape.sound_size == shape.input_size
        trunk = trunk_of(name, shape.depth)
        found = features(trunk, values, shape.depth, *FORMS)
        assert isinstance(trunk, MapTrunk)
        with torch.no_grad():
            grids = [grid for grid, _ in trunk.taps(values)]
        assert shape.sides == tuple(tuple(grid.shape[2:]) for grid in grids)
        for tap, grid in enumerate(grids, start=1):
            width = shape.widths[tap - 1]
            mean, highest, tokens = (found[Feature("audio", tap, form)] for form in FORMS)
            assert mean.shape == highest.shape == (2, width)
            assert tokens.shape == (2, map_tokens(shape, tap), width)
            assert 1 <= tokens.shape[1] <= MAX_AUDIO_TOKENS
            torch.testing.assert_close(mean, grid.mean((2, 3)))
            assert torch.equal(highest, grid.amax((2, 3)))
            step = -(-grid.shape[3] // MAX_AUDIO_TOKENS)  # of time, over all bands
            torch.testing.assert_close(tokens[:, 0], grid[..., :step].mean((2, 3)))
            last = grid.shape[3] - (tokens.shape[1] - 1) * step
            torch.testing.assert_close(tokens[:, -1], grid[..., -last:].mean((2, 3)))

    def test_cut_at_any_depth_it_gives_what_the_whole_one_does(self, name: str) -> None:
        spec = ENCODERS[name]
        depth, values = describe(spec).depth, heard(spec, tone(440), noise(9000))
        whole = features(trunk_of(name, depth), values, depth, *FORMS)
        counts = []
        for tap in range(1, depth):
            trunk = trunk_of(name, tap)
            counts.append(sum(p.numel() for p in trunk.parameters()))
            for feature, values_of in features(trunk, values, tap, *FORMS).items():
                torch.testing.assert_close(values_of, whole[feature], rtol=1e-4, atol=1e-5)
        assert counts == sorted(set(counts)), "no layer is carried that is not run"

    def test_different_sounds_give_different_features_at_every_tap(self, name: str) -> None:
        """Large enough for half precision, too."""
        spec = ENCODERS[name]
        depth = describe(spec).depth
        values = heard(spec, tone(440), noise(9000))
        for feature, found in features(trunk_of(name, depth), values, depth, "mean").items():
            assert 1e-3 < found.abs().max() < 1e3, feature
            assert (found[0] - found[1]).abs().max() > 1e-4, feature

    @settings(deadline=None, max_examples=8)
    @given(count=st.integers(1, 3 * SOUND_HZ), seed=st.integers(0, 99))
    def test_a_sound_of_any_length_is_read_cut_or_ended_in_silence(
        self, name: str, count: int, seed: int
    ) -> None:
        spec = ENCODERS[name]
        sound, read = noise(count, seed), sound_input(spec)
        found = read.of(sound)
        assert found.dtype == np.float32 and found.shape == read.size
        assert np.isfinite(found).all()
        assert np.array_equal(found, read.of(sound)), "twice the same"
        cut = sound[: spec.seconds * SOUND_HZ]
        assert np.array_equal(found, read.of(cut)), "no more is read than so many seconds"

    def test_training_leaves_no_part_out_at_random(self, name: str) -> None:
        trunk = load_trunk(ENCODERS[name], 2)
        for module in trunk.modules():  # of batches, which it would change in training
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = 0.0
        trunk.train()
        values = heard(ENCODERS[name], tone(440), noise(9000))
        first = features(trunk, values, 2, *FORMS)
        for _ in range(6):
            again = features(trunk, values, 2, *FORMS)
            assert all(torch.equal(again[f], first[f]) for f in first)

    def test_no_weights_are_carried_that_are_never_read(self, name: str) -> None:
        values = heard(ENCODERS[name], tone(440), noise(9000))
        whole = 2 if name == "xcit" else describe(ENCODERS[name]).depth  # its last makes a token
        for depth in (2, whole):
            trunk = load_trunk(ENCODERS[name], depth)
            found = trunk(values, every(depth, "tokens"))
            sum(tokens.square().sum() for tokens in found.values()).backward()
            frozen = [n for n, p in trunk.named_parameters() if not p.requires_grad]
            unread = [n for n, p in trunk.named_parameters() if p.grad is None]
            assert unread == frozen

    def test_a_copy_is_a_trunk_of_its_own_and_nothing_is_kept_after_a_run(self, name: str) -> None:
        trunk, values = load_trunk(ENCODERS[name], 2), heard(ENCODERS[name], tone(440))
        before, other = features(trunk, values, 2, *FORMS), copy.deepcopy(trunk)
        again = features(other, values, 2, *FORMS)
        assert all(torch.equal(again[f], before[f]) for f in before)
        assert all(t.layers.kept == [] for t in (trunk, other) if hasattr(t, "layers"))
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(1.5)
        changed = features(other, values, 2, *FORMS)
        assert not all(torch.equal(changed[f], before[f]) for f in before)
        again = features(trunk, values, 2, *FORMS)
        assert all(torch.equal(again[f], before[f]) for f in before)

    def test_kept_weights_of_the_whole_one_serve_a_cut_one(self, name: str, tmp_path: Path) -> None:
        spec, values = ENCODERS[name], heard(ENCODERS[name], tone(440))
        depth = describe(spec).depth
        whole, part = load_trunk(spec, depth, seed=1), load_trunk(spec, 1, seed=0)
        save_state(whole, tmp_path / "trunk.safetensors")
        load_prefix(part, tmp_path / "trunk.safetensors")
        expected = features(whole, values, depth, *FORMS)
        for feature, found in features(part, values, 1, *FORMS).items():
            torch.testing.assert_close(found, expected[feature], rtol=1e-4, atol=1e-5)

    def test_random_weights_are_the_seeds(self, name: str) -> None:
        spec = ENCODERS[name]
        one, same, other = (load_trunk(spec, 1, seed).state_dict() for seed in (0, 0, 1))
        assert all(torch.equal(one[k], same[k]) for k in one)
        assert any(not torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("name", WITH_DROPPED_LAYERS)
def test_the_model_itself_would_drop_layers_in_training(name: str) -> None:
    """So that the trunks' steadiness says something."""
    model = whole_of(ENCODERS[name])
    model.train()
    values = heard(ENCODERS[name], tone(440))
    with torch.no_grad():
        found = [model(values).last_hidden_state for _ in range(12)]
    assert any(not torch.equal(one, found[0]) for one in found[1:])


def whole_of(spec: EncoderSpec) -> Any:
    """The encoder as transformers gives it."""
    transformers = import_transformers()
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(spec.model_type, **spec.config)
    model = transformers.AutoModel.from_config(config)
    return model.get_encoder() if spec.model_type == "whisper" else model


# -- folders of one's own


def extractor_of(spec: EncoderSpec) -> Any:
    """The feature extractor that goes with the encoder, as a user would make it."""
    transformers = import_transformers()
    if spec.model_type == "whisper":
        return transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=2)
    if spec.model_type == "audio-spectrogram-transformer":
        return transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=100)
    return transformers.Wav2Vec2FeatureExtractor()


def saved(folder: Path, spec: EncoderSpec) -> EncoderSpec:
    """The encoder as a pretrained one, in a folder that transformers wrote."""
    transformers = import_transformers()
    torch.manual_seed(7)
    config = transformers.AutoConfig.for_model(spec.model_type, **spec.config)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    extractor_of(spec).save_pretrained(folder)
    return replace(spec_for("audio", str(folder), "pretrained"), seconds=1)


@pytest.mark.parametrize("name", OWN_EXTRACTOR)
def test_a_saved_folder_gives_the_features_of_the_model_fed_by_its_extractor(
    name: str, tmp_path: Path
) -> None:
    spec = saved(tmp_path, OWN_EXTRACTOR[name])
    transformers = import_transformers()
    model = transformers.AutoModel.from_pretrained(tmp_path, local_files_only=True).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path, local_files_only=True)
    sound = noise(SOUND_HZ, seed=3)
    fed = extractor(sound, sampling_rate=SOUND_HZ, return_tensors="pt")
    (values,) = (fed[key] for key in ("input_values", "input_features") if key in fed)
    encoder = model.get_encoder() if name == "whisper" else model
    with torch.no_grad():
        states = encoder(values, output_hidden_states=True)
    shape = describe(spec)
    assert shape.depth == 3 and spec.name.startswith(f"{tmp_path.name}@")
    found = features(load_trunk(spec, 3), heard(spec, sound), 3, "mean")
    prefix = 2 if name == "audio-spectrogram-transformer" else 0
    expected = [*states.hidden_states[1:3], states.last_hidden_state]
    for tap, state in enumerate(expected, start=1):
        torch.testing.assert_close(
            found[Feature("audio", tap, "mean")], state[:, prefix:].mean(1), rtol=1e-4, atol=1e-5
        )


def test_a_folder_without_its_feature_extractor_is_refused_with_the_way_out(tmp_path: Path) -> None:
    spec = saved(tmp_path, OWN_EXTRACTOR["wav2vec2"])
    (tmp_path / "preprocessor_config.json").unlink()
    refused(spec, r"no usable preprocessor_config\.json.*give the folder that save_pretrained")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    spec = saved(tmp_path, OWN_EXTRACTOR["hubert"])
    model = import_transformers().AutoModel.from_pretrained(tmp_path, local_files_only=True)
    with torch.no_grad():
        next(model.encoder.layers.parameters()).fill_(float("nan"))
    model.save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match="not finite"):
        load_trunk(spec, 3)


def refused(spec: EncoderSpec, said: str) -> None:
    """The encoder cannot be described, and one line says why and what to do."""
    with pytest.raises(EncoderError) as caught:
        describe(spec)
    text = str(caught.value)
    assert "\n" not in text and re.search(said, text), text


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_an_encoder_of_other_sampling_rates_is_refused_with_the_way_out(
    rate: int, tmp_path: Path
) -> None:
    spec = saved(tmp_path, OWN_EXTRACTOR["wav2vec2"])
    file = tmp_path / "preprocessor_config.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**told, "sampling_rate": rate}), encoding="utf-8")
    refused(spec, rf"trained on sounds of {rate:,} samples a second.*16,000: choose another")


def test_an_encoder_of_48_khz_like_clap_is_refused_with_the_way_out(tmp_path: Path) -> None:
    transformers = import_transformers()
    transformers.ClapAudioConfig(hidden_size=16, num_hidden_layers=2).save_pretrained(tmp_path)
    transformers.ClapFeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match="choose another") as caught:
        sound_input(spec_for("audio", str(tmp_path), "pretrained"))
    assert "48,000" in str(caught.value) and "\n" not in str(caught.value)


def test_a_text_encoder_is_no_audio_encoder() -> None:
    sizes = {**SIZES, "num_hidden_layers": 2, "vocab_size": 40}
    refused(hugging("bert", sizes), "a bert reads no sound: choose an audio encoder")


def test_a_pretrained_text_encoder_is_no_audio_encoder(tmp_path: Path) -> None:
    transformers = import_transformers()
    config = transformers.BertConfig(**SIZES, num_hidden_layers=2, vocab_size=40)
    transformers.BertModel(config).save_pretrained(tmp_path)
    refused(
        spec_for("audio", str(tmp_path), "pretrained"),
        r"no usable preprocessor_config\.json.*give the folder that save_pretrained wrote",
    )


@pytest.mark.parametrize("positions", [30, 75])
def test_a_whisper_of_no_whole_seconds_is_refused_with_the_way_out(positions: int) -> None:
    spec = hugging("whisper", {**WHISPER, "max_source_positions": positions})
    refused(spec, f"max_source_positions = {positions} .* give a multiple of 50")


def test_a_model_that_timm_does_not_know_is_refused() -> None:
    refused(from_timm("no_such_net"), "timm has no such model")


@pytest.mark.parametrize("seconds", ["0", "-3", "61", "2.5", "'4'", "true"])
def test_seconds_out_of_range_are_refused_in_a_file(seconds: str, tmp_path: Path) -> None:
    file = space_file(tmp_path, seconds)
    with pytest.raises(SpaceError, match=r"audio_encoder 'ear': seconds = .*whole number up to 60"):
        load_space(str(file))


@pytest.mark.parametrize("seconds", [1, 3])
def test_seconds_in_a_file_are_what_is_read(seconds: int, tmp_path: Path) -> None:
    space = load_space(str(space_file(tmp_path, str(seconds))))
    assert space.encoder("ear").seconds == seconds
    assert space.shapes["ear"].sound_size == (1, BANDS, 100 * seconds)


def test_seconds_of_a_text_encoder_are_refused(tmp_path: Path) -> None:
    file = space_file(tmp_path, "4")
    text = file.read_text(encoding="utf-8").replace("audio_encoder", "vision_encoder")
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SpaceError, match="vision_encoder 'ear': seconds is not a setting"):
        load_space(str(file))


def space_file(folder: Path, seconds: str) -> Path:
    """The space `trimodal` with another encoder of sound."""
    from importlib.resources import files

    text = (files("search_space") / "spaces" / "trimodal.toml").read_text(encoding="utf-8")
    text = text[: text.index("[[audio_encoder]]")]
    text += '[[audio_encoder]]\nname = "ear"\nlibrary = "timm"\nsource = "resnet10t"\n'
    file = folder / "space.toml"
    file.write_text(f'{text}weights = "random"\nseconds = {seconds}\n', encoding="utf-8")
    return file


# -- waveforms


def test_a_short_waveform_is_normalised_before_silence_is_added() -> None:
    read = sound_input(OWN_EXTRACTOR["wav2vec2"])
    sound = 0.05 + 0.1 * noise(4000)
    found = read.of(sound)
    assert found.shape == read.size == (SOUND_HZ,)
    expected = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
    np.testing.assert_allclose(found[:4000], expected, rtol=1e-4, atol=1e-4)
    assert (found[4000:] == 0).all()


def test_a_long_waveform_is_normalised_by_what_is_read_of_it() -> None:
    read = sound_input(OWN_EXTRACTOR["wav2vec2"])
    sound = np.concatenate([noise(SOUND_HZ), np.ones(SOUND_HZ, np.float32)])
    found = read.of(sound)
    assert abs(found.mean()) < 1e-4 and found.std() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", ENCODERS)
def test_silence_is_a_number_to_every_encoder(name: str) -> None:
    spec = ENCODERS[name]
    depth = describe(spec).depth
    found = features(trunk_of(name, depth), heard(spec, np.zeros(800, np.float32)), depth, *FORMS)
    assert all(values.isfinite().all() for values in found.values())


# -- log-mel bands

REFERENCE = LOG_MEL["resnet"]


def mel_of(hz: Any) -> Any:
    """Slaney's mel: linear up to 1 kHz, logarithmic above."""
    hz = np.asarray(hz, dtype=float)
    return np.where(
        hz < 1000, 3 * hz / 200, 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / np.log(6.4)
    )


def hz_of(mel: Any) -> Any:
    """Its inverse."""
    mel = np.asarray(mel, dtype=float)
    return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp(np.log(6.4) * (mel - 15) / 27))


def edges() -> Any:
    """In Hz, of triangular filters that each reach from one to the next but one."""
    return hz_of(np.linspace(mel_of(0), mel_of(SOUND_HZ / 2), BANDS + 2))


def bands_by_hand(sound: Floats, samples: int) -> Any:
    """Log-mel bands in plain NumPy, frame by frame."""
    padded = np.zeros(samples)
    padded[: min(len(sound), samples)] = sound[:samples]
    around = np.pad(padded, 512, mode="reflect")
    window = np.zeros(1024)
    window[312:712] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = [around[start : start + 1024] for start in range(0, samples, HOP)]
    power = np.abs(np.fft.rfft(np.array(frames) * window)) ** 2
    found, edge = np.fft.rfftfreq(1024, 1 / SOUND_HZ), edges()
    filters = []
    for low, middle, high in zip(edge, edge[1:], edge[2:], strict=False):
        rising, falling = (found - low) / (middle - low), (high - found) / (high - middle)
        filters.append(np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low))
    logs = np.log10(np.maximum(power @ np.array(filters).T, 1e-10)).T
    logs = np.maximum(logs, logs.max() - 8)
    return (logs + 4) / 4


@pytest.mark.parametrize(
    "sound",
    [tone(440), noise(SOUND_HZ), tone(3000, 0.3), noise(40_000), np.zeros(100, np.float32)],
    ids=["tone", "noise", "short", "long", "silence"],
)
def test_log_mel_bands_are_those_of_a_plain_computation(sound: Floats) -> None:
    read = sound_input(REFERENCE)
    assert read.size == (1, BANDS, SOUND_HZ // HOP)
    found, expected = read.of(sound)[0], bands_by_hand(sound, SOUND_HZ)
    # Of weak bands a small power is the difference of large numbers, in single precision.
    np.testing.assert_allclose(found, expected, atol=2e-3)


@settings(deadline=None, max_examples=40)
@given(hz=st.floats(60, 7900), loud=st.floats(0.01, 1.0))
def test_the_greatest_band_of_a_tone_is_one_whose_filter_holds_its_frequency(
    hz: float, loud: float
) -> None:
    bands = sound_input(REFERENCE).of(tone(hz, loud=loud))[0, :, 10:-10]
    edge = edges()
    for band in np.unique(bands.argmax(0)):
        assert edge[band] <= hz <= edge[band + 2]


@settings(deadline=None, max_examples=20)
@given(loud=st.floats(0.01, 1.0), seed=st.integers(0, 99))
def test_a_sound_as_loud_as_another_by_a_factor_has_bands_apart_by_one_number(
    loud: float, seed: int
) -> None:
    read, sound = sound_input(REFERENCE), noise(SOUND_HZ, seed)
    difference = read.of(sound) - read.of((loud * sound).astype(np.float32))
    np.testing.assert_allclose(difference, -np.log10(loud) / 2, atol=2e-3)


def test_bands_of_what_follows_a_short_sound_are_silent() -> None:
    bands = sound_input(REFERENCE).of(tone(1000, 0.5))[0]
    floor = bands.max() - 2  # eight powers of ten over the four of its scale
    assert np.allclose(bands[:, 55:], floor) and bands[:, :45].max() > floor + 1


def test_what_an_encoder_reads_tells_its_settings_apart() -> None:
    settings_of = {name: sound_input(spec).settings for name, spec in ENCODERS.items()}
    longer = replace(ENCODERS["wav2vec2"], seconds=2)
    assert sound_input(longer).settings != settings_of["wav2vec2"]
    assert settings_of["resnet"] == settings_of["mobilenet_v2"] != settings_of["xcit"]
    assert settings_of["hubert"] == settings_of["wav2vec2"] != settings_of["whisper"]


def test_the_layers_of_an_encoder_are_not_those_of_an_adapter_after_it() -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "num_conv_pos_embeddings": 8}
    config: dict[str, Any] = {**sizes, "num_conv_pos_embedding_groups": 2, "add_adapter": True}
    config |= {"conv_dim": [8] * 3, "conv_kernel": [10, 3, 3], "conv_stride": [20, 4, 4]}
    config["num_feat_extract_layers"] = 3
    spec = EncoderSpec("adapted", "audio", "transformers", "a", "random", "wav2vec2", config, 1)
    assert describe(spec).widths == (16, 16, 16)


def test_a_trunk_of_one_size_of_picture_is_refused_with_the_size_that_it_would_need() -> None:
    with pytest.raises(EncoderError, match=r"img_size = \[64, 1000\] \(timm\)"):
        describe(spec_for("audio", "timm/vit_tiny_patch16_224", "random"))
