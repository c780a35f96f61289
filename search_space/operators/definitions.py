"""Each built-in fusion operator, and the table of them.

To add one: its class here, its row in FUSION_OPERATORS, and the network that its `module` returns
in `vectors` or `tokens`. The contract test runs over the whole table. `registry` adds the operators
of plugins.
Nothing here imports torch before a module is asked for.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from search_space.modality import MODALITIES, Modality
from search_space.operators import numpy_layers, work
from search_space.operators.numpy_layers import Array, Paddings, Weights, joint_padding, part
from search_space.operators.operator import FusionOperator, Operator, Signature
from search_space.operators.work import On, Work

if TYPE_CHECKING:
    from torch import nn

_BOTH: tuple[Modality, ...] = ("text", "vision")


class Concatenation(FusionOperator):
    """(T, I) or (T, I, A)."""

    signature = Signature(projects_result=True)

    def output_width(self, widths: Mapping[Modality, int]) -> int:
        """Return N + M + ..."""
        return sum(widths.values())

    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Put the features of each side by side, text first."""
        return (np.concatenate(inputs, axis=1),)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module without weights."""
        from search_space.operators.vectors import Parameterless, concatenation

        return Parameterless(concatenation)


class Product(FusionOperator):
    """F_j = T_j I_j and F_{N+j} = T_j I_{N-j} (indices from 0: I_{N-1-j}).

    Source: "Encoding Domain Insights into Multi-modal Fusion", product fusion.
    """

    signature = Signature(equal_widths=True, most=2)

    def output_width(self, widths: Mapping[Modality, int]) -> int:
        """Return 2N."""
        return 2 * next(iter(widths.values()))

    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Multiply feature by feature, as published."""
        text, vision = inputs
        width = text.shape[1]
        forwards = [text[:, j] * vision[:, j] for j in range(width)]
        backwards = [text[:, j] * vision[:, width - 1 - j] for j in range(width)]
        return (np.stack(forwards + backwards, axis=1),)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module without weights."""
        from search_space.operators.vectors import Parameterless, product

        return Parameterless(product)


class Tensor(FusionOperator):
    """The outer product, the first's index slowest.

    Source: the same as of the product, after Tensor Fusion Networks (Zadeh et al., 2017), without
    the constant 1.
    """

    signature = Signature(needs_width=True)

    def output_width(self, widths: Mapping[Modality, int]) -> int:
        """Return N M ..."""
        return math.prod(widths.values())

    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Multiply outwards, sample by sample."""
        samples = []
        for vectors in zip(*inputs, strict=True):
            outer = vectors[0]
            for vector in vectors[1:]:
                outer = np.multiply.outer(outer, vector)
            samples.append(outer.ravel())
        return (np.stack(samples),)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module without weights."""
        from search_space.operators.vectors import Parameterless, tensor

        return Parameterless(tensor)


class Sum(FusionOperator):
    """T + I or T + I + A."""

    signature = Signature(equal_widths=True)

    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Add feature by feature."""
        return (np.sum(inputs, axis=0),)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module without weights."""
        from search_space.operators.vectors import Parameterless, summation

        return Parameterless(summation)


class Gated(FusionOperator):
    """g T + (1 - g) I with g = sigmoid(W (T, I) + b).

    Of three, the sum of g_M M with the gates g the softmax over modalities of W (T, I, A) + b.
    """

    signature = Signature(equal_widths=True)

    def work(self, lengths: Sequence[int], width: int) -> Iterable[tuple[On, Work]]:
        """Count the gates."""
        count = len(lengths)
        yield "vectors", work.gemm(count * width, width if count == 2 else count * width)

    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Weigh each feature by gates that add up to one."""
        scores = numpy_layers.linear(part(weights, "gate"), np.concatenate(inputs, axis=1))
        if len(inputs) == 2:
            gate = 1 / (1 + np.exp(-scores))
            return (gate * inputs[0] + (1 - gate) * inputs[1],)
        gates = np.exp(np.stack(np.split(scores, len(inputs), axis=1)))
        return ((gates * np.stack(inputs)).sum(0) / gates.sum(0),)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module of one Linear."""
        from search_space.operators import vectors

        return vectors.Gated(width, modalities)


class LowRankTensor(FusionOperator):
    """The sum over four r of (U_r (T, 1)) * (V_r (I, 1)), plus a bias.

    The outer product of (T, 1) and (I, 1) under a weight tensor of rank four; of three, times
    (W_r (A, 1)). Source: Low-rank Multimodal Fusion (Liu et al., 2018), with the first weights of
    its authors' code; their weight of each rank is multiplied into the U_r.
    """

    signature = Signature(equal_widths=True)
    starts_linear = True
    first_weights = 1
    rank: ClassVar = 4

    def work(self, lengths: Sequence[int], width: int) -> Iterable[tuple[On, Work]]:
        """Count the factors."""
        count = len(lengths)
        yield "vectors", work.gemm(count * width, self.rank * width, operators=3 + count)

    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Contract the outer product with the whole weight tensor."""
        width = len(weights["bias"])
        axes = "ijk"[: len(inputs)]
        factors = [
            np.c_[own["weight"], own["bias"]].reshape(self.rank, width, width + 1)
            for own in (part(weights, f"factors.{k}") for k in range(len(inputs)))
        ]
        whole = np.einsum(f"{','.join(f'rn{axis}' for axis in axes)}->n{axes}", *factors)
        with_one = [np.pad(one, ((0, 0), (0, 1)), constant_values=1) for one in inputs]
        of_vectors = ",".join(f"b{axis}" for axis in axes)
        return (np.einsum(f"n{axes},{of_vectors}->bn", whole, *with_one) + weights["bias"],)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module of a Linear to all ranks for each modality."""
        from search_space.operators import vectors

        return vectors.LowRankTensor(width, modalities, self.rank)


class Bilinear(FusionOperator):
    """z = the sum of every five of U T * V I, then its signed root, then that over its l2 norm.

    The root is z / sqrt(|z| + 1e-4), whose slope is finite at 0. Source: multi-modal factorized
    bilinear pooling, MFB (Yu et al., 2017), without its dropout.
    """

    signature = Signature(equal_widths=True, most=2)
    factors: ClassVar = 5
    """Products that are summed to one feature: k of MFB, as its authors have it."""
    epsilon: ClassVar = 1e-4
    """Keeps a root's slope finite at 0 and a division from 0; normal in half precision too."""

    def work(self, lengths: Sequence[int], width: int) -> Iterable[tuple[On, Work]]:
        """Count the two linear maps."""
        yield "vectors", work.gemm(2 * width, self.factors * width, operators=12)

    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Compute each feature from its rows of U and V."""
        (text, vision), width = inputs, inputs[0].shape[1]
        rows = [slice(self.factors * n, self.factors * (n + 1)) for n in range(width)]
        u, v = weights["text.weight"], weights["vision.weight"]
        summed = np.stack([np.sum((text @ u[r].T) * (vision @ v[r].T), 1) for r in rows], axis=1)
        rooted = np.sign(summed) * np.abs(summed) / np.sqrt(np.abs(summed) + self.epsilon)
        length = np.linalg.norm(rooted, axis=1, keepdims=True)
        return (rooted / np.maximum(length, self.epsilon),)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module of two Linears without bias."""
        from search_space.operators import vectors

        return vectors.Bilinear(width, self.factors, self.epsilon)


