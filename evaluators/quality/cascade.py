"""A cascade of two designs: the first answers where it is sure, the second all other samples.

The confidence of an answer is its softmax probability (Hendrycks and Gimpel 2017). Selective
accuracy is that of the answers given when only the most confident share of them is given
(El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluators.statistics.paired import Correct

COVERAGES = tuple(0.05 * k for k in range(1, 21))
"""Those of a risk-coverage curve."""
Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """What a design answers to N samples.

    Attributes:
        logits: (N, classes).
        labels: (N,) the true classes.
    """

    logits: Floats
    labels: Labels

    def __post_init__(self) -> None:
        if self.logits.ndim != 2 or len(self.logits) != len(self.labels) or not len(self.labels):
            raise ValueError(
                f"logits of shape {self.logits.shape} for {len(self.labels)} labels: give one row "
                "a label, and at least one"
            )

    @property
    def correct(self) -> Correct:
        """(1, N): 1.0 where the answer is the true class."""
        found: Correct = (self.logits.argmax(1) == self.labels)[None].astype(np.float64)
        return found

    @property
    def confidence(self) -> Floats:
        """(N,): the probability of the answer, by softmax."""
        shifted = np.exp(self.logits - self.logits.max(1, keepdims=True))
        found: Floats = shifted.max(1) / shifted.sum(1)
        return found


@dataclass(frozen=True)
class Cascade:
    """A cascade with one threshold.

    Attributes:
        threshold: the first design answers from this confidence on; infinite for never.
        answered: share of samples that it answers.
        correct: (1, N): 1.0 where the cascade is right.
        expected_ms: mean latency of an answer: the first design's, and that of the second for the
            share that goes on to it. Both run whole, one after the other.
    """

    threshold: float
    answered: float
    correct: Correct
    expected_ms: float

    @property
    def percent(self) -> float:
        """Percent of samples that it is right about."""
        return 100 * float(self.correct.mean())


def cascade(first: Answers, second: Answers, threshold: float, ms: tuple[float, float]) -> Cascade:
    """Run a cascade of two designs over the same samples.

    Args:
        first: answers of the design that is asked first.
        second: answers of the other.
        threshold: confidence from which the first answers.
        ms: latency of each in ms.

    Raises:
        ValueError: the two are of other samples.
    """
    if not np.array_equal(first.labels, second.labels):
        raise ValueError("the two designs answered other samples")
    sure = first.confidence >= threshold
    correct: Correct = np.where(sure, first.correct[0], second.correct[0])[None]
    answered = float(sure.mean())
    return Cascade(threshold, answered, correct, ms[0] + (1 - answered) * ms[1])


def thresholds(first: Answers) -> list[float]:
    """Every threshold that makes a difference on these samples, from always to never answering."""
    return [*sorted({0.0, *first.confidence.tolist()}), float("inf")]


def best_cascade(
    first: Answers, second: Answers, ms: tuple[float, float], most_ms: float | None = None
) -> Cascade:
    """Choose the threshold of a cascade, on validation.

    The most accurate within `most_ms`, if given; of equals the fastest.

    Raises:
        ValueError: no threshold is within `most_ms`.
    """
    found = [cascade(first, second, each, ms) for each in thresholds(first)]
    within = [each for each in found if most_ms is None or each.expected_ms <= most_ms]
    if not within:
        fastest = min(each.expected_ms for each in found)
        raise ValueError(f"no threshold within {most_ms:g} ms: the fastest takes {fastest:.4g} ms")
    return max(within, key=lambda each: (each.percent, -each.expected_ms))


def selective_accuracy(answers: Answers, coverage: float) -> float:
    """Percent right of the most confident share of answers.

    Args:
        answers: of a design.
        coverage: the share of samples that is answered, above 0 and at most 1.

    Raises:
        ValueError: a coverage out of its range.
    """
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage {coverage:g}: give a share above 0, at most 1")
    count = max(1, round(coverage * len(answers.labels)))
    order = np.argsort(-answers.confidence, kind="stable")
    return 100 * float(answers.correct[0, order[:count]].mean())


def risk_coverage(
    answers: Answers, coverages: Sequence[float] = COVERAGES
) -> list[tuple[float, float]]:
    """Percent of wrong answers among those given, for each coverage: the risk-coverage curve."""
    return [(each, 100 - selective_accuracy(answers, each)) for each in coverages]
