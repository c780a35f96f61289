"""How right a design is: trained by one protocol, judged on validation, on test only at the end."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from evaluators.data import DataSet, Sample, Split
from evaluators.evaluation import Evaluation, content_key
from evaluators.features.design_inputs import DesignInputs
from evaluators.features.examples import CachedFeatures
from evaluators.features.preprocessing import Preprocessing
from evaluators.features.taps import TapFeatures
from evaluators.features.trunk_weights import (
    TrunkWeights,
    WeightsError,
    load_prefix,
    save_state,
    tuned_identity,
)
from evaluators.onnx.builder import Artifact, OnnxBuilder, run_onnx
from evaluators.onnx.quantisation import CALIBRATION_SAMPLES, For, recipe_of
from evaluators.statistics.accuracy import measures_of
from evaluators.statistics.paired import Correct, correct_rows
from evaluators.training.config import ALONE, TUNED, Stage, TrainingConfig, TrainingProtocol
from evaluators.training.execution import Execution, execution_on, place
from evaluators.training.loop import TRAINING_VERSION, Examples, Fit, fit, predict
from search_space.design.encoder import EncoderShape, EncoderSpec
from search_space.design.genotype import FusionPoint, Genotype
from search_space.encoders.features import features_of
from search_space.network.network import Fusion, FusionNetwork, new_fusion
from search_space.network.rewrites import NONE, Rewrites

ON_FROZEN = "fusion on frozen trunks"
WHOLE = "whole network"
Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps at most)."""


