"""The designs that a sampler chooses from, each once, and what a model reads of them."""

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from search_space.design.genotype import (
    AUDIO_POOLINGS,
    PRECISIONS,
    TEXT_POOLINGS,
    VISION_POOLINGS,
    Genotype,
)
from search_space.operators.definitions import OPERATORS
from search_space.space.space import Choice, SearchSpace
from studies.results.hypervolume import Floats

ENUMERABLE = 20_000
"""Spaces of at most so many vectors are enumerated whole."""
BLOCK = 2_048
"""Designs that are drawn at once from a space that is larger."""


class DesignPool:
    """Designs by index, each with one vector that spells it.

    Designs are canonical: what several vectors spell stands here once. `offered` are those to
    choose from: every design of the space that can be built, or, of a space of more than
    ENUMERABLE vectors, BLOCK drawn by `seed`. Designs met elsewhere (`index_of`, `neighbours`)
    get an index too and are not offered.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self.genotypes: list[Genotype] = []
        self.vectors: list[tuple[Choice, ...]] = []
        self.offered: list[int] = []
        self.whole = space.size <= ENUMERABLE
        self._space, self._rng = space, random.Random(seed)
        self._by_key: dict[str, int] = {}
        self._by_vector: dict[tuple[Choice, ...], int] = {}
        self._features: list[list[float]] = []
        self._buildable: list[bool] = []
        if self.whole:
            vectors: Iterable[tuple[Choice, ...]] = itertools.product(
                *(decision.choices for decision in space.decisions)
            )
            self._offer(vectors)
        else:
            self.grow()
        table = np.array([self._features[i] for i in self.offered])
        _, first = np.unique(table, axis=1, return_index=True)
        self._columns = np.array([k for k in sorted(first) if np.ptp(table[:, k]) > 0])

    def grow(self) -> bool:
        """Draws BLOCK more vectors to offer; False if none of them spells a new design."""
        if self.whole:
            return False
        drawn = (
            tuple(self._rng.choice(d.choices) for d in self._space.decisions) for _ in range(BLOCK)
        )
        return self._offer(drawn)

    def _offer(self, vectors: Iterable[tuple[Choice, ...]]) -> bool:
        known = set(self.offered)
        new = dict.fromkeys(self._index(vector) for vector in vectors)
        found = [i for i in new if self._buildable[i] and i not in known]
        self.offered += found
        return bool(found)

    def index_of(self, params: Mapping[str, Any]) -> int | None:
        """The design that a trial's answers spell; None where not all are given yet."""
        names = [decision.name for decision in self._space.decisions]
        if any(name not in params for name in names):
            return None
        return self._index(tuple(params[name] for name in names))

    def params(self, index: int) -> dict[str, Choice]:
        """Answers that spell a design."""
        names = (decision.name for decision in self._space.decisions)
        return dict(zip(names, self.vectors[index], strict=True))

    def neighbours(self, indices: Sequence[int]) -> list[int]:
        """Designs that can be built and differ from one of these in one answer."""
        found: dict[int, None] = {}
        for vector in (self.vectors[i] for i in indices):
            for k, decision in enumerate(self._space.decisions):
                for choice in decision.choices:
                    if choice != vector[k]:
                        found[self._index((*vector[:k], choice, *vector[k + 1 :]))] = None
        return [i for i in found if self._buildable[i]]

    def features(self, indices: Sequence[int]) -> Floats:
        """What varies of these designs, each feature about 0 to 1: (N, D)."""
        rows = [self._features[i] for i in indices]
        return np.array(rows, dtype=float).reshape(len(rows), len(self._features[0]))[
            :, self._columns
        ]

    def cost(self, indices: Sequence[int]) -> Floats:
        """How expensive designs look before any was timed, from 0: (N,), no unit.

        Layers run, the text's weighed by its tokens.
        """
        rows = np.array([self._features[i] for i in indices])
        return np.asarray(rows[:, : len(self._space.modalities)].sum(1))

    def _index(self, vector: tuple[Choice, ...]) -> int:
        if vector not in self._by_vector:
            genotype = self._space.decode(vector)
            index = self._by_key.setdefault(genotype.key, len(self.genotypes))
            if index == len(self.genotypes):
                self.genotypes.append(genotype)
                self.vectors.append(vector)
                self._features.append(_features(genotype, self._space))
                self._buildable.append(not self._space.violations(genotype))
            self._by_vector[vector] = index
        return self._by_vector[vector]


def _features(design: Genotype, space: SearchSpace) -> list[float]:
    """A design in figures, each 0 to 1: first what its layers cost, one figure a modality."""
    names = {m: design.encoders.get(m) for m in space.modalities}
    depths = {m: space.shapes[name].depth if name else 1 for m, name in names.items()}
    text = design.text_encoder
    tokens, most = design.text_tokens, max((*space.text_tokens, 1))
    widths = [math.log2(point.width + 1) for point in design.points]
    widest = math.log2(max(space.widths) + 1) or 1.0
    points = design.points
    fewest = max(min((*space.text_tokens, most)), 1)
    return [
        *(
            design.deepest_tap(m) / depth * (tokens / most if m == "text" else 1)
            for m, depth in depths.items()
        ),
        design.deepest_tap("text") / depths.get("text", 1),
        *(points[0].tap(m) / depth for m, depth in depths.items()),
        math.log(max(tokens, 1) / fewest) / max(math.log(most / fewest), 1e-9) if text else 0.0,
        (len(points) - 1) / max(space.fusion_points[1] - 1, 1),
        sum(widths) / len(widths) / widest,
        sum(point.width == 0 for point in points) / len(points),
        design.attention_blocks / max(space.attention_blocks[1], 1),
        design.attention_blocks
        * (design.attention_over == "tokens")
        / max(space.attention_blocks[1], 1),
        *(sum(p.operator == operator for p in points) / len(points) for operator in OPERATORS),
        *(float(design.text_pooling == pooling) for pooling in TEXT_POOLINGS),
        *(float(design.vision_pooling == pooling) for pooling in VISION_POOLINGS),
        *(float(design.precision == precision) for precision in PRECISIONS),
        *(float(design.audio_pooling == pooling) for pooling in AUDIO_POOLINGS),
        *(float(spec.name in design.encoders.values()) for spec in space.encoders),
    ]
