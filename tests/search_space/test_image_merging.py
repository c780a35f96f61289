"""Merging of similar tokens inside ViTs: held against the paper, and what follows from it."""

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from composed import assert_same

from evaluators.costs import static_costs
from evaluators.features.trunk_weights import architecture
from evaluators.latency.features import LatencyFeatures
from evaluators.latency.trunk_work import TrunkWork
from evaluators.onnx.builder import run_onnx
from evaluators.onnx.export import export
from evaluators.onnx.rewriting import Rewriting
from search_space.design.encoder import EncoderError, EncoderSpec
from search_space.design.genotype import FusionPoint, Genotype
from search_space.encoders.features import Feature
from search_space.encoders.loading import describe, load_trunk
from search_space.encoders.merging.matching import match, merge_means, most_merged
from search_space.network.network import build
from search_space.network.rewrites import NONE
from search_space.space.named import SpaceError, load_space
from search_space.space.space import SearchSpace
from studies.samplers.pool import _features

MERGING = Path(__file__).parents[2] / "examples" / "merging.toml"
SMALL = Path(__file__).parents[1] / "support" / "small_space.toml"
DEPTH = 4
CONFIG = {
    "hidden_size": 16,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 2,
    "image_size": 48,
    "patch_size": 8,
}
VIT = EncoderSpec(
    "vit", "vision", "transformers", "vit", "random", "vit", {**CONFIG, "intermediate_size": 32}
)
DINO = EncoderSpec("dino", "vision", "transformers", "dino", "random", "dinov2", CONFIG)
_TIMM = {"img_size": 48, "patch_size": 8, "embed_dim": 16, "depth": DEPTH, "num_heads": 2}
TIMM = EncoderSpec("timm", "vision", "timm", "vit_tiny_patch16_224", "random", config=_TIMM)
NO_CLASS = replace(TIMM, name="gap", config={**_TIMM, "class_token": False, "global_pool": "avg"})
SPECS = (VIT, DINO, TIMM, NO_CLASS)
FORMS = ("mean", "max", "grid", "tokens", "cls")
Array = np.ndarray


def wanted(spec: EncoderSpec, taps: range) -> tuple[Feature, ...]:
    has_class_token = describe(spec).has_class_token
    forms = FORMS if has_class_token else FORMS[:-1]
    return tuple(Feature("vision", tap, form) for tap in taps for form in forms)  # type: ignore


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_space(str(MERGING))


def pictures(count: int = 2, side: int = 48) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


# -- against the definition, written again in NumPy


def merged_as_published(
    tokens: Array, sizes: Array, groups: list[set[int]], keys: Array, r: int, protected: bool
) -> tuple[Array, Array, list[set[int]]]:
    """Section 3.1 of arXiv 2210.09461, for one picture, token by token.

    tokens (N, C) of sizes (N,) that stand for the patches in `groups`; keys (N, D).
    """
    count = len(tokens)
    first, second = range(0, count, 2), range(1, count, 2)
    best: dict[int, tuple[float, int]] = {}
    for a in first:
        if protected and a == 0:
            continue
        cosines = [
            float(keys[a] @ keys[b] / np.linalg.norm(keys[a]) / np.linalg.norm(keys[b]))
            for b in second
        ]
        best[a] = max(cosines), list(second)[int(np.argmax(cosines))]
    order = sorted(best, key=lambda a: -best[a][0])
    gone = order[: min(r, (count - protected) // 2)]
    kept = sorted({0, *order[len(gone) :]}) if protected else order[len(gone) :]
    values, weights, members = [], [], []
    for a in kept:
        values.append(tokens[a])
        weights.append(sizes[a])
        members.append(groups[a])
    for b in second:
        own = [b, *(a for a in gone if best[a][1] == b)]
        weight = sum(sizes[each] for each in own)
        values.append(sum(sizes[each] * tokens[each] for each in own) / weight)
        weights.append(weight)
        members.append(set().union(*(groups[each] for each in own)))
    return np.array(values), np.array(weights), members


def heads_of(values: Array, heads: int) -> Array:
    """(N, H D) to (H, N, D)."""
    return values.reshape(len(values), heads, -1).transpose(1, 0, 2)


def attended(tokens: Array, sizes: Array, qkv: tuple[Array, Array, Array]) -> Array:
    """Equation 1: softmax(Q K' / sqrt d + log s) V."""
    query, key, value = qkv
    scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1]) + np.log(sizes)
    exponents = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = exponents / exponents.sum(-1, keepdims=True) @ value
    return mixed.transpose(1, 0, 2).reshape(len(tokens), -1)


