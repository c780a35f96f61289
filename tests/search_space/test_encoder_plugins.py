"""Encoders of plugins: found by entry points, built, exported and compared with what they say."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plugin_packages import on_path, write_package
from safetensors.torch import save_file
from tiny import SPACE

import fusion_nas as fn
from evaluators.features.trunk_weights import architecture
from evaluators.onnx.builder import OnnxBuilder
from fusion_nas.testing import check_encoder
from search_space.design.encoder import EncoderError, EncoderSpec
from search_space.encoders.features import Feature
from search_space.encoders.loading import describe, describe_vocabulary, load_trunk
from search_space.encoders.pixels import normalisation
from search_space.encoders.plugins import (
    GROUP,
    encoder_origins,
    names_plugin,
    plugin_encoder,
    spec_of_plugin,
)
from search_space.encoders.sounds import sound_input, sound_recipe
from search_space.space.named import load_space

CODE = '''\
"""Three small encoders."""

from fusion_nas.encoders import PluginEncoder


class Words(PluginEncoder):
    modality, widths, max_tokens, vocabulary = "text", (8, 8), 16, 50

    def build(self, depth, folder):
        import torch
        from torch import nn

        class Layer(nn.Module):
            def __init__(self):
                super().__init__()
                self.each, self.all = nn.Linear(8, 8), nn.Linear(8, 8)

            def forward(self, states, mask):
                weight = mask.to(states.dtype).unsqueeze(-1)
                mean = (states * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
                return torch.tanh(self.each(states) + self.all(mean))

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.table = nn.Embedding(50, 8)
                self.layers = nn.ModuleList(Layer() for _ in range(depth))

            def forward(self, ids, mask):
                states, taps = self.table(ids), []
                for layer in self.layers:
                    states = layer(states, mask)
                    taps.append(states)
                return taps

        model = Model()
        if folder is not None:
            from safetensors.torch import load_file

            weights = load_file(folder / "model.safetensors")
            model.load_state_dict({name: weights[name] for name in model.state_dict()})
        return model


class Pixels(PluginEncoder):
    modality, widths, image_size = "vision", (4, 6), 32
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    channels = 3

    def build(self, depth, folder):
        import torch
        from torch import nn

        channels, widths = self.channels, self.widths

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                sizes = zip((channels, *widths), widths[:depth])
                self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in sizes)

            def forward(self, values):
                taps = []
                for layer in self.layers:
                    values = layer(torch.tanh(values))
                    taps.append((values, None))
                return taps

        return Model()


class Bands(Pixels):
    modality, channels = "audio", 1
'''
ENTRIES = "tiny-words = tiny_encoders:Words\ntiny-pixels = tiny_encoders:Pixels\ntiny-bands = " + (
    "tiny_encoders:Bands"
)
FAILING = {
    "breaks": ("raise ImportError('no torch')", "breaks = breaks:E", "(ImportError: no torch)"),
    "counts": ("E = 3", "counts = counts:E", "3 is not a subclass of fusion_nas.encoders.Plug"),
    "smells": (
        CODE.replace('"vision", (4, 6)', '"smell", (4, 6)'),
        "smells = smells:Pixels",
        "Pixels.modality is none of text, vision, audio",
    ),
    "flat": (
        CODE.replace('"vision", (4, 6)', '"vision", ()'),
        "flat = flat:Pixels",
        "Pixels.widths is not a tuple of positive whole numbers",
    ),
    "sizeless": (
        CODE.replace('image_size = "vision", (4, 6), 32', 'image_size = "vision", (4, 6), 0'),
        "sizeless = sizeless:Pixels",
        "Pixels.image_size is not a positive whole number",
    ),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Plugins that work, beside others that do not."""
    folder = tmp_path_factory.mktemp("plugins")
    write_package(folder, "tiny-encoders", CODE, ENTRIES, group=GROUP)
    for name, (code, entry, _) in FAILING.items():
        write_package(folder, name, code, entry, group=GROUP)
    with on_path(folder):
        yield folder
    for name in ("tiny-encoders", *FAILING):
        sys.modules.pop(name.replace("-", "_"), None)


