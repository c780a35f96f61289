"""A world whose truth is known: clips of videos, as many as CMU-MOSI's, that features tell.

Every clip has FEATURES numbers: its class, seen through noise of the clip and of its video. A
design reads some of them through a linear discriminant, trained in closed form; so its accuracy on
clips that nobody has drawn is known exactly, and hundreds of designs are trained in a second.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import erf, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluators.data import DataSet, Sample, Split
from evaluators.evaluation import Evaluation, content_key
from evaluators.statistics.accuracy import measures_of
from evaluators.statistics.paired import Correct, correct_rows
from search_space.design.genotype import FusionPoint, Genotype

SIZES: dict[Split, tuple[int, int]] = {"train": (1284, 52), "valid": (229, 10), "test": (686, 31)}
"""Clips and videos, CMU-MOSI's own."""
FEATURES = 200
READ = 180
"""Features that a design reads. Two designs then differ on every tenth clip, and 908 clips train
them less well than 1,284 do."""
SIGNAL = 0.085
OF_VIDEO = 0.2
"""Standard deviation of a feature over videos; over the clips of one video it is 1."""

Array = npt.NDArray[np.float64]


@lru_cache(maxsize=64)
def planted(seed: int, signal: float = SIGNAL) -> "Planted":
    """The evaluator of one draw of clips."""
    world = World(seed, signal)
    return Planted(world, world.data)


def designs(count: int) -> list[Genotype]:
    """Designs that differ; which features each reads follows from its key."""
    taps = [(t, v) for t in range(1, 13) for v in range(1, 17)]
    return [
        Genotype("text", "vision", 16 + k // len(taps), (FusionPoint(*taps[k % len(taps)]),))
        for k in range(count)
    ]


@dataclass(frozen=True)
class World:
    """One draw of clips; `signal` is how strongly every feature tells the class."""

    seed: int
    signal: float = SIGNAL

    @cached_property
    def data(self) -> DataSet:
        """The samples with their splits and videos."""
        rng = np.random.default_rng([self.seed, 1])
        samples: list[Sample] = []
        for split, (clips, videos) in SIZES.items():
            shares = rng.dirichlet(np.full(videos, 8.0))
            counts = 5 + rng.multinomial(clips - 5 * videos, shares)
            for video, count in enumerate(counts):
                group = f"{split}{video:02}"
                samples += [
                    Sample(f"{group}/{k}", group, "", 0, None, split, Path()) for k in range(count)
                ]
        labels = rng.integers(0, 2, len(samples))
        labelled = tuple(
            replace(sample, label=int(label)) for sample, label in zip(samples, labels, strict=True)
        )
        return DataSet("planted", "mosi", ("0", "1"), labelled, "", f"{self.seed:064}")

    @cached_property
    def features(self) -> dict[str, Array]:
        """FEATURES numbers of each sample, by its id."""
        rng = np.random.default_rng([self.seed, 2])
        of_video = {group: OF_VIDEO * rng.normal(size=FEATURES) for group in self._groups}
        return {
            s.id: self.signal * (2 * s.label - 1) + of_video[s.group] + rng.normal(size=FEATURES)
            for s in self.data.samples
        }

    @cached_property
    def _groups(self) -> list[str]:
        return sorted({sample.group for sample in self.data.samples})


@dataclass(frozen=True)
class Planted:
    """Trains and judges designs of a world: a `QualityEvaluator` in all that selection asks."""

    world: World
    data: DataSet

    def other(self, data: DataSet, progress: Any = None) -> "Planted":
        return Planted(self.world, data)

    def prepare(self) -> None: ...

    def key(self, genotype: Genotype) -> str:
        return content_key("quality", {"genotype": genotype.key, "data": self.data.fingerprint})

    def evaluate(self, genotype: Genotype) -> Evaluation:
        right, details = self._judged(genotype, "valid")
        samples = self.data.split("valid")
        return Evaluation(self.key(genotype), "quality", measures_of(right, samples), details)

    def out_of_fold(self, genotype: Genotype) -> tuple[Correct, dict[str, Any]]:
        return self._judged(genotype, "test")

    def test(self, genotype: Genotype) -> Correct:
        return self._judged(genotype, "test")[0]

    def truth(self, genotype: Genotype) -> float:
        """Percent that the design, trained on this data's train split, reaches on new videos."""
        weights, threshold = self._trained(genotype)
        spread = sqrt((1 + OF_VIDEO**2) * float(weights @ weights))
        towards = self.world.signal * float(weights.sum())
        parts = [(towards - threshold) / spread, (towards + threshold) / spread]
        return 50 * sum(0.5 * (1 + erf(z / sqrt(2))) for z in parts)

    def _judged(self, genotype: Genotype, split: Split) -> tuple[Correct, dict[str, Any]]:
        weights, threshold = self._trained(genotype)
        x, labels = self._split(split)
        right = ((x[:, read_by(genotype)] @ weights > threshold) == labels)[None].astype(float)
        plain = {"fidelity": "planted", "epochs": 1, "best_epoch": 1, "seconds": 0.0}
        trained = {"attempts": 1, "constant": False, "did_not_train": ""}
        return right, {**plain, **trained, "right": correct_rows(right)}

    def _trained(self, genotype: Genotype) -> tuple[Array, float]:
        """Weights of the features that the design reads, and the threshold between the classes."""
        means, covariance = self._statistics
        at = read_by(genotype)
        apart = means[1][at] - means[0][at]
        weights = np.linalg.solve(covariance[np.ix_(at, at)] + 0.01 * np.eye(len(at)), apart)
        return weights, float(weights @ (means[0][at] + means[1][at]) / 2)

    @cached_property
    def _statistics(self) -> tuple[tuple[Array, Array], Array]:
        x, labels = self._split("train")
        means = x[labels == 0].mean(0), x[labels == 1].mean(0)
        centred = x - np.stack(means)[labels]
        return means, centred.T @ centred / len(x)

    def _split(self, split: Split) -> tuple[Array, npt.NDArray[np.int64]]:
        samples = self.data.split(split)
        x = np.stack([self.world.features[sample.id] for sample in samples])
        return x, np.array([sample.label for sample in samples])


def read_by(genotype: Genotype) -> npt.NDArray[np.int64]:
    """The features that a design reads."""
    rng = np.random.default_rng(int(genotype.key[:12], 16))
    return np.sort(rng.permutation(FEATURES)[:READ])
