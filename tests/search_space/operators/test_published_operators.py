"""Operators against their authors' definitions, written out here, by the same weights."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from search_space.design.encoder import EncoderShape
from search_space.design.genotype import FusionPoint, Genotype
from search_space.design.rules import MAX_FUSED_WIDTH, max_width, violations
from search_space.operators.definitions import FUSION_OPERATORS, Operator

BATCH, WIDTH = 5, 8


def made(name: Operator, modalities: int = 2) -> Any:
    torch.manual_seed(1)
    module = FUSION_OPERATORS[name].module(WIDTH, modalities)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return cast(Any, module)


def drawn(*size: int, seed: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


TEXT, IMAGE, SOUND = (drawn(BATCH, WIDTH, seed=seed) for seed in range(3))


def test_multiplicative_interactions_are_those_of_jayakumar_and_others() -> None:
    """f(x, z) = z' W x + z' U + V x + b, z the text and x the image."""
    module = made("multiplicative-interactions")
    w = module.interaction.weight.view(WIDTH, WIDTH, WIDTH)
    u, v = module.separate.weight.split(WIDTH, dim=1)
    for k in range(BATCH):
        z, x = TEXT[k], IMAGE[k]
        interaction = torch.stack([z @ w[n] @ x for n in range(WIDTH)])
        expected = interaction + u @ z + v @ x + module.separate.bias
        torch.testing.assert_close(module(TEXT, IMAGE)[k], expected, rtol=1e-4, atol=1e-4)


def test_multiplicative_interactions_are_a_linear_map_of_the_tensor_fusion() -> None:
    module = made("multiplicative-interactions")
    fused = made("tensor-fusion")(TEXT, IMAGE).view(BATCH, WIDTH + 1, WIDTH + 1)
    weights = torch.zeros(WIDTH, WIDTH + 1, WIDTH + 1)
    weights[:, :-1, :-1] = module.interaction.weight.view(WIDTH, WIDTH, WIDTH)
    weights[:, :-1, -1], weights[:, -1, :-1] = module.separate.weight.split(WIDTH, dim=1)
    weights[:, -1, -1] = module.separate.bias
    expected = torch.einsum("nij,bij->bn", weights, fused)
    torch.testing.assert_close(module(TEXT, IMAGE), expected, rtol=1e-4, atol=1e-4)


def test_film_is_that_of_perez_and_others() -> None:
    """FiLM(F | gamma, beta) = gamma F + beta; the generator gives gamma - 1 and beta."""
    module = made("film")
    to_gamma, to_beta = module.generator.weight.split(WIDTH)
    gamma_bias, beta_bias = module.generator.bias.split(WIDTH)
    gamma = 1 + (TEXT @ to_gamma.T + gamma_bias)
    beta = TEXT @ to_beta.T + beta_bias
    torch.testing.assert_close(module(TEXT, IMAGE), gamma * IMAGE + beta)


def test_the_gated_multimodal_unit_is_that_of_arevalo_and_others() -> None:
    """h = z h_v + (1 - z) h_t of h_v = tanh(W_v v), h_t = tanh(W_t t), z = sigmoid(W_z [v, t])."""
    module = made("gated-multimodal-unit")
    w_t, w_v = (own.weight for own in module.maps)
    of_t, of_v = module.gate.weight.split(WIDTH, dim=1)
    w_z = torch.cat([of_v, of_t], dim=1)
    h_v, h_t = torch.tanh(IMAGE @ w_v.T), torch.tanh(TEXT @ w_t.T)
    z = torch.sigmoid(torch.cat([IMAGE, TEXT], dim=1) @ w_z.T)
    torch.testing.assert_close(module(TEXT, IMAGE), z * h_v + (1 - z) * h_t)
    assert all("bias" not in name for name in module.state_dict())


def test_the_gated_multimodal_unit_of_three_has_a_gate_for_each() -> None:
    module, inputs = made("gated-multimodal-unit", 3), (TEXT, IMAGE, SOUND)
    everything, expected = torch.cat(inputs, dim=1), torch.zeros(BATCH, WIDTH)
    for own, w_z, x in zip(module.maps, module.gate.weight.split(WIDTH), inputs, strict=True):
        expected = expected + torch.sigmoid(everything @ w_z.T) * torch.tanh(x @ own.weight.T)
    torch.testing.assert_close(module(*inputs), expected)


@pytest.mark.parametrize("count", [2, 3])
def test_the_tensor_fusion_is_that_of_zadeh_and_others(count: int) -> None:
    """The outer product of [z; 1] of each modality."""
    inputs = (TEXT, IMAGE, SOUND)[:count]
    for k, vectors in enumerate(zip(*inputs, strict=True)):
        expected = torch.ones(())
        for z in vectors:
            expected = torch.tensordot(expected, torch.cat([z, torch.ones(1)]), dims=0)
        torch.testing.assert_close(made("tensor-fusion", count)(*inputs)[k], expected.flatten())


def test_the_tensor_fusion_holds_the_outer_product_and_the_features_of_each() -> None:
    fused = made("tensor-fusion")(TEXT, IMAGE).view(BATCH, WIDTH + 1, WIDTH + 1)
    outer = made("tensor")(TEXT, IMAGE).view(BATCH, WIDTH, WIDTH)
    torch.testing.assert_close(fused[:, :-1, :-1], outer)
    torch.testing.assert_close(fused[:, :-1, -1], TEXT)
    torch.testing.assert_close(fused[:, -1, :-1], IMAGE)
    assert (fused[:, -1, -1] == 1).all()


def test_the_non_local_operator_is_the_gate_of_multibench() -> None:
    """y_i = q_i + the sum over j of softmax_j(q_i . k_j) v_j, k and v of the other modality."""
    module = made("non-local")
    text, image = drawn(2, 3, WIDTH, seed=4), drawn(2, 6, WIDTH, seed=5)
    (found,) = module((None, None), text, image)
    for sample in range(2):
        for i in range(3):
            q = module.queries(text[sample, i])
            weights = [torch.exp(q @ module.keys(token)) for token in image[sample]]
            read = sum(
                weight / sum(weights) * module.values(token)
                for weight, token in zip(weights, image[sample], strict=True)
            )
            torch.testing.assert_close(found[sample, i], q + read, rtol=1e-4, atol=1e-4)


def test_low_rank_tensor_fusion_is_that_of_liu_and_others() -> None:
    """The sum over ranks of w_r (sum over the features of (T, 1)) * (of (I, 1)), plus a bias."""
    module = made("low-rank-tensor")
    rank, ones = FUSION_OPERATORS["low-rank-tensor"].rank, torch.ones(BATCH, 1)  # type: ignore[attr-defined]
    products = torch.ones(rank, BATCH, WIDTH)
    for own, x in zip(module.factors, (TEXT, IMAGE), strict=True):
        factor = torch.cat([own.weight, own.bias.unsqueeze(1)], dim=1)
        factor = factor.view(rank, WIDTH, WIDTH + 1).transpose(1, 2)
        products = products * (torch.cat([x, ones], dim=1) @ factor)
    weights = torch.ones(1, rank)
    expected = (weights @ products.permute(1, 0, 2)).squeeze(1) + module.bias
    torch.testing.assert_close(module(TEXT, IMAGE), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [16, 64])
def test_low_rank_tensor_fusion_starts_as_its_authors_draw_it(width: int) -> None:
    """Factors (rank, N + 1, N) and the weights of the ranks, (1, rank), by `xavier_normal_`."""
    torch.manual_seed(0)
    rank, shares = 4, []
    for _ in range(40):
        module = cast(Any, FUSION_OPERATORS["low-rank-tensor"].module(width, 2))
        first, second = (torch.cat([f.weight, f.bias[:, None]], 1) for f in module.factors)
        theirs = nn.init.xavier_normal_(torch.empty(rank, width + 1, width))
        assert second.detach().std().item() == pytest.approx(theirs.std().item(), rel=0.15)
        shares.append((first.detach().view(rank, -1).std(1) / theirs.std()).square().mean())
        assert not module.bias.any()
    assert float(torch.stack(shares).mean()) == pytest.approx(2 / (1 + rank), rel=0.25)


SHAPES = {
    "text": EncoderShape("text", "text", (256,), max_tokens=64),
    "vision": EncoderShape("vision", "vision", (256,), ((2, 2),)),
}


def refusals(operator: Operator, width: int) -> tuple[str, ...]:
    point = FusionPoint(1, 1, operator, width)
    return violations(Genotype("text", "vision", 16, (point,)), SHAPES)


def test_multiplicative_interactions_are_refused_where_their_weights_would_be_too_many() -> None:
    assert max_width("multiplicative-interactions", 2) == 128
    assert refusals("multiplicative-interactions", 128) == ()
    for width, features in ((0, 256), (160, 160)):
        (said,) = refusals("multiplicative-interactions", width)
        assert said.endswith(
            f"works in 128 features at most, not in {features}: choose a width up to 128"
        )


@pytest.mark.parametrize(("count", "widest"), [(2, 127), (3, 24)])
def test_the_tensor_fusion_is_as_wide_as_its_outer_product_may_be(count: int, widest: int) -> None:
    assert max_width("tensor-fusion", count) == widest
    assert (widest + 1) ** count <= MAX_FUSED_WIDTH < (widest + 2) ** count