class QualityEvaluator:
    """Trains designs on one data set by one protocol.

    `evaluate` sees train and validation alone; `test` is for the end of a study. Trained weights
    are kept under `home`, so that a design can be exported as it was judged. `whole` is the
    most expensive rung: every design is trained whole after its fusion, whatever the protocol says.
    """

    def __init__(
        self,
        data: DataSet,
        encoders: dict[str, EncoderSpec],
        shapes: dict[str, EncoderShape],
        protocol: TrainingProtocol,
        home: Path,
        progress: Progress | None = None,
        compute_device: str = "cpu",
        runtime: For = "onnxruntime",
        rewrites: Rewrites = NONE,
        execution: Execution | None = None,
        whole: bool = False,
    ) -> None:
        self.data = data
        self.protocol = protocol
        self._encoders, self._shapes = encoders, shapes
        self._home, self._progress, self.compute_device = home, progress, compute_device
        self._runtime, self._whole = runtime, whole
        self._execution = execution or execution_on(compute_device)
        self.preprocessing = Preprocessing(data, shapes)
        self._trunks = TrunkWeights(shapes, home / "trunks", protocol.seed)
        features = TapFeatures(
            self.preprocessing, self._trunks, home / "features", progress, compute_device
        )
        self.reads = DesignInputs(
            data, encoders, shapes, self.preprocessing, features, compute_device
        )
        self.builder = OnnxBuilder(
            encoders,
            shapes,
            len(data.classes),
            home / "artifacts",
            runtime,
            rewrites,
            lambda name: self.preprocessing.text_lengths(encoders[name]),
            home / "parts",
        )

    def other(
        self,
        data: DataSet | None = None,
        seed: int | None = None,
        progress: Progress | None = None,
        whole: bool | None = None,
    ) -> "QualityEvaluator":
        """An evaluator like this one, on other data, with another seed or on another rung."""
        protocol = self.protocol if seed is None else replace(self.protocol, seed=seed)
        made = QualityEvaluator(
            data or self.data,
            self._encoders,
            self._shapes,
            protocol,
            self._home,
            progress or self._progress,
            self.compute_device,
            self._runtime,
            execution=self._execution,
            whole=self._whole if whole is None else whole,
        )
        made.builder = self.builder  # graphs are for the texts of all data, not of a fold
        return made

    # -- before the first design

    def prepare(self) -> None:
        """Fine-tunes every trunk alone, where the protocol asks for it and it is not kept yet.

        Designs call it as well; called before the first one it tells where the time goes.
        """
        for spec in self._encoders.values():
            if not self._is_tuned(spec):
                continue
            key = self._tuning_key(spec)
            file = self._trunks.tuned_file(key)
            if not self._trunks.has_tuned(key):
                file.parent.mkdir(parents=True, exist_ok=True)
                with FileLock(f"{file}.lock"):  # a second worker waits and finds it done
                    if not self._trunks.has_tuned(key):
                        self._tune(spec, key)
            self._trunks.use_tuned(spec, key)

    def _is_tuned(self, spec: EncoderSpec) -> bool:
        return spec.modality in TUNED[self.protocol.trunks]

    def _tuning_key(self, spec: EncoderSpec) -> str:
        conditions = [
            TRAINING_VERSION,
            self._trunks.loaded_identity(spec),
            self.data.fingerprint,
            self.preprocessing.fingerprint(spec),
            asdict(self._alone_config(spec)),
            self.protocol.arithmetic,
            self.protocol.seed,
            *self._batched([spec]),
        ]
        return content_key("tuned trunk", {"conditions": conditions})

    def _tune(self, spec: EncoderSpec, key: str) -> None:
        genotype = self.alone(spec)
        network = self._untrained(genotype)
        train, valid = (self.reads.examples(genotype, split, False) for split in ("train", "valid"))
        self._fit(network, train, valid, self._alone_config(spec), f"tuning {spec.name} alone")
        self._trunks.keep_tuned(key, network.trunks[spec.modality].cpu())

    def _alone_config(self, spec: EncoderSpec) -> TrainingConfig:
        return self.protocol.alone_config(spec.modality, spec.weights == "pretrained")

    def _fusion_config(self, genotype: Genotype) -> TrainingConfig:
        return self.protocol.fusion_config(self._is_pretrained(genotype))

    def _whole_config(self, genotype: Genotype) -> TrainingConfig:
        return self.protocol.whole_config(self.stage(genotype), self._is_pretrained(genotype))

    def _is_pretrained(self, genotype: Genotype) -> bool:
        return any(spec.weights == "pretrained" for spec in self._specs(genotype))

    def alone(self, spec: EncoderSpec) -> Genotype:
        """The unimodal design over a whole encoder, at the longest text that the data need.

        Pretrained text is pooled to its mean, which suits encoders trained for one use or another;
        as published it is the pooler's, which random weights take too.
        """
        shape = self._shapes[spec.name]
        if spec.modality == "vision":
            pooling = "cls" if shape.has_class_token else "mean"
            point = FusionPoint(0, shape.depth)
            return Genotype(None, spec.name, 0, (point,), vision_pooling=pooling)  # type: ignore[arg-type]
        if spec.modality == "audio":
            point = FusionPoint(0, 0, audio_tap=shape.depth)
            return Genotype(None, None, 0, (point,), audio_encoder=spec.name)
        point = FusionPoint(shape.depth, 0)
        pooling = "pooler" if shape.has_pooler else "cls"
        if spec.weights == "pretrained" and self.protocol.by_stage is None:
            pooling = "mean"
        return Genotype(spec.name, None, min(512, shape.max_tokens), (point,), text_pooling=pooling)  # type: ignore[arg-type]

    # -- one design

    def fidelity(self, genotype: Genotype) -> str:
        """How this design is trained here: fusion alone on frozen trunks, or as a whole."""
        return WHOLE if self._whole or self._ends_whole(genotype) else ON_FROZEN

    def _ends_whole(self, genotype: Genotype) -> bool:
        """Whether the protocol itself trains this design whole."""
        at_the_end = self._stands_at_the_end(genotype)
        return self.protocol.trains_whole(self.stage(genotype), at_the_end)

    def stage(self, genotype: Genotype) -> Stage:
        """Where the design fuses."""
        if not genotype.is_fused:
            return ALONE[next(iter(genotype.encoders))]
        if self._stands_at_the_end(genotype):
            return "late"
        return "early" if len(genotype.points) == 1 else "intermediate"

    def _stands_at_the_end(self, genotype: Genotype) -> bool:
        """Late fusion: every tap is an encoder's own output, so the trunks stay frozen."""
        return all(
            point.tap(modality) == self._shapes[name].depth
            for point in genotype.points
            for modality, name in genotype.encoders.items()
        )

    def key(self, genotype: Genotype) -> str:
        """Design, data, protocol, seed, and the weights that the trunks start from."""
        return content_key("quality", self._conditions(genotype))

    def _conditions(self, genotype: Genotype) -> dict[str, object]:
        specs = self._specs(genotype)
        batched = self._batched(specs) if self.fidelity(genotype) == WHOLE else []
        return {
            "genotype": genotype.key,
            "data": self.data.fingerprint,
            "protocol": asdict(self.protocol),
            "recipe": TRAINING_VERSION,
            "trunks": [self._identity(spec) for spec in specs],
            "inputs": [self.preprocessing.fingerprint(spec) for spec in specs],
            **recipe_of(genotype.precision, self._runtime),
            **self._exported_as(genotype),
            **({"rung": WHOLE} if self._whole and not self._ends_whole(genotype) else {}),
            **({"batches": batched} if batched else {}),
        }

    def _batched(self, specs: Sequence[EncoderSpec]) -> list[str]:
        """What is peculiar to the batches that these trunks are trained on."""
        shared = any(spec.modality == "vision" for spec in specs) and self.data.shares_pictures
        return ["of one picture together"] if shared else []

    def features_key(self, genotype: Genotype) -> str:
        """Of what the design's fusion reads: taps and forms, texts' length, trunks and data."""
        specs = self._specs(genotype)
        conditions = {
            "data": self.data.fingerprint,
            "features": [feature.name for feature in features_of(genotype, self._shapes)],
            "text_tokens": genotype.text_tokens,
            "trunks": [self._identity(spec) for spec in specs],
            "inputs": [self.preprocessing.fingerprint(spec) for spec in specs],
        }
        return content_key("features", conditions)

    def _exported_as(self, genotype: Genotype) -> dict[str, object]:
        """What rewrites make of a graph in reduced precision, which is judged by running it."""
        rewriting = self.builder.rewriting
        if genotype.precision == "fp32" or rewriting.rewrites == NONE:
            return {}
        return {"exported": [rewriting.longest(genotype), rewriting.key(genotype)]}

    def _specs(self, genotype: Genotype) -> list[EncoderSpec]:
        return [self._encoders[name] for name in genotype.encoders.values()]

    def _identity(self, spec: EncoderSpec) -> str:
        """Of the trunks that designs are trained on, also before those have been tuned."""
        if self._is_tuned(spec):
            return tuned_identity(self._tuning_key(spec))
        return self._trunks.loaded_identity(spec)

    def evaluate(self, genotype: Genotype) -> Evaluation:
        """Trains the design and judges it on the validation split.

        A design in reduced precision is judged by running its ONNX in that precision; how far its
        logits are from torch's is in the details. Raises NotFiniteError where training diverges,
        OSError where its weights cannot be kept.
        """
        correct, details = self._trained_and_judged(genotype, "valid")
        measures = measures_of(correct, self.data.split("valid"))
        return Evaluation(self.key(genotype), "quality", measures, details)

    def out_of_fold(self, genotype: Genotype) -> tuple[Correct, dict[str, Any]]:
        """`evaluate` on the part of a fold that neither trained nor stopped the design.

        Right answers (1, N) in the order of that part, and the details. The weights are not
        kept: designs are exported as the standard split trains them. Raises ValueError for data
        that are no fold: their test split is for the end.
        """
        if not self.data.cut_from:
            raise ValueError(f"{self.data.name} is no fold: its test split is for `test` alone")
        try:
            return self._trained_and_judged(genotype, "test")
        finally:
            self.forget_weights(genotype)

    def _trained_and_judged(
        self, genotype: Genotype, split: Split
    ) -> tuple[Correct, dict[str, Any]]:
        """Right answers (1, N) of the design, newly trained, and how its training went."""
        module, valid, done, allowed = self._train(genotype)
        frozen = self.fidelity(genotype) == ON_FROZEN
        examples = valid if split == "valid" else self.reads.examples(genotype, split, frozen)
        samples = self.data.split(split)
        logits = predict(module, examples).cpu().numpy()
        told = {}
        if genotype.precision != "fp32":
            exported = self._exported_logits(genotype, samples)
            difference = np.abs(exported - logits)
            told["torch_distance_max"] = float(difference.max())
            told["torch_distance_mean"] = float(difference.mean())
            logits = exported
        correct = _correct(logits, samples)
        return correct, {
            "fidelity": self.fidelity(genotype),
            "split": split,
            "epochs": done.epochs,
            "epochs_allowed": done.epochs_allowed,
            "best_epoch": done.best_epoch,
            "fusion_epochs": [allowed, self._fusion_config(genotype).epochs],
            "seconds": round(done.seconds, 3),
            "waited_s": round(done.waited_s, 3),
            "right": correct_rows(correct),
            **told,
        }

    def test(self, genotype: Genotype) -> Evaluation:
        """Judges a trained design on the test split; for the end of a study only."""
        samples = self.data.split("test")
        if genotype.precision == "fp32":
            on_cached = self.fidelity(genotype) == ON_FROZEN  # one pass serves many designs
            part = self._trained_part(genotype).to(self.compute_device)
            examples = self.reads.examples(genotype, "test", on_cached)
            logits = predict(part, examples).cpu().numpy()
        else:
            logits = self._exported_logits(genotype, samples)
        correct = _correct(logits, samples)
        details = {"split": "test", "seed": self.protocol.seed, "right": correct_rows(correct)}
        return Evaluation(self.test_key(genotype), "test", measures_of(correct, samples), details)

    def test_key(self, genotype: Genotype) -> str:
        """The content key of the design's test evaluation."""
        return content_key("test", self._conditions(genotype))

    def trained(self, genotype: Genotype) -> FusionNetwork:
        """The whole network with its trained weights; trained again where they are not kept."""
        part = self._trained_part(genotype)
        if isinstance(part, FusionNetwork):
            return part
        network = self._untrained(genotype)
        network.fusion.load_state_dict(part.state_dict())
        return network.eval()

    def trained_fusion(self, genotype: Genotype) -> tuple[Fusion, FusionNetwork | None]:
        """The fusion with its trained weights, and its network where that was trained whole.

        On frozen trunks no trunk is loaded: kept features are what the fusion reads.
        """
        part = self._trained_part(genotype)
        if isinstance(part, FusionNetwork):
            return part.fusion, part.to(self.compute_device)
        assert isinstance(part, Fusion)
        return part, None

    def forget_weights(self, genotype: Genotype) -> None:
        """Removes what is kept of the design's training; asked for again, it is trained again."""
        self._weights_file(genotype).unlink(missing_ok=True)

    def artifact(self, genotype: Genotype) -> Artifact:
        """The trained design as ONNX in its precision: the graph that is timed, with its weights.

        Scales of int8 are calibrated on training inputs. The caller discards it. Raises ParityError
        where ONNX differs from torch.
        """
        return self.builder.build(genotype, self.trained(genotype), self.calibration(genotype))

    def calibration(self, genotype: Genotype) -> list[tuple[Tensor, ...]]:
        """Training inputs that scales of int8 are drawn from; none in any other precision."""
        if genotype.precision != "int8":
            return []
        train = self.data.split("train")
        return self.inputs(genotype, train[:: -(-len(train) // CALIBRATION_SAMPLES)])

    def inputs(self, genotype: Genotype, samples: Sequence[Sample]) -> list[tuple[Tensor, ...]]:
        """What the exported network reads: a tuple of inputs of batch 1, a sample."""
        return list(self._fed(genotype, samples))

    def _fed(self, genotype: Genotype, samples: Sequence[Sample]) -> Iterable[tuple[Tensor, ...]]:
        fed = self.builder.rewriting.fed
        return (fed(genotype, row) for row in self.reads.one_by_one(genotype, samples))

    # -- how

    def _train(self, genotype: Genotype) -> tuple[torch.nn.Module, Examples, Fit, int]:
        """What was trained (the fusion or the whole), its validation examples, how it went.

        Last the epochs that the protocol's bound left to the fusion.
        """
        self.prepare()
        module: torch.nn.Module = self._new_fusion(genotype)
        config, fits = self._fusion_config(genotype), []
        allowed, whole = config.epochs, self.fidelity(genotype) == WHOLE
        if self.protocol.starts_on_features or not whole:
            train, valid = (
                self.reads.examples(genotype, split, True) for split in ("train", "valid")
            )
            fits.append(self._fit(module, train, valid, config, "training fusion"))
            allowed = fits[0].epochs_allowed
        if whole:
            network = self._untrained(genotype)
            network.fusion.load_state_dict(module.cpu().state_dict())
            train, valid = (
                self.reads.examples(genotype, split, False) for split in ("train", "valid")
            )
            config, module = self._whole_config(genotype), network
            fits.append(self._fit(network, train, valid, config, "training whole"))
        save_state(module.cpu(), self._weights_file(genotype))
        seconds, waited = sum(f.seconds for f in fits), sum(f.waited_s for f in fits)
        done = replace(fits[-1], seconds=seconds, waited_s=waited)
        return module.to(self.compute_device), valid, done, allowed

    def _fit(
        self,
        module: torch.nn.Module,
        train: Examples,
        valid: Examples,
        config: TrainingConfig,
        what: str,
    ) -> Fit:
        def told(epoch: int, epochs: int, _accuracy: float) -> None:
            if self._progress:
                self._progress(what, epoch, epochs)

        place(module, self.compute_device)
        on_cached = isinstance(train, CachedFeatures)
        arithmetic = "fp32" if on_cached else self.protocol.arithmetic
        return fit(
            module, train, valid, config, self.protocol.seed, told, arithmetic, self._execution
        )

    def _untrained(self, genotype: Genotype) -> FusionNetwork:
        """The network on its trunks' weights, fusion and head newly drawn."""
        tuned = self.protocol.starts_on_features or self.fidelity(genotype) == ON_FROZEN
        trunks = {
            modality: self._trunks.trunk(
                self._encoders[name], genotype.deepest_tap(modality), tuned
            )
            for modality, name in genotype.encoders.items()
        }
        return FusionNetwork(genotype, self._shapes, self._new_fusion(genotype), trunks)

    def _new_fusion(self, genotype: Genotype) -> Fusion:
        return new_fusion(genotype, self._shapes, len(self.data.classes), self.protocol.seed)

    def _trained_part(self, genotype: Genotype) -> torch.nn.Module:
        """What is trained of a design, the fusion or the whole network, with its trained weights.

        Trained again where they are not kept.
        """
        self.prepare()
        whole = self.fidelity(genotype) == WHOLE
        part = self._untrained(genotype) if whole else self._new_fusion(genotype)
        file = self._weights_file(genotype)
        try:
            load_prefix(part, file)
        except (FileNotFoundError, WeightsError):
            self._train(genotype)
            load_prefix(part, file)
        return part.eval()

    def examples_seen(self, genotype: Genotype, split: Split) -> Examples:
        """The split's samples as the trained design reads them: kept features, or raw inputs."""
        return self.reads.examples(genotype, split, self.fidelity(genotype) == ON_FROZEN)

    def _exported_logits(self, genotype: Genotype, samples: Sequence[Sample]) -> np.ndarray:
        """Logits (N, classes) of the exported network, run in its precision on this CPU."""
        artifact = self.artifact(genotype)
        try:
            return run_onnx(artifact.path, self._fed(genotype, samples))
        finally:
            artifact.discard()

    def _weights_file(self, genotype: Genotype) -> Path:
        return self._home / "weights" / f"{self.key(genotype)}.safetensors"


def _correct(logits: np.ndarray, samples: Sequence[Sample]) -> Correct:
    """(1, N): 1.0 where the greatest of the logits (N, classes) is the sample's class."""
    labels = np.array([sample.label for sample in samples])
    correct: Correct = (logits.argmax(1) == labels)[None].astype(np.float64)
    return correct