def normed(values: Array, weights: dict[str, Array], name: str, eps: float) -> Array:
    centred = values - values.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(values: Array, weights: dict[str, Array], name: str) -> Array:
    return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def gelu(values: Array) -> Array:
    return values * 0.5 * (1 + np.vectorize(math.erf)(values / math.sqrt(2)))


def run_as_published(spec: EncoderSpec, trunk: Any, pixels: torch.Tensor) -> list[dict[str, Array]]:
    """Every tap of one picture, computed in double precision from the trunk's weights."""
    weights = {name: each.double().numpy() for name, each in trunk.state_dict().items()}
    with torch.no_grad():
        tokens = trunk.embedding(pixels)[0].double().numpy()
    protected = describe(spec).has_class_token
    timm, is_vit = spec.library == "timm", spec.model_type == "vit"
    eps = 1e-12 if is_vit else 1e-6
    patches = len(tokens) - protected
    sizes = np.ones(len(tokens))
    groups = [set() if protected and k == 0 else {k - protected} for k in range(len(tokens))]
    found = []
    names = ("layernorm_before", "layernorm_after") if is_vit else ("norm1", "norm2")
    for k in range(DEPTH):
        at = f"blocks.{k}.layer"
        normal = normed(tokens, weights, f"{at}.{names[0]}", eps)
        if timm:
            query, key, value = np.split(linear(normal, weights, f"{at}.attn.qkv"), 3, -1)
        else:
            query, key, value = (
                linear(normal, weights, f"{at}.attention.{each}_proj") for each in "qkv"
            )
        qkv = heads_of(query, 2), heads_of(key, 2), heads_of(value, 2)
        out = f"{at}.attn.proj" if timm else f"{at}.attention.o_proj"
        mixed = linear(attended(tokens, sizes, qkv), weights, out)
        tokens = tokens + mixed * weights.get(f"{at}.layer_scale1.lambda1", 1.0)
        tokens, sizes, groups = merged_as_published(
            tokens, sizes, groups, qkv[1].mean(0), spec.merging, protected
        )
        normal = normed(tokens, weights, f"{at}.{names[1]}", eps)
        hidden = gelu(linear(normal, weights, f"{at}.mlp.fc1"))
        made = linear(hidden, weights, f"{at}.mlp.fc2")
        tokens = tokens + made * weights.get(f"{at}.layer_scale2.lambda1", 1.0)
        ends = k == DEPTH - 1 and "norm.weight" in weights
        last = normed(tokens, weights, "norm", eps) if ends else tokens
        unmerged = np.empty((patches, tokens.shape[1]))
        for token, group in zip(last, groups, strict=True):
            unmerged[sorted(group)] = token
        assert sum(map(len, groups)) == patches == int(sizes.sum()) - protected
        side = math.isqrt(patches)
        tap = {
            "mean": unmerged.mean(0),
            "max": unmerged.max(0),
            "grid": unmerged.T.reshape(-1, side, side),
        }
        found.append(tap | ({"cls": last[0]} if protected else {}))
    return found


@pytest.mark.parametrize("r", [5, 18])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_vit_that_merges_is_the_one_that_its_authors_define(spec: EncoderSpec, r: int) -> None:
    spec = spec.with_merging(r)
    trunk = load_trunk(spec, DEPTH)
    with torch.no_grad():  # weights as drawn make all keys alike
        for name, weight in trunk.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                weight.mul_(8)
    pixels = pictures(2)
    asked = wanted(spec, range(1, DEPTH + 1))
    with torch.no_grad():
        given = trunk(pixels, asked)
    for row in range(2):
        expected = run_as_published(spec, trunk, pixels[row : row + 1])
        for feature in asked:
            if feature.form != "tokens":
                np.testing.assert_allclose(
                    given[feature][row].numpy(),
                    expected[feature.tap - 1][feature.form],
                    atol=1e-4,
                    err_msg=f"{spec.name} {feature.name}",
                )


