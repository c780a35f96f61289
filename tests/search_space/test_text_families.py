"""Text encoders of every family: taps are the model's hidden states, or the family is refused."""

from typing import Any

import pytest
import torch
from text_families import CAUSAL, READ, REFUSED, spec_of

from search_space.design.encoder import EncoderError, EncoderSpec
from search_space.design.genotype import FusionPoint, Genotype
from search_space.design.rules import canonical, violations
from search_space.encoders.features import Feature
from search_space.encoders.libraries import import_transformers
from search_space.encoders.loading import describe, load_trunk


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
