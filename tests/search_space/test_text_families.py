"""Text encoders of every family: taps are the model's hidden states, or the family is refused."""

from typing import Any

import pytest
import torch

from search_space.design.encoder import EncoderError, EncoderSpec
from search_space.design.genotype import FusionPoint, Genotype
from search_space.design.rules import canonical, violations
from search_space.encoders.features import Feature
from search_space.encoders.libraries import import_transformers
from search_space.encoders.loading import describe, load_trunk

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
         "intermediate_size": 32, "vocab_size": 64, "max_position_embeddings": 64}  # fmt: skip
OTHERWISE = {name: size for name, size in SIZES.items() if name != "intermediate_size"}
TALL = {"emb_dim": 16, "n_layers": 3, "n_heads": 2, "vocab_size": 64}
DISTILBERT = {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32}
WRITES = {"d_model": 16, "encoder_layers": 3, "decoder_layers": 3, "encoder_ffn_dim": 32,
          "encoder_attention_heads": 2, "decoder_attention_heads": 2}  # fmt: skip
READ: dict[str, dict[str, Any]] = {
    "bert": SIZES, "roberta": SIZES, "distilbert": {"vocab_size": 64, **DISTILBERT},
    "electra": {**SIZES, "embedding_size": 16}, "mpnet": SIZES, "xlm-roberta": SIZES,
    "deberta": SIZES, "deberta-v2": SIZES, "camembert": SIZES, "ernie": SIZES,
    "nomic_bert": SIZES, "mobilebert": SIZES, "roformer": SIZES, "big_bird": SIZES,
    "convbert": {**SIZES, "embedding_size": 16}, "megatron-bert": SIZES, "xlm-roberta-xl": SIZES,
    "data2vec-text": SIZES, "nystromformer": SIZES, "luke": SIZES, "splinter": SIZES,
    "ibert": SIZES, "esm": {**SIZES, "pad_token_id": 1},
    "bart": {"vocab_size": 64, "max_position_embeddings": 64, **WRITES},
    "mbart": {"vocab_size": 64, "max_position_embeddings": 64, **WRITES},
}  # fmt: skip
CAUSAL: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 64, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64},
    "opt": {**OTHERWISE, "ffn_dim": 32, "word_embed_proj_dim": 16},
    "llama": SIZES,
    "qwen2": {**SIZES, "num_key_value_heads": 2},
    "gpt_neox": SIZES,
}
REFUSED: dict[str, dict[str, Any]] = {
    "longformer": {**SIZES, "attention_window": 8}, "layoutlm": SIZES,
    "canine": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2},
    "xlm": {**TALL, "max_position_embeddings": 64}, "flaubert": {**TALL},
    "albert": {**SIZES, "embedding_size": 16}, "t5": {"vocab_size": 64, "d_model": 16},
}  # fmt: skip


def spec_of(model_type: str, config: dict[str, Any]) -> EncoderSpec:
    return EncoderSpec(model_type, "text", "transformers", model_type, "random", model_type, config)


def own_states(spec: EncoderSpec, ids: torch.Tensor, mask: torch.Tensor) -> tuple[Any, Any]:
    """Hidden states and output of the model as transformers makes it of the same seed."""
    transformers = import_transformers()
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(spec.model_type, **spec.config)
    model = transformers.AutoModel.from_config(config).eval()
    torch.random.set_rng_state(state)
    model = model.get_encoder() if config.is_encoder_decoder else model
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    return found.hidden_states, found.last_hidden_state


@pytest.mark.parametrize("model_type", [*READ, *CAUSAL])
def test_every_tap_of_a_family_is_the_hidden_state_of_its_layer(model_type: str) -> None:
    spec = spec_of(model_type, {**READ, **CAUSAL}[model_type])
    shape = describe(spec)
    assert shape.depth == 3 and shape.is_causal == (model_type in CAUSAL)
    ids = torch.randint(4, 60, (2, 13), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    states, last = own_states(spec, ids, mask)
    for depth in (2, 3):
        wanted = tuple(Feature("text", tap, "tokens") for tap in range(1, depth + 1))
        with torch.no_grad():
            found = load_trunk(spec, depth)(ids, mask, wanted)
        for feature in wanted:
            expected = last if feature.tap == 3 else states[feature.tap]
            assert torch.allclose(found[feature], expected, atol=1e-5), feature


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_family_whose_taps_are_not_its_layers_is_refused_in_words(model_type: str) -> None:
    with pytest.raises(EncoderError, match="choose a BERT-like"):
        describe(spec_of(model_type, REFUSED[model_type]))


def test_the_first_token_of_a_causal_encoder_is_not_offered() -> None:
    shapes = {name: describe(spec_of(name, CAUSAL[name])) for name in ("gpt2",)}
    asked = Genotype("gpt2", None, 16, (FusionPoint(2, 0),), text_pooling="cls")
    assert any("causal" in problem for problem in violations(asked, shapes))
    for pooling in ("cls", "pooler"):
        made = Genotype("gpt2", None, 16, (FusionPoint(3, 0),), text_pooling=pooling)
        found = canonical(made, shapes)
        assert found.text_pooling == "mean" and not violations(found, shapes)
        assert canonical(found, shapes) == found
