"""Runs the trained networks of a study on inputs that are not in its data."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import optuna
import torch

from evaluators.data import Sample
from evaluators.data.answers import THRESHOLD
from evaluators.quality.trainer import DesignTrainer
from search_space.network.network import FusionNetwork
from studies.report.progress import Silent
from studies.results.trial_record import genotype_of
from studies.trained.trial import context_of, trained_trial


class Predictor:
    """The trained networks of a study, each loaded when it is first asked for.

    Attributes:
        classes: names of the classes, in the order of the probabilities.
        multi_label: whether an input has any number of classes, not exactly one.
    """

    def __init__(self, study: optuna.Study) -> None:
        """Load the study's data and encoders. Raises what `context_of` raises."""
        self._study = study
        with context_of(study, Silent()) as context:
            context.quality.prepare()
            self._trainer: DesignTrainer = context.quality.trainer
            self.classes: tuple[str, ...] = tuple(context.data.classes)
            self.multi_label = context.data.multi_label
        self._networks: dict[int, FusionNetwork] = {}

    def predict(
        self,
        number: int,
        texts: Sequence[str] | None = None,
        images: Sequence[str | Path] | None = None,
        sounds: Sequence[str | Path] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Return class probabilities of a trial's network in fp32: (N, classes).

        Those of one input add up to 1; of multi-label data each class has its own.

        Raises ValueError where an input of the design is missing or lengths differ, UsageError
        where the trial has no trained network.
        """
        genotype = genotype_of(trained_trial(self._study, number))
        if isinstance(texts, str):
            raise ValueError("texts is one text: give a list of texts")
        given = {
            "text": None if texts is None else list(texts),
            "vision": None if images is None else list(images),
            "audio": None if sounds is None else list(sounds),
        }
        for modality, inputs in given.items():
            if inputs is None and modality in genotype.encoders:
                raise ValueError(f"trial {number} reads {modality}: give it too")
        counts = {m: len(inputs) for m, inputs in given.items() if inputs is not None}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"{count} of {modality}" for modality, count in counts.items())
            raise ValueError(f"inputs of different numbers: {said}")
        pictures, recordings = given["vision"], given["audio"]
        if not (count := next(iter(counts.values()))):
            return np.zeros((0, len(self.classes)), np.float32)
        if number not in self._networks:
            self._networks[number] = self._trainer.trained(genotype).cpu().eval()
        samples = [
            Sample(
                id=f"input {k}",
                group=f"input {k}",
                text="" if given["text"] is None else str(given["text"][k]),
                label=0,
                score=None,
                split="test",
                image=None if pictures is None else Path(pictures[k]).expanduser(),
                sound=None if recordings is None else Path(recordings[k]).expanduser(),
            )
            for k in range(count)
        ]
        with torch.inference_mode():
            logits = [
                self._networks[number](*inputs)
                for inputs in self._trainer.inputs.one_by_one(genotype, samples)
            ]
        joined = torch.cat(logits).float()
        odds = joined.sigmoid() if self.multi_label else joined.softmax(1)
        found: npt.NDArray[np.float32] = odds.numpy()
        return found

    def chosen(self, probabilities: npt.NDArray[np.float32]) -> list[tuple[str, ...]]:
        """Return the names of the classes that probabilities (N, classes) answer.

        The most probable one; of multi-label data all above 0.5, which may be none.
        """
        if not self.multi_label:
            return [(self.classes[k],) for k in probabilities.argmax(1)]
        return [
            tuple(self.classes[k] for k in np.flatnonzero(row > THRESHOLD)) for row in probabilities
        ]
