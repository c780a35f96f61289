"""Exports designs as ONNX with the weights that they were trained to."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from evaluators.data import Sample
from evaluators.onnx.builder import Artifact, run_onnx
from evaluators.onnx.quantisation import CALIBRATION_SAMPLES
from evaluators.quality.trainer import DesignTrainer
from search_space.design.genotype import Genotype
from search_space.modality import Modality


class NetworkExporter:
    """Builds the ONNX of trained designs and runs it; the caller discards what it is given."""

    def __init__(self, trainer: DesignTrainer) -> None:
        self._trainer, self.builder = trainer, trainer.builder

    def artifact(self, genotype: Genotype) -> Artifact:
        """The trained design as ONNX in its precision: the graph that is timed, with its weights.

        Scales of int8 are calibrated on training inputs. Raises ParityError where ONNX differs
        from torch.
        """
        network = self._trainer.trained(genotype)
        return self.builder.build(genotype, network, self._calibration(genotype))

    def artifact_without(self, genotype: Genotype, absent: Modality) -> Artifact:
        """The trained, fused design as ONNX that runs without one modality, and without its trunk.

        Right as often as "accuracy_without_M" says (in fp32). Raises ParityError where ONNX
        differs from torch.
        """
        network = self._trainer.trained(genotype).to(self._trainer.compute_device)
        nothing = self._trainer.inputs.nothing_read(genotype, network)
        calibration = self._calibration(genotype)
        return self.builder.build_without(genotype, network.cpu(), absent, nothing, calibration)

    def logits(self, genotype: Genotype, samples: Sequence[Sample]) -> np.ndarray:
        """Logits (N, classes) of the exported network, run in its precision on this CPU."""
        artifact = self.artifact(genotype)
        try:
            return self.logits_of(artifact.path, genotype, samples)
        finally:
            artifact.discard()

    def logits_of(
        self,
        file: Path,
        genotype: Genotype,
        samples: Sequence[Sample],
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Return logits of a network in a file; `progress` is called with the samples done."""

        def fed() -> Iterator[tuple[Tensor, ...]]:
            for done, row in enumerate(self._fed(genotype, samples), 1):
                yield row
                if progress is not None:
                    progress(done)

        return run_onnx(file, fed())

    def inputs(self, genotype: Genotype, samples: Sequence[Sample]) -> list[tuple[Tensor, ...]]:
        """What the exported network reads: a tuple of inputs of batch 1, a sample."""
        return list(self._fed(genotype, samples))

    def _fed(self, genotype: Genotype, samples: Sequence[Sample]) -> Iterable[tuple[Tensor, ...]]:
        fed = self.builder.rewriting.fed
        return (fed(genotype, row) for row in self._trainer.inputs.one_by_one(genotype, samples))

    def _calibration(self, genotype: Genotype) -> list[tuple[Tensor, ...]]:
        """Training inputs that scales of int8 are drawn from; none in any other precision."""
        if genotype.precision != "int8":
            return []
        train = self._trainer.data.split("train")
        return self.inputs(genotype, train[:: -(-len(train) // CALIBRATION_SAMPLES)])
