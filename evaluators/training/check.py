"""Whether a training worked: a design is held to what a linear probe reads from its features."""

from dataclasses import dataclass

import torch
from torch import nn

from evaluators.data.answers import THRESHOLD
from evaluators.features.examples import Examples
from evaluators.training.execution import PLAIN, Execution
from evaluators.training.linear_probe import probe_scores
from evaluators.training.loop import predict
from evaluators.training.targets import answers_of, is_multi_label, is_right

PROBE_STRENGTH = 0.1
"""Ridge penalty of the probe. Over two pairs of taps on tweets it is right on 68.4 and 67.6 % of
validation, a logistic probe with C = 0.01 on 67.1 and 67.8 %."""
MARGIN_POINTS, MARGIN_SAMPLES = 2.0, 1.5
"""How far below the probe a design may be on validation before it is trained once more: the greater
of the two."""
FLAT_LOGITS = 1e-3
"""Greatest deviation of a logit between samples below which a network ignores its input."""


@dataclass(frozen=True)
class TrainingCheck:
    """What a trained design answers on validation.

    Attributes:
        accuracy: Percent right.
        probe: Percent right of a linear probe of the same features; None where the trunks were
            trained with the design, so that there are no fixed features to probe.
        samples: How many validation samples there are.
        constant: Whether it gives one answer to samples that differ in theirs, or logits that
            hardly vary.
        multi_label: Whether an answer is a set of classes, not one class.
    """

    accuracy: float
    probe: float | None
    samples: int
    constant: bool
    multi_label: bool = False

    @property
    def below_probe(self) -> bool:
        """Whether it is further below the probe than the margin."""
        margin = max(MARGIN_POINTS, 100 * MARGIN_SAMPLES / self.samples)
        return self.probe is not None and self.accuracy < self.probe - margin

    @property
    def failed(self) -> bool:
        """Whether the design is to be trained once more."""
        return self.constant or self.below_probe

    @property
    def probe_in_words(self) -> str:
        """The probe and its accuracy; only where there is one."""
        return f"a linear probe of its features {self.probe:.1f} %"

    @property
    def reason(self) -> str:
        """Why the training failed, in words; empty where it did not."""
        if not self.failed:
            return ""
        beside = "" if self.probe is None else f"; {self.probe_in_words}"
        what = f"the same {answer(self.multi_label)} for every sample, " if self.constant else ""
        return f"did not train: {what}{self.accuracy:.1f} % on validation{beside}"


def probe_accuracy(train: Examples, valid: Examples, classes: int) -> float:
    """Return the percent of validation samples that a linear probe of cached features gets right.

    Raises:
        NotFiniteError: A feature has NaN or infinite values.
    """
    scores = torch.from_numpy(probe_scores(train, valid, classes, PROBE_STRENGTH))
    if is_multi_label(valid.labels):  # targets of 1 and 0: as likely as not in between
        scores = scores - THRESHOLD
    return 100 * float(is_right(scores, valid.labels).double().mean())


def check_training(
    module: nn.Module, valid: Examples, probe: float | None, execution: Execution = PLAIN
) -> TrainingCheck:
    """Check a trained module on validation; `probe` as in `TrainingCheck`."""
    logits = predict(module, valid, execution).cpu()
    sets = is_multi_label(valid.labels)
    answers = answers_of(logits, sets)
    # A shift that all classes share changes no answer, but where each is answered by itself.
    spread = (logits if sets else logits - logits.mean(1, keepdim=True)).std(0, correction=0).max()
    several = len(torch.unique(valid.labels, dim=0)) > 1
    constant = several and (len(torch.unique(answers, dim=0)) == 1 or float(spread) < FLAT_LOGITS)
    right = is_right(logits, valid.labels).double().mean()
    return TrainingCheck(100 * float(right), probe, len(answers), constant, sets)


def answer(multi_label: bool) -> str:
    """What a network answers for a sample, in words."""
    return "set of classes" if multi_label else "class"