class CrossAttention(FusionOperator):
    """Text tokens query the image's, with a residual.

    LayerNorm(Q + MultiheadAttention(query Q, key K, value K)), four heads.
    """

    signature = Signature(_BOTH, ("text",), needs=_BOTH, most=2)

    def work(self, lengths: Sequence[int], width: int) -> Iterable[tuple[On, Work]]:
        """Count one attention for each modality that queries."""
        text, vision = lengths
        for modality in self.signature.gives:
            pair = (text, vision) if modality == "text" else (vision, text)
            yield "tokens", work.attention(*pair, width)

    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Let each modality that queries attend to the other."""
        given = []
        for modality in self.signature.gives:
            asking = MODALITIES.index(modality)
            queries, keys, unread = inputs[asking], inputs[1 - asking], padding[1 - asking]
            own = part(weights, modality) if len(self.signature.gives) > 1 else weights
            read = numpy_layers.attention(part(own, "attention"), queries, keys, unread)
            given.append(numpy_layers.layer_norm(part(own, "norm"), queries + read))
        return tuple(given)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module of one attention and its norm."""
        from search_space.operators import tokens

        return tokens.CrossAttention(width, "text")


class CrossAttentionVision(CrossAttention):
    """Image tokens query the text's, with a residual."""

    signature = Signature(_BOTH, ("vision",), needs=_BOTH, most=2)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module of one attention and its norm."""
        from search_space.operators import tokens

        return tokens.CrossAttention(width, "vision")


class CrossAttentionBoth(CrossAttention):
    """Cross-attention both ways at once, each with weights of its own.

    Source: ViLBERT's co-attention (Lu et al., 2019), without its MLPs.
    """

    signature = Signature(_BOTH, _BOTH, needs=_BOTH, most=2)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module of two attentions and their norms."""
        from search_space.operators import tokens

        return tokens.CrossAttentionBoth(width)