@pytest.mark.parametrize("count", [2, 5, 16, 37])
@pytest.mark.parametrize("protected", [False, True])
def test_tokens_keep_their_sum_and_their_number_of_patches(count: int, protected: bool) -> None:
    drawn = torch.Generator().manual_seed(count)
    tokens, keys = (torch.randn(3, count, 7, generator=drawn) for _ in range(2))
    sizes = torch.randint(1, 9, (3, count, 1), generator=drawn).float()
    for r in range(1, most_merged(count, protected) + 1):
        made, after = merge_means(tokens, sizes, match(keys, r, protected))
        assert made.shape == (3, count - r, 7)
        torch.testing.assert_close((made * after).sum(1), (tokens * sizes).sum(1))
        if protected:
            assert torch.equal(made[:, 0], tokens[:, 0])


def test_without_pairs_to_merge_an_encoder_is_the_one_that_it_was() -> None:
    plain = VIT.with_merging(3).with_merging(0)
    assert plain == VIT and plain.as_json() == VIT.as_json() and "merging" not in VIT.as_json()
    assert VIT.at(96).with_merging(4).name == "vit-96px-merge4" == VIT.with_merging(4).at(96).name
    assert VIT.at(96).with_merging(4).base == "vit"
    assert EncoderSpec.from_json(VIT.with_merging(4).as_json()) == VIT.with_merging(4)
    assert architecture(VIT.with_merging(4)) != architecture(VIT), "features are kept apart"


# -- what an encoder takes


def test_encoders_tell_how_many_pairs_they_merge() -> None:
    assert [describe(spec).most_merged for spec in SPECS] == [18] * 4
    assert describe(VIT.at(96)).most_merged == 72
    assert describe(VIT.with_merging(4)).sides == describe(VIT).sides
    assert not describe(VIT.with_merging(4)).adapts and describe(VIT).adapts
    demo = load_space("demo", weights="random")
    assert all(shape.most_merged == 0 for shape in demo.shapes.values())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (VIT.with_merging(19), "cannot merge 19 pairs of tokens in a layer.*give 1 to 18"),
        (
            EncoderSpec("m", "vision", "timm", "mobilenetv3_small_050", "random").with_merging(2),
            "does not merge tokens.*leave image_merging out",
        ),
        (replace(TIMM, config={**_TIMM, "reg_tokens": 2}).with_merging(2), "does not merge tokens"),
    ],
)
def test_an_encoder_that_cannot_merge_so_many_says_so(spec: EncoderSpec, words: str) -> None:
    with pytest.raises(EncoderError, match=words):
        describe(spec)


@pytest.mark.parametrize("told", ["[4, 2]", "[2, 2]", "[-1]", '["2"]', "2", "[true]"])
def test_numbers_of_pairs_that_are_none_are_refused(tmp_path: Path, told: str) -> None:
    file = tmp_path / "space.toml"
    file.write_text(MERGING.read_text("utf-8").replace("[0, 2, 6]", told, 1), "utf-8")
    with pytest.raises(SpaceError, match=r"give rising whole numbers from 0 \(no merging\)"):
        load_space(str(file))


def test_a_space_in_which_nothing_can_be_merged_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"image_merging = \[2\]: small-xcit.* does not merge"):
        load_space("demo", weights="random", image_merging=[2])
    with pytest.raises(SpaceError, match="a layer of small-vit merges at most 18 pairs"):
        load_space(str(SMALL), image_merging=[19])


# -- the decision


def test_every_vit_is_there_for_every_number_of_pairs(space: SearchSpace) -> None:
    assert [n for n in space.vision_encoders if "vit" in n] == [
        "small-vit",
        "small-vit-merge2",
        "small-vit-merge6",
        "small-vit-32px",
        "small-vit-32px-merge2",
        "small-vit-32px-merge6",
    ]
    assert [n for n in space.vision_encoders if "mobile" in n] == [
        "small-mobilenet",
        "small-mobilenet-32px",
    ]
    decisions = {decision.name: decision.choices for decision in space.decisions}
    assert decisions["vision_encoder"] == ("small-mobilenet", "small-vit")
    assert decisions["image_merging"] == (0, 2, 6)


def test_a_design_has_one_vector_and_a_vector_one_design(space: SearchSpace) -> None:
    rng, met = random.Random(0), set()
    for _ in range(200):
        design = space.sample(rng)
        assert space.decode(space.encode(design)) == design
        met.add(space.encoder(str(design.vision_encoder)).merging)
    assert met == {0, 2, 6}


