"""Spaces and encoders as files: what is read, and what is refused in words."""

import json
import shutil
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from search_space.design.encoder import EncoderError, EncoderSpec, spec_for
from search_space.design.genotype import TEXT_POOLINGS, VISION_POOLINGS
from search_space.encoders.features import Feature
from search_space.encoders.libraries import import_timm, import_transformers
from search_space.encoders.loading import describe, load_trunk
from search_space.encoders.pixels import normalisation
from search_space.operators.definitions import OPERATORS
from search_space.space.named import SpaceError, load_space, names

GOOD = """
name = "mine"
text_tokens = [16, 32]
fusion_points = [1, 2]
operators = ["concatenation", "gated"]
widths = [0, 32]
attention_blocks = [0, 1]
attention_over = ["pooled"]
text_pooling = ["cls"]
vision_pooling = ["mean"]
precision = ["fp32"]

[[text_encoder]]
name = "tiny-bert"
library = "transformers"
source = "tiny-bert"
weights = "random"
model_type = "bert"
config = { hidden_size = 16, num_hidden_layers = 2, num_attention_heads = 2, vocab_size = 50 }

[[vision_encoder]]
source = "timm/resnet18"
weights = "random"
"""


def file_of(folder: Path, *changes: tuple[str, str]) -> str:
    """A space's file with parts of it exchanged."""
    text = GOOD
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file = folder / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def problems(folder: Path, *changes: tuple[str, str]) -> str:
    with pytest.raises(SpaceError) as caught:
        load_space(file_of(folder, *changes))
    return str(caught.value)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A folder as save_pretrained writes it, with a small BERT."""
    transformers = import_transformers()
    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=50,
    )
    folder = tmp_path / "small"
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def text_from(source: Path | str, weights: Any = "pretrained") -> EncoderSpec:
    return EncoderSpec("mine", "text", "transformers", str(source), weights)


FORMS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""In which weights lie in a folder: one file, several with an index, torch's own."""


