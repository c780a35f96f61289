"""How right a design is: trained by one protocol, judged on validation, on test only at the end."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from evaluators.data import DataSet, Sample, Split, accuracy
from evaluators.evaluation import Evaluation, Measure, content_key
from evaluators.onnx_builder import Artifact, OnnxBuilder, run_onnx
from evaluators.precision import CALIBRATION_SAMPLES, For, recipe_of
from evaluators.preprocessing import Pixels, Preprocessing
from evaluators.tap_features import TapFeatures
from evaluators.training import (
    RECIPE,
    TUNED,
    Examples,
    Fit,
    KeptFeatures,
    RawInputs,
    Regime,
    TrainingProtocol,
    fit,
    predict,
)
from evaluators.trunk_weights import (
    TrunkWeights,
    WeightsError,
    load_prefix,
    save_state,
    tuned_identity,
)
from search_space.encoders import EncoderShape, EncoderSpec
from search_space.features import Feature, features_of
from search_space.genotype import FusionPoint, Genotype
from search_space.network import FusionNetwork, new_fusion

ON_FROZEN = "fusion on frozen trunks"
WHOLE = "whole network"
Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps at most)."""


class QualityEvaluator:
    """Trains designs on one data set by one protocol.

    `evaluate` sees train and validation alone; `test` is for the end of a study. Trained weights
    are kept under `home`, so that a design can be exported as it was judged.
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
    ) -> None:
        self.data = data
        self.protocol = protocol
        self._encoders, self._shapes = encoders, shapes
        self._home, self._progress, self._device = home, progress, compute_device
        self._runtime = runtime
        self.preprocessing = Preprocessing(data, shapes)
        self._trunks = TrunkWeights(shapes, home / "trunks", protocol.seed)
        self._features = TapFeatures(
            self.preprocessing, self._trunks, home / "features", progress, compute_device
        )
        self._raw: dict[tuple[str, Split], Pixels] = {}

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
            RECIPE,
            self._trunks.loaded_identity(spec),
            self.preprocessing.fingerprint(spec),
            asdict(self._alone_regime(spec)),
            self.protocol.arithmetic,
            self.protocol.seed,
        ]
        return content_key("tuned trunk", {"conditions": conditions})

    def _tune(self, spec: EncoderSpec, key: str) -> None:
        genotype = self.alone(spec)
        network = self._untrained(genotype)
        train, valid = (self._examples(genotype, split, False) for split in ("train", "valid"))
        self._fit(network, train, valid, self._alone_regime(spec), f"tuning {spec.name} alone")
        trunk = network.text if spec.modality == "text" else network.vision
        assert trunk is not None
        self._trunks.keep_tuned(key, trunk.cpu())

    def _alone_regime(self, spec: EncoderSpec) -> Regime:
        pretrained = spec.weights == "pretrained"
        return self.protocol.alone_pretrained if pretrained else self.protocol.alone

    def _whole_regime(self, genotype: Genotype) -> Regime:
        pretrained = any(spec.weights == "pretrained" for spec in self._specs(genotype))
        return self.protocol.whole_pretrained if pretrained else self.protocol.whole

    def alone(self, spec: EncoderSpec) -> Genotype:
        """The unimodal design over a whole encoder, at the longest text that the data need."""
        shape = self._shapes[spec.name]
        if spec.modality == "vision":
            pooling = "cls" if shape.has_class_token else "mean"
            point = FusionPoint(0, shape.depth)
            return Genotype(None, spec.name, 0, (point,), vision_pooling=pooling)  # type: ignore[arg-type]
        point = FusionPoint(shape.depth, 0)
        pooling = "pooler" if shape.has_pooler else "cls"
        return Genotype(spec.name, None, min(512, shape.max_tokens), (point,), text_pooling=pooling)  # type: ignore[arg-type]

    # -- one design

    def fidelity(self, genotype: Genotype) -> str:
        """How this design is trained here: fusion alone on frozen trunks, or as a whole."""
        if self.protocol.trunks == "by-stage" and not self._stands_at_the_end(genotype):
            return WHOLE
        return ON_FROZEN

    def _stands_at_the_end(self, genotype: Genotype) -> bool:
        """Late fusion: every tap is an encoder's own output, so the trunks stay frozen."""
        text, vision = genotype.text_encoder, genotype.vision_encoder
        return all(
            (text is None or point.text_tap == self._shapes[text].depth)
            and (vision is None or point.vision_tap == self._shapes[vision].depth)
            for point in genotype.points
        )

    def key(self, genotype: Genotype) -> str:
        """Design, data, protocol, seed, and the weights that the trunks start from."""
        return content_key("quality", self._conditions(genotype))

    def _conditions(self, genotype: Genotype) -> dict[str, object]:
        specs = self._specs(genotype)
        return {
            "genotype": genotype.key,
            "data": self.data.fingerprint,
            "protocol": asdict(self.protocol),
            "recipe": RECIPE,
            "trunks": [self._identity(spec) for spec in specs],
            "inputs": [self.preprocessing.fingerprint(spec) for spec in specs],
            **recipe_of(genotype.precision, self._runtime),
        }

    def _specs(self, genotype: Genotype) -> list[EncoderSpec]:
        return [self._encoders[n] for n in (genotype.text_encoder, genotype.vision_encoder) if n]

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
        module, examples, done, allowed = self._train(genotype)
        valid = self.data.split("valid")
        logits = predict(module, examples).cpu().numpy()
        told = {}
        if genotype.precision != "fp32":
            exported = self._exported_logits(genotype, valid)
            difference = np.abs(exported - logits)
            told["torch_distance_max"] = float(difference.max())
            told["torch_distance_mean"] = float(difference.mean())
            logits = exported
        details = {
            "fidelity": self.fidelity(genotype),
            "split": "valid",
            "epochs": done.epochs,
            "epochs_allowed": done.epochs_allowed,
            "best_epoch": done.best_epoch,
            "fusion_epochs": [allowed, self.protocol.fusion.epochs],
            "seconds": round(done.seconds, 3),
            **told,
        }
        measures = self._measures(logits.argmax(1), valid)
        return Evaluation(self.key(genotype), "quality", measures, details)

    def test(self, genotype: Genotype) -> Evaluation:
        """Judges a trained design on the test split; for the end of a study only."""
        samples = self.data.split("test")
        network = self.trained(genotype)
        if genotype.precision == "fp32":
            on_kept = self.fidelity(genotype) == ON_FROZEN  # one pass serves many designs
            part = network.fusion if on_kept else network
            examples = self._examples(genotype, "test", on_kept)
            logits = predict(part.to(self._device), examples)
            predicted = logits.argmax(1).cpu().numpy()
        else:
            predicted = self._exported_logits(genotype, samples).argmax(1)
        return Evaluation(
            self.test_key(genotype), "test", self._measures(predicted, samples), {"split": "test"}
        )

    def test_key(self, genotype: Genotype) -> str:
        """The content key of the design's test evaluation."""
        return content_key("test", self._conditions(genotype))

    def trained(self, genotype: Genotype) -> FusionNetwork:
        """The whole network with its trained weights; trained again where they are not kept."""
        self.prepare()
        file = self._weights_file(genotype)
        network = self._untrained(genotype)
        part = network if self.fidelity(genotype) == WHOLE else network.fusion
        try:
            load_prefix(part, file)
        except (FileNotFoundError, WeightsError):
            self._train(genotype)
            load_prefix(part, file)
        return network.eval()

    def artifact(self, genotype: Genotype) -> Artifact:
        """The trained design as ONNX in its precision: the graph that is timed, with its weights.

        Scales of int8 are calibrated on training inputs. The caller discards it. Raises ParityError
        where ONNX differs from torch.
        """
        folder, classes = self._home / "artifacts", len(self.data.classes)
        builder = OnnxBuilder(self._encoders, self._shapes, classes, folder, self._runtime)
        calibration: list[tuple[Tensor, ...]] = []
        if genotype.precision == "int8":
            train = self.data.split("train")
            spread = -(-len(train) // CALIBRATION_SAMPLES)
            calibration = self.inputs(genotype, train[::spread])
        return builder.build(genotype, self.trained(genotype), calibration)

    def inputs(self, genotype: Genotype, samples: Sequence[Sample]) -> list[tuple[Tensor, ...]]:
        """What the exported network reads: a tuple of inputs of batch 1, padded, a sample."""
        return list(self._stream(genotype, samples))

    def _stream(
        self, genotype: Genotype, samples: Sequence[Sample]
    ) -> Iterable[tuple[Tensor, ...]]:
        """The same one by one: the pictures of a large split need not fit into memory."""
        parts: list[Iterable[Tensor]] = []
        if genotype.text_encoder:
            spec, length = self._encoders[genotype.text_encoder], genotype.text_tokens
            for tensor in self.preprocessing.text(spec, samples, length):
                padded = torch.nn.functional.pad(tensor, (0, length - tensor.shape[1]))
                parts.append([row.unsqueeze(0) for row in padded])
        if genotype.vision_encoder:
            spec = self._encoders[genotype.vision_encoder]
            parts.append(self.preprocessing.pixels(spec, samples).stream(1))
        return zip(*parts, strict=True)

    # -- how

    def _train(self, genotype: Genotype) -> tuple[torch.nn.Module, Examples, Fit, int]:
        """What was trained (the fusion or the whole), its validation examples, how it went.

        Last the epochs that the protocol's bound left to the fusion.
        """
        self.prepare()
        module: torch.nn.Module = new_fusion(
            genotype, self._shapes, len(self.data.classes), self.protocol.seed
        )
        train, valid = (self._examples(genotype, split, True) for split in ("train", "valid"))
        done = self._fit(module, train, valid, self.protocol.fusion, "training fusion")
        allowed = done.epochs_allowed
        if self.fidelity(genotype) == WHOLE:
            network = self._untrained(genotype)
            network.fusion.load_state_dict(module.cpu().state_dict())
            train, valid = (self._examples(genotype, split, False) for split in ("train", "valid"))
            whole = self._fit(network, train, valid, self._whole_regime(genotype), "training whole")
            module, done = network, replace(whole, seconds=done.seconds + whole.seconds)
        save_state(module.cpu(), self._weights_file(genotype))
        return module.to(self._device), valid, done, allowed

    def _fit(
        self, module: torch.nn.Module, train: Examples, valid: Examples, regime: Regime, what: str
    ) -> Fit:
        def told(epoch: int, epochs: int, _accuracy: float) -> None:
            if self._progress:
                self._progress(what, epoch, epochs)

        module.to(self._device)
        on_kept = isinstance(train, KeptFeatures)
        arithmetic = "fp32" if on_kept else self.protocol.arithmetic
        return fit(module, train, valid, regime, self.protocol.seed, told, arithmetic)

    def _untrained(self, genotype: Genotype) -> FusionNetwork:
        """The network on its trunks' weights, fusion and head newly drawn."""
        fusion = new_fusion(genotype, self._shapes, len(self.data.classes), self.protocol.seed)
        text = vision = None
        if genotype.text_encoder:
            spec = self._encoders[genotype.text_encoder]
            text = self._trunks.trunk(spec, genotype.deepest_text_tap)
        if genotype.vision_encoder:
            spec = self._encoders[genotype.vision_encoder]
            vision = self._trunks.trunk(spec, genotype.deepest_vision_tap)
        return FusionNetwork(genotype, self._shapes, fusion, text, vision)

    def _examples(self, genotype: Genotype, split: Split, kept: bool) -> Examples:
        samples = self.data.split(split)
        labels = torch.tensor([sample.label for sample in samples])
        text = pixels = None
        if genotype.text_encoder:
            spec = self._encoders[genotype.text_encoder]
            text = self.preprocessing.text(spec, samples, genotype.text_tokens)
        if kept:
            return self._kept_features(genotype, samples, labels, text)
        if genotype.vision_encoder:
            pixels = self._pixels(genotype.vision_encoder, split)
        return RawInputs(text, pixels, labels, self._device)

    def _pixels(self, encoder: str, split: Split) -> Pixels:
        at = (encoder, split)
        if at not in self._raw:
            samples = self.data.split(split)
            self._raw[at] = self.preprocessing.pixels(self._encoders[encoder], samples)
        return self._raw[at]

    def _kept_features(
        self,
        genotype: Genotype,
        samples: Sequence[Sample],
        labels: Tensor,
        text: tuple[Tensor, Tensor] | None,
    ) -> KeptFeatures:
        wanted = features_of(genotype, self._shapes)
        found: dict[Feature, Tensor] = {}
        for name in (genotype.text_encoder, genotype.vision_encoder):
            if name:
                shape = self._shapes[name]
                of_trunk = [f for f in wanted if f.modality == shape.modality]
                found |= self._features.get(
                    self._encoders[name], shape, of_trunk, samples, text[0].shape[1] if text else 0
                )
        return KeptFeatures(found, text[1] if text else None, labels, self._device)

    def _exported_logits(self, genotype: Genotype, samples: Sequence[Sample]) -> np.ndarray:
        """Logits (N, classes) of the exported network, run in its precision on this CPU."""
        artifact = self.artifact(genotype)
        try:
            return run_onnx(artifact.path, self._stream(genotype, samples))
        finally:
            artifact.discard()

    def _measures(self, predicted: np.ndarray, samples: Sequence[Sample]) -> tuple[Measure, ...]:
        return tuple(
            Measure(name, 100 * share.value, "%", "higher", 100 * share.low, 100 * share.high)
            for name, share in accuracy(predicted, samples).items()
        )

    def _weights_file(self, genotype: Genotype) -> Path:
        return self._home / "weights" / f"{self.key(genotype)}.safetensors"