class SingleSequence(FusionOperator):
    """Early fusion: the tokens of all modalities as one sequence through one encoder layer.

    A learned embedding of its modality is added to each token. Source: VisualBERT (Li et al.,
    2019).
    """

    signature = Signature(MODALITIES, ("text",), needs=("text",))

    def work(self, lengths: Sequence[int], width: int) -> Iterable[tuple[On, Work]]:
        """Count the encoder layer over all tokens."""
        yield "tokens", work.encoder_layer(sum(lengths), width)

    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Encode all tokens and keep the text's."""
        marked = [tokens + weights["modality"][k] for k, tokens in enumerate(inputs)]
        states, unread = np.concatenate(marked, axis=1), joint_padding(padding, inputs)
        read = numpy_layers.encoder_layer(part(weights, "layer"), states, unread)
        return (read[:, : inputs[0].shape[1]],)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module of modality embeddings and an encoder layer."""
        from search_space.operators import tokens

        return tokens.SingleSequence(width, modalities)


class Prefix(FusionOperator):
    """Four tokens made from the pooled image stand before the text's in one encoder layer.

    One Linear makes them. Source: ClipCap (Mokady et al., 2021), whose prefix an MLP makes.
    """

    signature = Signature(("text",), ("text",), needs=_BOTH, most=2)
    tokens: ClassVar = 4

    def work(self, lengths: Sequence[int], width: int) -> Iterable[tuple[On, Work]]:
        """Count the prefix and the encoder layer."""
        yield "vectors", work.gemm(width, self.tokens * width, operators=2)
        yield "tokens", work.encoder_layer(self.tokens + lengths[0], width)

    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Encode prefix and text and keep the text's tokens."""
        text, vision = inputs
        prefix = numpy_layers.linear(part(weights, "prefix"), vision)
        prefix = prefix.reshape(len(text), self.tokens, -1)
        states = np.concatenate([prefix, text], axis=1)
        unread = joint_padding((None, padding[0]), (prefix, text))
        read = numpy_layers.encoder_layer(part(weights, "layer"), states, unread)
        return (read[:, self.tokens :],)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module of a Linear and an encoder layer."""
        from search_space.operators import tokens

        return tokens.Prefix(width, self.tokens)


class Bottleneck(FusionOperator):
    """Attention bottlenecks: the modalities meet in four learned tokens alone.

    Twice, each modality's own encoder layer runs over its tokens and the bottleneck tokens. After
    the first, these are the mean of what the modalities made of them, so that in the second each
    reads the others through them. Source: Nagrani et al., 2021, at the two layers that one exchange
    needs.
    """

    signature = Signature(MODALITIES, MODALITIES)
    tokens: ClassVar = 4

    def work(self, lengths: Sequence[int], width: int) -> Iterable[tuple[On, Work]]:
        """Count two encoder layers for each modality."""
        for length in (*lengths, *lengths):
            yield "tokens", work.encoder_layer(length + self.tokens, width)

    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Encode each modality with the shared tokens, twice."""
        shared, given = np.repeat(weights["tokens"][None], len(inputs[0]), axis=0), list(inputs)
        for turn in range(2):
            made = []
            for k, (own, unread) in enumerate(zip(given, padding, strict=True)):
                both = numpy_layers.encoder_layer(
                    part(weights, f"layers.{k}.{turn}"),
                    np.concatenate([own, shared], axis=1),
                    joint_padding((unread, None), (own, shared)),
                )
                given[k], after = np.split(both, [own.shape[1]], axis=1)
                made.append(after)
            shared = np.mean(made, axis=0)
        return tuple(given)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module of learned tokens and two encoder layers for each modality."""
        from search_space.operators import tokens

        return tokens.Bottleneck(width, modalities, self.tokens)


class MultiplicativeInteractions(FusionOperator):
    """W'(T) I + b'(T) with the weights generated from the text: W'(T) = T W + V, b'(T) = U T + b.

    The full form: W has N^3 weights, one for each pair of features and each feature given, which is
    why it works in 128 features at most. It is a linear map of what `TensorFusion` gives, and is
    computed as one: W of the outer product, (U, V) of (T, I). Source: Jayakumar et al.,
    "Multiplicative interactions and where to find them", ICLR 2020, equation 1, with z the text and
    x the image.
    """

    signature = Signature(equal_widths=True, most=2, needs_width=True, widest=128)

    def work(self, lengths: Sequence[int], width: int) -> Iterable[tuple[On, Work]]:
        """Count both linear maps; the outer product writes N^2 values."""
        outer = Work(elements=width * width, operators=4)
        yield "vectors", work.gemm(width * width, width).plus(outer)
        yield "vectors", work.gemm(2 * width, width, operators=3)

    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Generate the weights of each sample, then apply them."""
        (text, vision), width = inputs, inputs[0].shape[1]
        w = weights["interaction.weight"].reshape(width, width, width)
        u, v = np.split(weights["separate.weight"], 2, axis=1)
        generated = np.einsum("nij,bi->bnj", w, text) + v
        offsets = text @ u.T + weights["separate.bias"]
        return (np.einsum("bnj,bj->bn", generated, vision) + offsets,)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module of a Linear of the outer product and a Linear of both vectors."""
        from search_space.operators import vectors

        return vectors.MultiplicativeInteractions(width)


class FeatureWiseModulation(FusionOperator):
    """g(T) * I + b(T), g(T) = 1 + G T + c and b(T) linear maps of the text.

    Source: FiLM (Perez et al., 2018). Its scale g is written as 1 plus a map, so that maps near
    zero, as they are at the start, leave the image as it is.
    """

    signature = Signature(equal_widths=True, most=2)

    def work(self, lengths: Sequence[int], width: int) -> Iterable[tuple[On, Work]]:
        """Count the generator."""
        yield "vectors", work.gemm(width, 2 * width, operators=6)

    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Scale and shift the image, feature by feature."""
        text, vision = inputs
        change, shift = np.split(numpy_layers.linear(part(weights, "generator"), text), 2, axis=1)
        return ((1 + change) * vision + shift,)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module of one Linear to scales and shifts."""
        from search_space.operators import vectors

        return vectors.FeatureWiseModulation(width)


class GatedMultimodalUnit(FusionOperator):
    """z tanh(W_I I) + (1 - z) tanh(W_T T) with z = sigmoid(W_z (T, I)), all without bias.

    Of three, the sum of z_M tanh(W_M M) with z_M = sigmoid(W_zM (T, I, A)), gates that need not add
    up to one. Source: GMU (Arevalo et al., 2017). `Gated` mixes the features themselves.
    """

    signature = Signature(equal_widths=True)

    def work(self, lengths: Sequence[int], width: int) -> Iterable[tuple[On, Work]]:
        """Count the maps of each modality and the gates."""
        count = len(lengths)
        yield "vectors", work.gemm(count * width, width, operators=2 * count)
        yield "vectors", work.gemm(count * width, width if count == 2 else count * width, 6)

    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Weigh what each modality says by its gate."""
        hidden = [np.tanh(v @ weights[f"maps.{k}.weight"].T) for k, v in enumerate(inputs)]
        gates = 1 / (1 + np.exp(-np.concatenate(inputs, axis=1) @ weights["gate.weight"].T))
        if len(inputs) == 2:
            return (gates * hidden[1] + (1 - gates) * hidden[0],)
        each = np.split(gates, len(inputs), axis=1)
        return (np.sum([z * h for z, h in zip(each, hidden, strict=True)], axis=0),)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module of a Linear for each modality and one for the gates."""
        from search_space.operators import vectors

        return vectors.GatedMultimodalUnit(width, modalities)


class TensorFusion(FusionOperator):
    """The outer product of (T, 1) and (I, 1), of three with (A, 1) too; the first's index slowest.

    By the constant 1 it holds the features of each modality and the products of any two beside the
    products of all, which are what `Tensor` gives. Source: Tensor Fusion Networks (Zadeh et al.,
    2017).
    """

    signature = Signature(needs_width=True)

    def output_width(self, widths: Mapping[Modality, int]) -> int:
        """Return (N + 1) (M + 1) ..."""
        return math.prod(width + 1 for width in widths.values())

    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Multiply outwards, sample by sample."""
        with_one = [np.pad(one, ((0, 0), (0, 1)), constant_values=1) for one in inputs]
        return FUSION_OPERATORS["tensor"].reference(weights, padding, with_one)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module without weights."""
        from search_space.operators.vectors import Parameterless, tensor_fusion

        return Parameterless(tensor_fusion)


class NonLocal(FusionOperator):
    """Q + softmax(Q K^T) V with Q = W_q T + b_q, K = W_k I + b_k, V = W_v I + b_v over tokens.

    One head, scores not divided by a length, the residual from Q. Source: the non-local block with
    embedded Gaussian (Wang et al., 2018) between modalities, as MultiBench (Liang et al., 2021)
    implements the non-local gate of Wang, Tran and Feiszli, 2020, section F4.
    """

    signature = Signature(_BOTH, ("text",), needs=_BOTH, most=2)

    def work(self, lengths: Sequence[int], width: int) -> Iterable[tuple[On, Work]]:
        """Count the three maps and the attention of one head."""
        text, vision = lengths
        yield (
            "tokens",
            Work(
                linear=(text + 2 * vision) * width * width,
                attention=2 * text * vision * width,
                weights=3 * width * width,
                elements=2 * text * vision + (3 * text + 2 * vision) * width,
                operators=11,
            ),
        )

    def reference(
        self, weights: Weights, padding: Paddings, inputs: Sequence[Array]
    ) -> tuple[Array, ...]:
        """Add to each text token what it reads of the image's."""
        text, vision = inputs
        queries = numpy_layers.linear(part(weights, "queries"), text)
        keys = numpy_layers.linear(part(weights, "keys"), vision)
        values = numpy_layers.linear(part(weights, "values"), vision)
        scores = np.einsum("bln,bpn->blp", queries, keys)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        return (queries + scores / scores.sum(-1, keepdims=True) @ values,)

    def module(self, width: int, modalities: int) -> "nn.Module":
        """Return a module of three Linears."""
        from search_space.operators import tokens

        return tokens.NonLocal(width)


FUSION_OPERATORS: Mapping[Operator, FusionOperator] = {
    "concatenation": Concatenation(),
    "product": Product(),
    "tensor": Tensor(),
    "gated": Gated(),
    "cross-attention": CrossAttention(),
    "sum": Sum(),
    "low-rank-tensor": LowRankTensor(),
    "bilinear": Bilinear(),
    "cross-attention-vision": CrossAttentionVision(),
    "cross-attention-both": CrossAttentionBoth(),
    "single-sequence": SingleSequence(),
    "prefix": Prefix(),
    "bottleneck": Bottleneck(),
    "multiplicative-interactions": MultiplicativeInteractions(),
    "film": FeatureWiseModulation(),
    "gated-multimodal-unit": GatedMultimodalUnit(),
    "tensor-fusion": TensorFusion(),
    "non-local": NonLocal(),
}
OPERATORS: tuple[Operator, ...] = tuple(FUSION_OPERATORS)