def states_of(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a folder that save_pretrained wrote."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def save_as(folder: Path, form: str, weights: dict[str, torch.Tensor]) -> None:
    """Replaces a BERT's own weights."""
    for file in folder.glob("*model*"):
        file.unlink()
    if form == "pytorch_model.bin":
        torch.save(weights, folder / form)
        return
    transformers = import_transformers()
    model = transformers.BertModel(transformers.BertConfig.from_pretrained(folder))
    size = "10KB" if form.endswith(".index.json") else "1GB"
    model.save_pretrained(folder, state_dict=dict(weights), max_shard_size=size)
    assert (folder / form).is_file()


def states(spec: EncoderSpec) -> torch.Tensor:
    """What the first layer says about two texts of five words."""
    ids = torch.arange(10).reshape(2, 5)
    wanted = Feature("text", 1, "tokens")
    with torch.no_grad():
        found: torch.Tensor = load_trunk(spec, 1)(ids, torch.ones_like(ids), (wanted,))[wanted]
    return found


class TestShippedSpaces:
    def test_there_are_five(self) -> None:
        assert names() == ("demo", "fusion-1152", "fusions", "paper", "trimodal")

    @pytest.mark.parametrize(
        ("name", "text", "vision"),
        [
            ("demo", ["small-bert"], ["small-xcit"]),
            ("paper", ["bert-base-uncased"], ["mobilenet_v2_1.4_224", "vit-base-patch16-224"]),
            ("fusion-1152", ["all-MiniLM-L6-v2"], ["mobilenet_v2_1.0_224"]),
        ],
    )
    def test_random_weights_need_neither_hub_nor_folder(
        self, name: str, text: list[str], vision: list[str]
    ) -> None:
        space = load_space(name, weights="random")
        assert (space.name, *map(list, (space.text_encoders, space.vision_encoders))) == (
            name,
            text,
            vision,
        )
        assert all(space.encoder(encoder).weights == "random" for encoder in space.shapes)

    def test_one_offers_thirteen_operators_and_every_pooling_over_the_encoders_of_paper(
        self,
    ) -> None:
        """Operators that came later would change the vectors of studies over it."""
        space, paper = (load_space(name, weights="random") for name in ("fusions", "paper"))
        assert space.encoders == paper.encoders
        offered = (space.operators, space.text_poolings, space.vision_poolings)
        known = (OPERATORS[:13], TEXT_POOLINGS, VISION_POOLINGS)
        assert [*map(set, offered)] == [*map(set, known)]

    @pytest.mark.parametrize("name", ["demo", "fusions", "paper", "trimodal"])
    def test_a_space_offers_what_its_file_says(self, name: str) -> None:
        fields = tomllib.loads((files("search_space") / "spaces" / f"{name}.toml").read_text())
        decisions = {d.name: list(d.choices) for d in load_space(name, weights="random").decisions}
        assert decisions["text_tokens"] == fields["text_tokens"]
        assert decisions["width_3"] == fields["widths"]
        assert decisions["operator_1"] == fields["operators"]
        least, most = fields["attention_blocks"]
        assert decisions["attention_blocks"] == list(range(least, most + 1))
        assert decisions["fusion_points"] == [1, 2, 3]


class TestSpacesOfYourOwn:
    def test_a_file_is_a_space(self, tmp_path: Path) -> None:
        space = load_space(file_of(tmp_path))
        assert space.name == "mine"
        assert list(space.shapes) == ["tiny-bert", "timm/resnet18"]
        assert space.shapes["tiny-bert"].widths == (16, 16)
        assert space.shapes["timm/resnet18"].widths == (64, 64, 128, 256, 512)

    def test_given_encoders_stand_in_for_the_spaces_own(self, bert: Path, tmp_path: Path) -> None:
        space = load_space(
            file_of(tmp_path), [str(bert)], ["mobilenetv3_small_050"], weights="random"
        )
        assert space.text_encoders[0].startswith("small@")
        assert space.vision_encoders == ("timm/mobilenetv3_small_050",)

    @pytest.mark.parametrize(
        ("old", "new", "told"),
        [
            ('name = "mine"', "name = 3", "name = 3: give a text"),
            ("text_tokens = [16, 32]", "", "text_tokens is missing"),
            ("[16, 32]", "[8, 32]", "text_tokens = [8, 32]: give rising whole numbers from 16"),
            ("[16, 32]", "[32, 16]", "text_tokens = [32, 16]: give rising"),
            ("[16, 32]", "[16.5]", "text_tokens = [16.5]"),
            ("[16, 32]", "[]", "text_tokens = []"),
            ("[16, 32]", "16", "text_tokens = 16"),
            ("[0, 32]", "[0, 9999]", "widths = [0, 9999]: give rising whole numbers from 0"),
            ("[0, 32]", "[0, true]", "widths = [0, True]"),
            ("points = [1, 2]", "points = [0, 2]", "fusion_points = [0, 2]: give [least, most]"),
            ("points = [1, 2]", "points = [1, 4]", "within 1 and 3"),
            ("points = [1, 2]", "points = [2]", "fusion_points = [2]"),
            ("blocks = [0, 1]", "blocks = [3, 1]", "attention_blocks = [3, 1]"),
            ('["concatenation", "gated"]', '["mix"]', "operators: 'mix' is none of concatenation"),
            ('"gated"', '"concatenation"', "operators = ['concatenation', 'concatenation']"),
            ('["concatenation", "gated"]', '[["gated"]]', "operators: ['gated'] is none of"),
            ('["pooled"]', "[]", "attention_over = []: give a list without repetition"),
            ('["cls"]', '"cls"', "text_pooling = 'cls': give a list"),
            ('["mean"]', '["min"]', "vision_pooling: 'min' is none of cls, mean, max, conv-max"),
            ('["fp32"]', '["fp8"]', "precision: 'fp8' is none of fp32, fp16, int8, int8-dynamic"),
            ('precision = ["fp32"]', 'precisions = ["fp32"]', "precisions is not a setting"),
            ('"timm/resnet18"', "18", "vision_encoder '?': source = 18: give a text"),
            ('source = "timm/resnet18"', "", "vision_encoder '?': source is missing"),
            ("[[vision_encoder]]", "[vision_encoder]", "give at least one [[vision_encoder]]"),
            ('model_type = "bert"', "", "text_encoder 'tiny-bert': config without model_type"),
            ('"transformers"', '"keras"', "library 'keras' is not transformers"),
            ('"transformers"', '"timm"', "library 'timm' is not transformers"),
            ('model_type = "bert"', "colour = 1", "text_encoder 'tiny-bert': colour is not a"),
        ],
    )
    def test_a_malformed_setting_is_named_with_its_value(
        self, tmp_path: Path, old: str, new: str, told: str
    ) -> None:
        assert told in problems(tmp_path, (old, new))

    def test_weights_from_nowhere_are_named(self, tmp_path: Path) -> None:
        twice = GOOD.replace('weights = "random"', 'weights = "zeros"')
        (tmp_path / "mine.toml").write_text(twice)
        with pytest.raises(SpaceError) as caught:
            load_space(str(tmp_path / "mine.toml"))
        assert str(caught.value).count("weights 'zeros' is neither pretrained nor random") == 2

    def test_all_problems_are_told_at_once(self, tmp_path: Path) -> None:
        told = problems(
            tmp_path,
            ("[16, 32]", "[1]"),
            ('["fp32"]', '["fp8"]'),
            ("points = [1, 2]", "points = [5, 6]"),
            ('source = "tiny-bert"', "sauce = 1"),
        )
        parts = ("text_tokens = [1]", "'fp8'", "fusion_points = [5, 6]", "source is missing")
        assert all(part in told for part in (*parts, "sauce is not a setting", "mine.toml"))

    def test_a_missing_encoder_is_told_once(self, tmp_path: Path) -> None:
        (tmp_path / "mine.toml").write_text(GOOD.split("[[vision_encoder]]")[0])
        with pytest.raises(SpaceError) as caught:
            load_space(str(tmp_path / "mine.toml"))
        assert str(caught.value).count("vision_encoder") == 1

    def test_an_unknown_name_says_what_there_is(self) -> None:
        said = "no search space 'papper': choose demo or fusion-1152 or fusions or paper"
        with pytest.raises(SpaceError, match=said):
            load_space("papper")

    def test_a_file_that_is_not_toml_is_refused_in_words(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.toml"
        file.write_text("name = ")
        with pytest.raises(SpaceError, match=r"mine\.toml: not TOML"):
            load_space(str(file))
        file.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(SpaceError, match=r"mine\.toml: cannot be read"):
            load_space(str(file))

    def test_an_encoder_named_twice_is_refused(self) -> None:
        with pytest.raises(SpaceError, match="timm/resnet18 named twice"):
            load_space("demo", vision_encoders=["resnet18", "timm/resnet18"])

    def test_one_encoder_may_read_pictures_and_sounds(self) -> None:
        both = {"vision_encoders": ["timm/resnet18"], "audio_encoders": ["timm/resnet18"]}
        space = load_space("trimodal", **both, weights="random")  # type: ignore[arg-type]
        assert [spec.name for spec in space.encoders if spec.modality != "text"] == [
            "timm/resnet18",
            "timm/resnet18-audio",
        ]


class TestSources:
    """How a user's word for an encoder is read."""

    def test_a_folder_is_named_by_its_configuration_too(self, bert: Path) -> None:
        spec = spec_for("text", str(bert), "pretrained")
        assert (spec.library, spec.source) == ("transformers", str(bert.resolve()))
        config = bert / "config.json"
        config.write_text(config.read_text() + "\n")
        name, digest = spec.name.split("@")
        assert (name, len(digest)) == ("small", 8)
        assert spec_for("text", str(bert), "pretrained").name != spec.name

    def test_timm_and_the_hub_are_told_apart(self) -> None:
        for source in ("timm/resnet18", "resnet18"):
            spec = spec_for("vision", source, "random")
            assert (spec.name, spec.library, spec.source) == ("timm/resnet18", "timm", "resnet18")
        for modality, source in (("vision", "google/vit"), ("text", "bert-base-uncased")):
            assert spec_for(modality, source, "random").library == "transformers"  # type: ignore[arg-type]

    def test_a_folder_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(EncoderError, match="there is no such folder"):
            spec_for("text", str(tmp_path / "none"), "pretrained")

    def test_a_spec_survives_json(self) -> None:
        for spec in load_space("demo").encoders:
            assert EncoderSpec.from_json(json.loads(json.dumps(spec.as_json()))) == spec


class TestEncodersThatCannotBeHad:
    """Each is refused in words; none starts from random weights in silence."""

    def test_an_unknown_timm_name(self) -> None:
        spec = EncoderSpec("mine", "vision", "timm", "resnet1848", "random")
        with pytest.raises(EncoderError, match="'resnet1848': timm has no such model"):
            describe(spec)

    def test_timm_for_text(self) -> None:
        with pytest.raises(EncoderError, match="timm has no encoders of text"):
            describe(spec_for("text", "timm/resnet18", "random"))

    def test_timm_weights_that_are_not_in_the_cache(self, tmp_path: Path) -> None:
        empty = {"cache_dir": str(tmp_path)}
        spec = EncoderSpec("mine", "vision", "timm", "resnet18", "pretrained", None, empty)
        with pytest.raises(EncoderError, match=r"resnet18: no pretrained weights .* fetch"):
            load_trunk(spec, 1)

    def test_settings_that_timm_does_not_know(self) -> None:
        spec = EncoderSpec("mine", "vision", "timm", "resnet18", "random", None, {"img_size": 64})
        with pytest.raises(EncoderError, match=r"cannot build it with config \{'img_size': 64\}"):
            describe(spec)

    def test_a_folder_without_a_configuration(self, tmp_path: Path) -> None:
        with pytest.raises(EncoderError, match=r"the folder holds no config\.json"):
            spec_for("text", str(tmp_path), "pretrained")
        for weights in ("pretrained", "random"):
            with pytest.raises(EncoderError, match=r"no usable config\.json there"):
                describe(text_from(tmp_path, weights))

    @pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"model_type": "brt"}'])
    def test_a_configuration_that_says_nothing(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(EncoderError, match=r"no usable config\.json there"):
            describe(text_from(tmp_path))

    @pytest.mark.parametrize("weights", ["pretrained", "random"])
    def test_a_hub_id_that_is_not_in_the_cache(self, weights: str) -> None:
        with pytest.raises(
            EncoderError, match=r"neither a folder nor in the hub's cache.*hf download"
        ):
            describe(text_from("nobody/nothing", weights))

    def test_a_folder_without_weights(self, bert: Path) -> None:
        (bert / "model.safetensors").unlink()
        with pytest.raises(EncoderError, match=r"no weights there.*model\.safetensors"):
            load_trunk(text_from(bert), 1)
        load_trunk(text_from(bert, "random"), 1)  # asked for, so not in silence

    def test_weights_with_keys_missing(self, bert: Path) -> None:
        from safetensors.torch import load_file, save_file

        file = bert / "model.safetensors"
        kept = {k: v for k, v in load_file(file).items() if "layer.1.output" not in k}
        save_file(kept, file, {"format": "pt"})
        with pytest.raises(EncoderError, match=r"4 weights are missing, encoder\.layer\.1\.output"):
            load_trunk(text_from(bert), 1)

    def test_weights_of_another_architecture(self, bert: Path, tmp_path: Path) -> None:
        transformers = import_transformers()
        other = transformers.DistilBertModel(
            transformers.DistilBertConfig(dim=16, n_layers=1, n_heads=2, vocab_size=50)
        )
        other.save_pretrained(tmp_path / "other")
        shutil.copy(tmp_path / "other/model.safetensors", bert / "model.safetensors")
        with pytest.raises(EncoderError, match="not one of this architecture"):
            load_trunk(text_from(bert), 1)

    def test_weights_of_another_size(self, bert: Path) -> None:
        config = json.loads((bert / "config.json").read_text())
        (bert / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
        with pytest.raises(EncoderError, match=r"weights do not fit its config\.json"):
            load_trunk(text_from(bert), 1)

    @pytest.mark.parametrize("kept", [0, 100, 1000])
    @pytest.mark.parametrize("form", FORMS)
    def test_weights_torn_off(self, bert: Path, form: str, kept: int) -> None:
        save_as(bert, form, states_of(bert))
        files = [file for file in bert.glob("*model*") if file.suffix != ".json"]
        file = max(files, key=lambda file: file.stat().st_size)
        file.write_bytes(file.read_bytes()[:kept])
        for load in (describe, lambda spec: load_trunk(spec, 1)):
            with pytest.raises(
                EncoderError, match=rf"{bert.name}: .*cannot be read.*save .* again"
            ):
                load(text_from(bert))

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_no_numbers(self, bert: Path, value: float) -> None:
        weights = states_of(bert)
        weights["encoder.layer.1.output.dense.weight"][3, 3] = value
        save_as(bert, "model.safetensors", weights)
        told = rf"{bert.name}: .*encoder\.layer\.1\.output\.dense\.weight .*not finite.* another"
        for load in (describe, lambda spec: load_trunk(spec, 1)):
            with pytest.raises(EncoderError, match=told):
                load(text_from(bert))

    def test_statistics_of_batch_norm_that_are_no_numbers(self, tmp_path: Path) -> None:
        transformers = import_transformers()
        config = transformers.MobileNetV2Config(depth_multiplier=0.35, image_size=32)
        model = transformers.MobileNetV2Model(config)
        model.conv_stem.first_conv.normalization.running_mean[0] = float("nan")
        model.save_pretrained(tmp_path)
        spec = EncoderSpec("mine", "vision", "transformers", str(tmp_path))
        with pytest.raises(EncoderError, match=r"conv_stem.*running_mean .*not finite"):
            load_trunk(spec, 1)

    @pytest.mark.parametrize(
        ("config", "told"),
        [
            ({"vocab_size": 3}, r"x: it has 3 token ids.*at least 4 .*choose another"),
            (
                {"max_position_embeddings": 15},
                r"x: it has 15 positions.*at least 16 .*choose another",
            ),
            ({"num_hidden_layers": 0}, r"x: it has 0 layers.*at least 1 .*choose another"),
        ],
    )
    def test_a_text_encoder_too_small_for_any_text(self, config: dict[str, Any], told: str) -> None:
        small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        least = {"vocab_size": 4, "max_position_embeddings": 16}

        def spec(**settings: int) -> EncoderSpec:
            return EncoderSpec("x", "text", "transformers", "x", "random", "bert", settings)

        assert describe(spec(**small, **least)).max_tokens == 16
        with pytest.raises(EncoderError, match=told):
            describe(spec(**{**small, **least, **config}))

    @pytest.mark.parametrize(
        ("model_type", "config", "told"),
        [
            ("brt", {}, "transformers knows no model_type 'brt'"),
            ("bert", {"hidden_sise": 64}, "hidden_sise: no setting of bert"),
            ("bert", {"hidden_size": "wide"}, "'hidden_size' expected int, got str"),
            ("bert", {"hidden_size": 10}, "not a multiple of the number of attention heads"),
            ("albert", {}, "shared layers, as in ALBERT"),
            ("t5", {}, "T5Stack names no longest text|keeps no list"),
            ("xlnet", {}, "XLNetModel names no longest text"),
            ("clip", {}, "CLIPModel names no hidden_size.*choose a BERT-like"),
        ],
    )
    def test_a_configuration_that_cannot_be_built(
        self, model_type: str, config: dict[str, Any], told: str
    ) -> None:
        spec = EncoderSpec("x", "text", "transformers", "x", "random", model_type, config)
        with pytest.raises(EncoderError, match=told):
            describe(spec)

    def test_a_text_model_in_place_of_a_vision_model(self, bert: Path) -> None:
        with pytest.raises(EncoderError, match="BertModel names no image size"):
            describe(EncoderSpec("x", "vision", "transformers", str(bert)))


class TestWeightsOfAFolder:
    def test_they_are_the_ones_that_were_saved(self, bert: Path) -> None:
        model = import_transformers().BertModel.from_pretrained(bert).eval()
        ids = torch.arange(10).reshape(2, 5)
        with torch.no_grad():
            expected = model(input_ids=ids, output_hidden_states=True).hidden_states[1]
        torch.testing.assert_close(states(text_from(bert)), expected)
        assert not torch.allclose(states(text_from(bert, "random")), expected)

    def test_half_precision_is_read_in_full(self, bert: Path) -> None:
        whole = states(text_from(bert))
        import_transformers().BertModel.from_pretrained(bert).half().save_pretrained(bert)
        for weights in ("pretrained", "random"):
            trunk = load_trunk(text_from(bert, weights), 2)
            assert {p.dtype for p in trunk.parameters()} == {torch.float32}
        torch.testing.assert_close(states(text_from(bert)), whole, rtol=0, atol=0.05)

    @pytest.mark.parametrize("form", FORMS)
    def test_a_pooler_that_was_not_saved_is_no_pooler(self, bert: Path, form: str) -> None:
        weights = states_of(bert)
        save_as(bert, form, weights)
        assert describe(text_from(bert)).has_pooler
        assert load_trunk(text_from(bert), 2).pooler is not None
        save_as(bert, form, {k: v for k, v in weights.items() if not k.startswith("pooler.")})
        describe.cache_clear()
        assert not describe(text_from(bert)).has_pooler
        assert load_trunk(text_from(bert), 2).pooler is None

    def test_describing_an_encoder_draws_no_random_numbers(self, bert: Path) -> None:
        weights = states_of(bert)
        kept = {k: v for k, v in weights.items() if not k.startswith("pooler.")}
        save_as(bert, "model.safetensors", kept)
        before = torch.random.get_rng_state()
        describe(text_from(bert))
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_a_model_with_a_head_gives_its_encoder(self, bert: Path) -> None:
        transformers = import_transformers()
        whole = states(text_from(bert))
        head = transformers.BertForMaskedLM(transformers.BertConfig.from_pretrained(bert))
        head.bert.load_state_dict(
            transformers.BertModel.from_pretrained(bert, add_pooling_layer=False).state_dict()
        )
        head.save_pretrained(bert)
        torch.testing.assert_close(states(text_from(bert)), whole)
        describe.cache_clear()
        assert not describe(text_from(bert)).has_pooler


class TestNormalisation:
    def test_a_folder_says_it_itself(self, tmp_path: Path) -> None:
        spec = EncoderSpec("x", "vision", "transformers", str(tmp_path))
        settings = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
        assert normalisation(spec) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
        (tmp_path / "preprocessor_config.json").write_text('{"image_mean": 0.4, "image_std": 1}')
        assert normalisation(spec) == ((0.4,) * 3, (1.0,) * 3)
        (tmp_path / "preprocessor_config.json").write_text("{}")
        assert normalisation(spec) == ((0.5,) * 3, (0.5,) * 3)

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"{", "no usable preprocessor_config.json"),
            (b"\xff\xfe", "no usable preprocessor_config.json"),
            (b"[1]", "no usable preprocessor_config.json"),
            (b'{"image_mean": null}', "image_mean = None"),
            (b'{"image_mean": "0.5"}', "image_mean = '0.5'"),
            (b'{"image_mean": [0.5, 0.5]}', "image_mean = [0.5, 0.5]"),
            (b'{"image_mean": [0.5, 0.5, true]}', "image_mean = [0.5, 0.5, True]"),
            (b'{"image_mean": [0.5, 0.5, NaN]}', "image_mean = [0.5, 0.5, nan]"),
            (b'{"image_std": [0.5, 0.5, 0]}', "image_std = [0.5, 0.5, 0]"),
            (b'{"image_std": 1e-60}', "image_std = 1e-60"),
            (b'{"image_mean": 1e999}', "image_mean = inf"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(
        self, tmp_path: Path, content: bytes, told: str
    ) -> None:
        (tmp_path / "preprocessor_config.json").write_bytes(content)
        with pytest.raises(EncoderError) as caught:
            normalisation(EncoderSpec("x", "vision", "transformers", str(tmp_path)))
        assert told in str(caught.value) and tmp_path.name in str(caught.value)

    def test_pretrained_timm_models_say_it(self) -> None:
        spec = EncoderSpec("x", "vision", "timm", "resnet18")
        mean, _ = normalisation(spec)
        assert mean == pytest.approx((0.485, 0.456, 0.406))

    def test_untrained_encoders_have_no_wish(self) -> None:
        for source, library in (("resnet18", "timm"), ("nobody/nothing", "transformers")):
            spec = EncoderSpec("x", "vision", library, source, "random")  # type: ignore[arg-type]
            assert normalisation(spec) == ((0.5,) * 3, (0.5,) * 3)


def test_timm_and_transformers_load_side_by_side() -> None:
    assert import_timm() is import_timm()
    assert import_transformers() is import_transformers()
