"""Folders of encoders as people have them: without a tokenizer, with code, pointers or for timm."""

import json
import logging
from pathlib import Path

import pytest
import torch

from evaluators.features.tokenizers import LearnedTokenizer, PretrainedTokenizer
from search_space.design.encoder import EncoderError, EncoderSpec, spec_for
from search_space.encoders.libraries import import_timm, import_transformers
from search_space.encoders.loading import describe, load_trunk
from search_space.encoders.pixels import normalisation

TEXTS = ["a good film", "a bad film", "good morning", "it was fine"]


def bert(folder: Path, texts: list[str] | None = None) -> EncoderSpec:
    """A tiny BERT as `save_pretrained` leaves it; with texts also a tokenizer learned from them."""
    transformers = import_transformers()
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}
    config = transformers.BertConfig(**sizes, intermediate_size=32, max_position_embeddings=32)
    transformers.BertModel(config).save_pretrained(folder)
    if texts is not None:
        LearnedTokenizer(texts, 40).save(folder)
    return spec_for("text", str(folder), "pretrained")


@pytest.mark.parametrize(
    "model_type",
    ["bert", "roberta", "distilbert", "electra", "mpnet", "xlm-roberta", "deberta-v2", "camembert"],
)
def test_an_encoder_saved_without_its_tokenizer_is_refused(tmp_path: Path, model_type: str) -> None:
    import_transformers().AutoConfig.for_model(model_type).save_pretrained(tmp_path)
    spec = EncoderSpec("mine", "text", "transformers", str(tmp_path))
    with pytest.raises(EncoderError, match=r"tokenizer.*(of no use here|no usable)|no pad_token"):
        PretrainedTokenizer(spec).check(TEXTS)


def test_a_tokenizer_that_reads_the_texts_passes_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    PretrainedTokenizer(bert(tmp_path, TEXTS)).check(TEXTS)
    assert not caplog.records


def test_many_unknown_tokens_are_a_warning_and_most_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = PretrainedTokenizer(bert(tmp_path, ["a good film"]))
    with caplog.at_level(logging.WARNING):
        tokenizer.check(["a good film", "a bad film"])
    assert "17 % of the data's tokens are unknown" in caplog.text
    with pytest.raises(EncoderError, match="83 % of the data's tokens are unknown"):
        tokenizer.check(["ein guter film", "это другой язык"])


def test_texts_that_all_read_alike_are_refused(tmp_path: Path) -> None:
    tokenizer = PretrainedTokenizer(bert(tmp_path, ["a good film"]))
    with pytest.raises(EncoderError, match="all of the data's texts the same token ids"):
        tokenizer.check(["Good film", "good FILM"])
    tokenizer.check(["good film", "good film"])


def test_code_of_a_folder_is_never_run_whatever_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bert"
    bert(folder, TEXTS)
    (folder / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Theirs: ...\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    spec = EncoderSpec("mine", "text", "transformers", str(folder))
    tokenizer = folder / "tokenizer_config.json"
    settings = json.loads(tokenizer.read_text())
    settings["auto_map"] = {"AutoTokenizer": ["theirs.Theirs", "theirs.Theirs"]}
    tokenizer.write_text(json.dumps(settings))
    PretrainedTokenizer(spec)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Theirs"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match=r"Python code of its own .auto_map., which is never"):
        describe(spec)
    PretrainedTokenizer(spec)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_git_lfs_pointer_is_named_as_such(tmp_path: Path, file: str) -> None:
    spec = bert(tmp_path, TEXTS)
    (tmp_path / file).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 438007537\n"
    )
    with pytest.raises(EncoderError, match=f"{file} is a Git-LFS pointer.*git lfs pull"):
        describe(spec)


def test_a_downloaded_folder_of_timm_gives_the_network_of_its_name(tmp_path: Path) -> None:
    timm = import_timm()
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0).eval()
    normal = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    about = {"architecture": "test_vit", "num_classes": 0, "pretrained_cfg": {
        **normal, "input_size": [3, 160, 160], "num_classes": 0}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(about))
    from safetensors.torch import save_file

    save_file(model.state_dict(), tmp_path / "model.safetensors")
    spec = spec_for("vision", str(tmp_path), "pretrained")
    assert spec.library == "timm"
    assert normalisation(spec) == (tuple(normal["mean"]), tuple(normal["std"]))
    shape = describe(spec)
    trunk = load_trunk(spec, shape.depth)
    ours, theirs = trunk.state_dict(), model.state_dict()
    assert torch.equal(ours["model.patch_embed.proj.weight"], theirs["patch_embed.proj.weight"])


def test_the_downloaded_efficientnet_is_read(shared: Path) -> None:
    spec = spec_for("vision", str(shared / "weights" / "tf_efficientnet_lite0"), "pretrained")
    shape = describe(spec)
    assert shape.image_size == 224 and shape.widths[-1] == 1280
    trunk = load_trunk(spec, shape.depth)
    (grid, _) = list(trunk.taps(torch.zeros(1, 3, 224, 224)))[-1]  # type: ignore[operator]
    assert grid.shape == (1, 1280, 7, 7) and grid.std() > 0
