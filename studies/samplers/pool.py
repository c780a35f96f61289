"""The designs that a sampler chooses from, each once, and what a model reads of them."""

import itertools
import math
import random
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_space.design.genotype import (
    AUDIO_POOLINGS,
    IMAGE_TOKENS,
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
    get an index too and are not offered. Threads that share a pool hold its `lock` while they use
    it.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        given: Mapping[str, Choice] | None = None,
        columns: NDArray[np.int64] | None = None,
    ) -> None:
        """Offers designs that these answers leave, of which `columns` of the features are read.

        Raises ValueError for a given answer that is no choice of the space.
        """
        self.genotypes: list[Genotype] = []
        self.vectors: list[tuple[Choice, ...]] = []
        self.offered: list[int] = []
        self.lock = threading.RLock()
        given = given or {}
        for decision in space.decisions:
            if given.get(decision.name, decision.choices[0]) not in decision.choices:
                raise ValueError(
                    f"{decision.name} = {given[decision.name]!r}: space {space.name} offers "
                    f"{', '.join(map(str, decision.choices))}"
                )
        self.words = ""
        if given:
            self.words = " with " + ", ".join(f"{name} = {said}" for name, said in given.items())
        self._choices = [
            (given[decision.name],) if decision.name in given else decision.choices
            for decision in space.decisions
        ]
        self._given = [
            (k, given[decision.name])
            for k, decision in enumerate(space.decisions)
            if decision.name in given
        ]
        self.whole = math.prod(map(len, self._choices)) <= ENUMERABLE
        self._space, self._seed, self._rng = space, seed, random.Random(seed)
        self._by_key: dict[str, int] = {}
        self._by_vector: dict[tuple[Choice, ...], int] = {}
        self._features: list[list[float]] = []
        self._buildable: list[bool] = []
        if self.whole:
            self._offer(itertools.product(*self._choices))
        else:
            self.grow()
        if columns is not None:
            self._columns = columns
            return
        table = np.array([self._features[i] for i in self.offered])
        _, first = np.unique(table, axis=1, return_index=True)
        self._columns = np.array([k for k in sorted(first) if np.ptp(table[:, k]) > 0])

    def under(self, given: Mapping[str, Choice]) -> "DesignPool":
        """The designs that these answers leave, each with a vector that gives them.

        Raises ValueError for an answer that is no choice of the space.
        """
        return DesignPool(self._space, self._seed, given, self._columns)

    def __getstate__(self) -> dict[str, Any]:
        """All but the lock, which is its process's own."""
        return {name: value for name, value in vars(self).items() if name != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """With a lock of this process."""
        vars(self).update(state, lock=threading.RLock())

    def grow(self) -> bool:
        """Draws BLOCK more vectors to offer; False if none of them spells a new design."""
        if self.whole:
            return False
        drawn = (
            tuple(self._rng.choice(choices) for choices in self._choices) for _ in range(BLOCK)
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
        """Designs that can be built and differ from one of these in one answer or in given ones."""
        found: dict[int, None] = {}
        for vector in (self.vectors[i] for i in indices):
            if not self._gives(vector):
                answers = list(vector)
                for k, choice in self._given:
                    answers[k] = choice
                vector = tuple(answers)
                found[self._index(vector)] = None
            for k, choices in enumerate(self._choices):
                for choice in choices:
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
            elif self._gives(vector) and not self._gives(self.vectors[index]):
                self.vectors[index] = vector
            self._by_vector[vector] = index
        return self._by_vector[vector]

    def _gives(self, vector: tuple[Choice, ...]) -> bool:
        """Whether a vector gives the answers that are given."""
        return all(vector[k] == choice for k, choice in self._given)


def _features(design: Genotype, space: SearchSpace) -> list[float]:
    """A design in figures, each 0 to 1: first what its layers cost, one figure a modality."""
    names = {m: design.encoders.get(m) for m in space.modalities}
    found = {space.encoder(name).base for name in design.encoders.values()}
    depths = {m: space.shapes[name].depth if name else 1 for m, name in names.items()}
    text = design.text_encoder
    tokens, most = design.text_tokens, max((*space.text_tokens, 1))
    side = _side(space, design.vision_encoder)
    pixels = (side / max((_side(space, name) for name in space.vision_encoders), default=1)) ** 2
    widths = [math.log2(point.width + 1) for point in design.points]
    widest = math.log2(max(space.widths) + 1) or 1.0
    points = design.points
    fewest = max(min((*space.text_tokens, most)), 1)
    operators = (*OPERATORS, *(name for name in space.operators if name not in OPERATORS))
    most_image = max(IMAGE_TOKENS)
    return [
        *(
            design.deepest_tap(m) / depth * {"text": tokens / most, "vision": pixels}.get(m, 1)
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
        *(sum(p.operator == operator for p in points) / len(points) for operator in operators),
        *(float(design.text_pooling == pooling) for pooling in TEXT_POOLINGS),
        *(float(design.vision_pooling == pooling) for pooling in VISION_POOLINGS),
        *(float(design.precision == precision) for precision in PRECISIONS),
        *(float(design.audio_pooling == pooling) for pooling in AUDIO_POOLINGS),
        *(float(base in found) for base in dict.fromkeys(e.base for e in space.encoders)),
        math.sqrt(pixels),
        math.log(1 + (design.image_tokens or most_image)) / math.log(1 + most_image),
        *([_merging(space, design.vision_encoder)] if any(space.image_merging) else []),
        *(
            [math.log(1 + design.lora_rank) / math.log(1 + max(space.lora_ranks))]
            if any(space.lora_ranks)
            else []
        ),
    ]


def _merging(space: SearchSpace, encoder: str | None) -> float:
    return space.encoder(encoder).merging / max(space.image_merging) if encoder else 0.0


def _side(space: SearchSpace, encoder: str | None) -> int:
    return space.shapes[encoder].image_size if encoder else 0