def test_more_pairs_than_a_layer_merges_are_read_as_the_most_that_is_offered() -> None:
    wide = load_space(str(SMALL), image_merging=[0, 4, 10], image_sizes=[32, 48])
    assert wide.shapes["small-vit-32px"].most_merged == 8
    assert "small-vit-32px-merge10" not in wide.vision_encoders

    def read(size: int, pairs: int) -> str | None:
        said = {"vision_encoder": "small-vit", "image_size": size, "image_merging": pairs}
        vector = [said.get(d.name, d.choices[0]) for d in wide.decisions]
        return wide.decode(vector).vision_encoder

    assert [read(48, n) for n in (0, 4, 10)] == [
        "small-vit",
        "small-vit-merge4",
        "small-vit-merge10",
    ]
    assert [read(32, n) for n in (0, 4, 10)][1:] == ["small-vit-32px-merge4"] * 2


def test_a_space_that_does_not_speak_of_merging_has_the_designs_that_it_had() -> None:
    plain, merging = load_space(str(SMALL)), load_space(str(SMALL), image_merging=[0, 4])
    assert "image_merging" not in {decision.name for decision in plain.decisions}
    rng = random.Random(0)
    for _ in range(50):
        design = plain.sample(rng)
        assert merging.decode(merging.encode(design)).key == design.key
        assert len(_features(design, merging)) == len(_features(design, plain)) + 1


# -- what follows from it


def designs(space: SearchSpace, pairs: int) -> list[Genotype]:
    vit = "small-vit" if not pairs else f"small-vit-merge{pairs}"
    made = [
        Genotype("small-bert", vit, 16, (FusionPoint(2, 3, "concatenation"),)),
        Genotype(
            "small-bert", vit, 16, (FusionPoint(1, 2, "cross-attention", 16),), vision_pooling="cls"
        ),
    ]
    assert all(space.violations(design) == () for design in made)
    return made


def test_work_falls_with_the_pairs_in_networks_and_in_the_latency_model(
    space: SearchSpace,
) -> None:
    encoders = {spec.name: spec for spec in space.encoders}
    features = LatencyFeatures(TrunkWork(space.encoders, space.shapes), Rewriting(NONE))
    for which in range(2):
        row = [designs(space, pairs)[which] for pairs in (0, 2, 6)]
        macs = []
        for design in row:
            costs = static_costs(build(design, encoders, space.shapes, 2), design, space.shapes)
            macs.append({m.name: m.value for m in costs}["macs"])
        assert macs == sorted(macs, reverse=True) and len(set(macs)) == 3
        nominal = features.of(row)
        assert nominal.shape[1] == features.columns and (nominal >= 0).all()
        linear = [k for k, part in enumerate(features._parts) if part.name.endswith(" linear")]
        sums = nominal[:, linear].sum(1)
        assert sums[0] > sums[1] > sums[2]


@pytest.mark.parametrize("which", range(2))
def test_a_design_composed_is_the_design_exported(
    space: SearchSpace, tmp_path: Path, which: int
) -> None:
    assert_same(space, designs(space, 6)[which], tmp_path, tmp_path / "parts", NONE)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_graph_of_fixed_extents_gives_what_the_trunk_gives(
    spec: EncoderSpec, tmp_path: Path
) -> None:
    import onnx

    spec, file = spec.with_merging(5), tmp_path / "trunk.onnx"
    trunk, pixels = load_trunk(spec, DEPTH), pictures(1)
    asked = wanted(spec, range(DEPTH, DEPTH + 1))

    class Given(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            found = self.trunk(values, asked)
            return torch.cat([found[feature].flatten(1) for feature in asked], 1)

    export(Given().eval(), (pixels,), file, ["pixel_values"], ["logits"], {})
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(file)), strict_mode=True).graph
    if spec.model_type != "dinov2":  # whose positions transformers interpolates in the graph
        extents = [d for e in graph.value_info for d in e.type.tensor_type.shape.dim]
        assert extents and all(d.HasField("dim_value") for d in extents)
    kinds = {node.op_type for node in graph.node}
    assert "TopK" in kinds and not kinds & {"If", "Loop", "NonZero", "ScatterElements"}
    with torch.no_grad():
        expected = Given()(pixels).numpy()
    assert np.abs(run_onnx(file, [(pixels,)]) - expected).max() <= 1e-4


def test_gradients_reach_every_weight_below_the_merging() -> None:
    trunk = load_trunk(VIT.with_merging(5), 2).train()
    feature = Feature("vision", 2, "mean")
    trunk(pictures(3), (feature,))[feature].square().sum().backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for n, p in trunk.named_parameters()
        if "mask_token" not in n
    )