def spec(modality: Any, given: str) -> EncoderSpec:
    found = spec_of_plugin(modality, given)
    assert found is not None
    return found


@pytest.mark.parametrize("name", FAILING)
def test_a_plugin_that_fails_is_named_and_the_others_work(tiny: Path, name: str) -> None:
    (found,) = (each for each in fn.plugins() if each.package == name)
    assert FAILING[name][2] in found.failure
    assert describe(spec("vision", "tiny-pixels")).widths == (4, 6)
    with pytest.raises(EncoderError, match=f"{name!r} of the plugin {name} 1.0 cannot be used"):
        spec_of_plugin("vision", name)


def test_plugins_are_found_without_torch(tiny: Path) -> None:
    program = (
        "import sys\nfrom search_space.encoders.plugins import plugin_encoder\n"
        "plugin_encoder('tiny-words')\nprint('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tiny)!r})\n{program}"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_an_encoder_is_described_by_what_it_declares_and_gives(tiny: Path) -> None:
    words, pixels = describe(spec("text", "tiny-words")), spec("vision", "tiny-pixels")
    assert (words.widths, words.max_tokens, words.is_causal) == ((8, 8), 16, False)
    assert describe_vocabulary(spec("text", "tiny-words")) == 50
    assert describe(pixels).sides == ((16, 16), (8, 8)) and describe(pixels).image_size == 32
    assert normalisation(pixels) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    bands = spec("audio", "tiny-bands")
    assert describe(bands).sound_size == sound_input(bands).size == (1, 64, 1000)


def test_an_encoder_of_waveforms_reads_them_as_they_are(tiny: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(plugin_encoder("tiny-bands")), "sound", "waveform")
        sound_input.cache_clear()
        heard = spec("audio", "tiny-bands")
        read = sound_input(heard).of(np.linspace(-1, 1, 100, dtype=np.float32))
        assert read.shape == (160_000,) and read[99] == 1 and not read[100:].any()
        rule = sound_recipe(heard)
        assert rule is not None and rule[0]["kind"] == "waveform" and not rule[0]["normalised"]
    sound_input.cache_clear()


def test_a_space_of_plugins_is_built_and_exported(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(SPACE.replace('"cls", "mean", "pooler"', '"cls", "mean"'), encoding="utf-8")
    space = load_space(str(file), ["tiny-words"], ["tiny-pixels"])
    assert [each.name for each in space.encoders] == ["tiny-words", "tiny-pixels"]
    design = space.sample(random.Random(0))
    specs = {each.name: each for each in space.encoders}
    builder = OnnxBuilder(specs, space.shapes, 2, tmp_path, parts=tmp_path / "parts")
    assert builder.build(design).max_difference < 1e-3
    assert encoder_origins(space.encoders) == {
        "tiny-words": "tiny-encoders 1.0",
        "tiny-pixels": "tiny-encoders 1.0",
    }
    assert architecture(space.encoders[0])["plugins"] == {"tiny-words": "tiny-encoders 1.0"}


def test_weights_are_read_from_a_folder(tiny: Path, tmp_path: Path) -> None:
    model: Any = load_trunk(spec("text", "tiny-words"), 2, seed=7)
    save_file(model.model.state_dict(), tmp_path / "model.safetensors")
    loaded = spec("text", f"tiny-words:{tmp_path}")
    assert loaded.weights == "pretrained" and loaded.name == f"tiny-words:{tmp_path.name}"
    ids = torch.arange(6).unsqueeze(0)
    wanted = (Feature("text", 1, "mean"),)
    found = [t(ids, torch.ones_like(ids), wanted) for t in (model, load_trunk(loaded, 1))]
    assert torch.equal(*(each[wanted[0]] for each in found))


@pytest.mark.parametrize(
    ("modality", "given", "words"),
    [
        ("text", "tiny-pixels", "text encoder tiny-pixels: it reads vision: give --vision-enc"),
        ("text", "tiny-words:nowhere", "text encoder tiny-words:nowhere: there is no folder"),
    ],
)
def test_an_encoder_that_cannot_be_meant_is_refused(
    tiny: Path, modality: Any, given: str, words: str
) -> None:
    with pytest.raises(EncoderError) as caught:
        spec_of_plugin(modality, given)
    assert str(caught.value).startswith(words)


def test_a_folder_of_the_name_comes_first(tiny: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "tiny-pixels"
    own.mkdir()
    with pytest.raises(EncoderError) as caught:
        spec_of_plugin("vision", "tiny-pixels")
    words = f"{own} comes before the plugin tiny-encoders 1.0, and holds no config.json: to use"
    assert words in str(caught.value)
    (own / "config.json").write_text('{"architecture": "resnet18"}', encoding="utf-8")
    assert spec_of_plugin("vision", "tiny-pixels") is None and not names_plugin("tiny-pixels")
    assert names_plugin("tiny-words") and names_plugin(f"tiny-pixels:{own}")


def test_weights_that_are_nowhere_are_refused(tiny: Path) -> None:
    with pytest.raises(EncoderError, match="it has no weights of its own: give tiny-words:FOLDER"):
        spec_of_plugin("text", "tiny-words", "pretrained")


def test_pictures_of_another_size_are_refused(tiny: Path) -> None:
    with pytest.raises(EncoderError, match="it reads pictures of 32 pixels, not of 64"):
        describe(spec("vision", "tiny-pixels").at(64))


@pytest.mark.parametrize("name", ["tiny-words", "tiny-pixels", "tiny-bands"])
def test_the_checks_accept_an_encoder_that_works(tiny: Path, name: str) -> None:
    check_encoder(plugin_encoder(name))


def with_change(old: str, new: str, name: str) -> Any:
    assert old in CODE, old
    scope: dict[str, Any] = {"__name__": "with_change"}
    exec(CODE.replace(old, new), scope)
    return scope[name]()


@pytest.mark.parametrize(
    ("old", "new", "name", "words"),
    [
        ("(8, 8), 16", "(8, 9), 16", "Words", "widths declares 9 features at tap 2, it gives 8"),
        ("taps.append(states)", "taps.append(2 * states)", "Words", "tap 1 is not what layer 1 "),
        ("mask.to(states.dtype)", "torch.ones_like(mask.to(states.dtype))", "Words",
         "real tokens depend on the ids in the padding at tap 1"),
        ("nn.Embedding(50, 8)", "nn.Embedding(50, 8); torch.rand(depth)", "Words",
         "built to tap 1, it gives other values than whole"),
        ("values = layer(torch.tanh(values))", "values = layer(values - values.mean(0))", "Pixels",
         "a sample alone and in a batch differ at tap 1"),
        ("taps.append((values, None))", "taps.append(values)", "Pixels",
         "it does not give pairs of a feature map and a class token or None"),
        ("self.layers = nn.ModuleList(nn.Conv", "self.blocks = nn.ModuleList(nn.Conv", "Pixels",
         "checking shapes raised AttributeError"),
        ("return Model()", "torch.seed(); return Model()", "Pixels", "is drawn otherwise for the"),
        ("return Model()", "torch.manual_seed(5); return Model()", "Pixels",
         "its first weights are the same for another torch.manual_seed"),
        ("+ self.all(mean)", "+ 0 * self.all(mean)", "Words",
         "no gradient reaches layers.0.all.weight"),
    ],
)  # fmt: skip
def test_the_checks_name_each_kind_of_fault(old: str, new: str, name: str, words: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check_encoder(with_change(old, new, name))
    assert words in str(caught.value)
