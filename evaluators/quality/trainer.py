"""Trains designs by one plan and keeps their weights."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from evaluators.cached_files import is_whole, remove_cached
from evaluators.data import DataSet, Split
from evaluators.features.design_inputs import DesignInputs
from evaluators.features.preprocessing import Preprocessing
from evaluators.features.scales import feature_scales
from evaluators.features.taps import TapFeatures
from evaluators.features.trunk_weights import TrunkWeights, load_prefix, save_state
from evaluators.onnx.artifacts import ParityError
from evaluators.onnx.builder import OnnxBuilder
from evaluators.onnx.quantisation import For
from evaluators.quality.keys import TrainingKeys
from evaluators.shared_store import SharedStore
from evaluators.training.adaptation import Adaptation, adaptation_of, learnt_of, logits_apart
from evaluators.training.check import TrainingCheck, check_training, probe_accuracy
from evaluators.training.config import TrainingConfig, TrainingProtocol
from evaluators.training.execution import Execution, execution_on, place
from evaluators.training.loop import Examples, Fit, fit, predict
from evaluators.training.plan import TrainingPlan
from search_space.design.encoder import EncoderSpec
from search_space.design.genotype import Genotype
from search_space.locks import NamedLock
from search_space.network.adapted import Adapters
from search_space.network.network import Fusion, FusionNetwork, new_fusion
from search_space.network.rewrites import NONE, Rewrites
from search_space.network.training_form import TrainingForm

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps at most)."""
WEIGHTS = "weights"
"""Folder of trained weights in a home, and their records in a shared store."""
MERGED_TOLERANCE = 1e-2
"""Greatest difference that merging adapters makes to logits, relative to the larger of 1 and the
largest. They were trained on kept features, of which tokens are rounded to half precision."""


@dataclass(frozen=True)
class Trained:
    """What one training left: the fusion or the whole network, on the compute device.

    learnt: what is kept of it. valid: the validation examples as it reads them. fit: how the last
    training went, with the seconds of all. check: what it answers on validation. logits: its own
    there, where adapters were merged, and merged_distance: how far that took them. attempts: how
    often it was trained.
    """

    module: nn.Module
    learnt: nn.Module
    valid: Examples
    fit: Fit
    check: TrainingCheck
    logits: Tensor | None = None
    merged_distance: float | None = None
    attempts: int = 1

    def rank(self) -> tuple[bool, float, float]:
        """Return what the better of two trainings is greater in."""
        return not self.check.constant, self.fit.valid_accuracy, -self.fit.valid_loss


class DesignTrainer:
    """Trains unimodal trunks, fusions and whole networks on the train split of one data set.

    Validation stops training; the test split is never read for it. Trained weights are kept under
    `home`, so that a design can be judged and exported as it was trained. `builder` is the one
    that exports the designs: designs in a reduced precision have keys of its runtime and rewrites.
    What `home` lacks is looked up in the shared store, where there is one, and what is made is
    uploaded; but for the weights of designs that are trained on a fold, which are not kept.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        preprocessing: Preprocessing,
        builder: OnnxBuilder,
        home: Path,
        progress: Progress | None = None,
        compute_device: str = "cpu",
        execution: Execution | None = None,
        shared: SharedStore | None = None,
        on_fold: bool = False,
    ) -> None:
        self.plan, self.preprocessing, self.builder = plan, preprocessing, builder
        self.data, self.compute_device = preprocessing.data, compute_device
        self._home, self._progress = home, progress
        self._execution = execution or execution_on(compute_device)
        self._shared, self._on_fold = shared, on_fold
        self._trunks = TrunkWeights(plan.shapes, home / "trunks", plan.protocol.seed, shared)
        features = TapFeatures(
            preprocessing,
            self._trunks,
            home / "features",
            progress,
            compute_device,
            shared=shared,
        )
        self.inputs = DesignInputs(
            self.data, plan.encoders, plan.shapes, preprocessing, features, compute_device
        )
        self.keys = TrainingKeys(plan, preprocessing, self._trunks, builder)

    def other(
        self,
        data: DataSet | None = None,
        protocol: TrainingProtocol | None = None,
        progress: Progress | None = None,
        whole: bool | None = None,
    ) -> "DesignTrainer":
        """A trainer like this one, on other data, by another protocol or on another rung.

        Its builder is this one's: graphs are for the texts of all data, not of a fold.
        """
        plan = replace(
            self.plan,
            protocol=protocol or self.plan.protocol,
            whole=self.plan.whole if whole is None else whole,
        )
        return DesignTrainer(
            plan,
            self.preprocessing if data is None else Preprocessing(data, plan.shapes),
            self.builder,
            self._home,
            progress or self._progress,
            self.compute_device,
            self._execution,
            self._shared,
            self._on_fold or data is not None,
        )

    def prepare(self) -> None:
        """Fine-tunes every trunk alone, where the protocol asks for it and it is not kept yet.

        Designs call it as well; called before the first one it tells where the time goes.
        """
        for spec in self.plan.encoders.values():
            if not self.plan.is_tuned(spec):
                continue
            key = self.keys.tuned_trunk(spec)
            file = self._trunks.tuned_file(key)
            if not self._trunks.has_tuned(key):
                file.parent.mkdir(parents=True, exist_ok=True)
                with NamedLock(f"{file}.lock"):  # a second worker waits and finds it done
                    if not is_whole(file):
                        self._tune(spec, key)
            self._trunks.use_tuned(spec, key)

    def train(self, genotype: Genotype) -> Trained:
        """Train the design anew and save its weights.

        A design that fails `check_training` is trained once more, with a lower rate and for more
        epochs; the better of the two on validation is saved. Designs that are trained as published
        are trained once.

        Raises:
            NotFiniteError: Training diverges, or features are not finite.
            ParityError: The network with merged adapters is not the one that was trained.
            EncoderError: A trunk cannot be run from its last frozen tap on.
            OSError: The weights cannot be saved.
        """
        self.prepare()
        trained = self._trained_once(genotype, lambda config: config)
        if trained.check.failed and self.plan.protocol.by_stage is None:
            first, again = trained, self._trained_once(genotype, TrainingConfig.second_attempt)
            both = (first.fit, again.fit)
            trained = max(first, again, key=Trained.rank)
            seconds, waited = sum(f.seconds for f in both), sum(f.waited_s for f in both)
            fit = replace(trained.fit, seconds=seconds, waited_s=waited)
            trained = replace(trained, fit=fit, attempts=2)
        file = self._weights_file(genotype)
        save_state(trained.learnt.cpu(), file)
        if self._shared is not None and not self._on_fold:
            self._shared.send(WEIGHTS, file.stem, file)
        trained.module.to(self.compute_device)
        return trained

    def _trained_once(
        self, genotype: Genotype, adapted: Callable[[TrainingConfig], TrainingConfig]
    ) -> Trained:
        """Train by the plan's configurations as `adapted` changes them."""
        fusion = self._new_fusion(genotype)
        module: nn.Module = fusion
        fits: list[Fit] = []
        whole = self.plan.trains_whole(genotype)
        on_features, probe = self.plan.protocol.starts_on_features or not whole, None
        form: TrainingForm | None = None
        if on_features:
            train, valid = self._train_and_valid(genotype, kept=True)
            form = self._training_form(genotype, fusion, train)
            config = adapted(self.plan.fusion_config(genotype).for_samples(len(train.labels)))
            fits.append(self._fit(module, train, valid, config, "training fusion"))
            probe = probe_accuracy(train, valid, len(self.data.classes))
        if whole:
            module = network = self.untrained(genotype)
            network.fusion = fusion.cpu()
            train, valid = self._train_and_valid(genotype, kept=False)
            if not on_features:
                form = self._training_form(genotype, fusion, train, network)
            config = adapted(self.plan.whole_config(genotype).for_samples(len(train.labels)))
            fits.append(self._fit(network, train, valid, config, "training whole"))
        adaptation = None
        if self.plan.adapts(genotype):
            adaptation = self._adaptation(genotype, fusion)
            config = adapted(self.plan.adapters_config().for_samples(len(train.labels)))
            read = adaptation.train, adaptation.valid
            fits.append(self._fit(adaptation.network, *read, config, "training adapters"))
        fusion.cpu()
        if form is not None:
            form.deploy()
        seconds, waited = sum(f.seconds for f in fits), sum(f.waited_s for f in fits)
        done = replace(fits[-1], seconds=seconds, waited_s=waited)
        if adaptation is not None:
            return self._merged_training(genotype, adaptation, done, probe)
        module.to(self.compute_device)
        check = check_training(module, valid, probe, self._execution)
        return Trained(module, module, valid, done, check)

    def trained(self, genotype: Genotype) -> FusionNetwork:
        """The whole network with its trained weights; trained again where they are not kept."""
        part = self.trained_part(genotype)
        if isinstance(part, FusionNetwork):
            return part
        network = self.untrained(genotype)
        network.fusion.load_state_dict(part.state_dict())
        return network.eval()

    def trained_fusion(self, genotype: Genotype) -> tuple[Fusion, FusionNetwork | None]:
        """The fusion with its trained weights, and its network where trunks were trained with it.

        On frozen trunks no trunk is loaded: kept features are what the fusion reads.
        """
        part = self.trained_part(genotype)
        if isinstance(part, FusionNetwork):
            return part.fusion, part.to(self.compute_device)
        return part, None

    def trained_part(self, genotype: Genotype) -> Fusion | FusionNetwork:
        """What is trained of a design, the fusion or the whole network, with its trained weights.

        Adapters are merged. Trained again where they are not kept.
        """
        self.prepare()
        changed = self.plan.changes_trunks(genotype)
        part = self.untrained(genotype) if changed else self._new_fusion(genotype)
        file = self._weights_file(genotype)
        if not is_whole(file) and not self._fetched(file):
            self.train(genotype)
        if isinstance(part, FusionNetwork) and self.plan.adapts(genotype):
            adapters = self._adapters(genotype, part)
            load_prefix(learnt_of(part.fusion, adapters), file)
            adapters.merge()
        else:
            load_prefix(part, file)
        return part.eval()

    def untrained(self, genotype: Genotype) -> FusionNetwork:
        """The network on the trunks that its training starts from, fusion and head newly drawn."""
        protocol = self.plan.protocol
        tuned = protocol.starts_on_features or not self.plan.trains_whole(genotype)
        trunks = {
            modality: self._trunks.trunk(
                self.plan.encoders[name], genotype.deepest_tap(modality), tuned
            )
            for modality, name in genotype.encoders.items()
        }
        return FusionNetwork(genotype, self.plan.shapes, self._new_fusion(genotype), trunks)

    def examples(self, genotype: Genotype, split: Split) -> Examples:
        """The split's samples as the trained design reads them: kept features, or raw inputs."""
        return self.inputs.examples(genotype, split, not self.plan.changes_trunks(genotype))

    def forget_weights(self, genotype: Genotype) -> None:
        """Removes what is kept of the design's training; asked for again, it is trained again."""
        remove_cached(self._weights_file(genotype))

    def _tune(self, spec: EncoderSpec, key: str) -> None:
        genotype = self.plan.unimodal(spec)
        network = self.untrained(genotype)
        train, valid = self._train_and_valid(genotype, kept=False)
        config = self.plan.alone_config(spec)
        self._training_form(genotype, network.fusion, train, network)
        self._fit(network, train, valid, config, f"tuning {spec.name} alone")
        self._trunks.keep_tuned(key, network.trunks[spec.modality].cpu())

    def _training_form(
        self,
        genotype: Genotype,
        fusion: Fusion,
        train: Examples,
        network: FusionNetwork | None = None,
    ) -> TrainingForm | None:
        """Bring the fusion into its training form; None where it is trained as published.

        `network` is the fusion's, whose trunks read raw inputs; without it `train` are features.
        """
        if self.plan.protocol.by_stage is not None:
            return None
        if network is not None:
            place(network, self.compute_device)
            if any(spec.weights == "random" for spec in self.plan.specs(genotype)):
                # BatchNorm of new trunks has no statistics yet: training reads each batch's own.
                network = deepcopy(network).train()
        return TrainingForm(fusion, feature_scales(train, network))

    def _train_and_valid(self, genotype: Genotype, kept: bool) -> tuple[Examples, Examples]:
        read = self.inputs.examples
        return read(genotype, "train", kept), read(genotype, "valid", kept)

    def _fit(
        self, module: nn.Module, train: Examples, valid: Examples, config: TrainingConfig, what: str
    ) -> Fit:
        def told(epoch: int, epochs: int, _accuracy: float) -> None:
            if self._progress:
                self._progress(what, epoch, epochs)

        place(module, self.compute_device)
        protocol = self.plan.protocol
        arithmetic = "fp32" if isinstance(module, Fusion) else protocol.arithmetic
        return fit(module, train, valid, config, protocol.seed, told, arithmetic, self._execution)

    def _adapters(self, genotype: Genotype, network: FusionNetwork) -> Adapters:
        trunks = dict(network.trunks.items())
        return Adapters(genotype, self.plan.shapes, trunks, self.plan.protocol.seed)

    def _adaptation(self, genotype: Genotype, fusion: Fusion) -> Adaptation:
        """A trained fusion over the design's adapted layers."""
        whole = self.untrained(genotype)
        return adaptation_of(
            genotype,
            self.plan.shapes,
            fusion,
            whole,
            self._adapters(genotype, whole),
            self.inputs,
            self.compute_device,
        )

    def _merged_training(
        self, genotype: Genotype, adaptation: Adaptation, done: Fit, probe: float | None
    ) -> Trained:
        """A training of adapters with these merged. Raises ParityError."""
        merged = self._merged(genotype, adaptation.learnt)
        place(adaptation.network, self.compute_device)
        place(merged, self.compute_device)
        check = check_training(adaptation.network, adaptation.valid, probe, self._execution)
        valid = self.inputs.raw(genotype, "valid")
        expected = predict(adaptation.network, adaptation.valid, self._execution)
        logits = predict(merged, valid, self._execution)
        distance = logits_apart(logits, expected)
        if not distance <= MERGED_TOLERANCE:
            raise ParityError(
                "the network with merged adapters gives other logits than the trained one: "
                f"{distance:.2g} apart, at most {MERGED_TOLERANCE:g}"
            )
        return Trained(merged, adaptation.learnt, valid, done, check, logits, distance)

    def _merged(self, genotype: Genotype, learnt: nn.ModuleDict) -> FusionNetwork:
        """The network with these adapters merged into its weights."""
        network = self.untrained(genotype)
        adapters = self._adapters(genotype, network)
        learnt_of(network.fusion, adapters).load_state_dict(learnt.state_dict())
        adapters.merge()
        return network.eval()

    def _new_fusion(self, genotype: Genotype) -> Fusion:
        seed = self.plan.protocol.seed
        return new_fusion(genotype, self.plan.shapes, len(self.data.classes), seed)

    def _fetched(self, file: Path) -> bool:
        """Whether another host's training was downloaded to `file`."""
        if self._shared is None or self._on_fold:
            return False
        return self._shared.fetch(WEIGHTS, file.stem, file)

    def _weights_file(self, genotype: Genotype) -> Path:
        return self._home / WEIGHTS / f"{self.keys.quality(genotype)}.safetensors"


@dataclass(frozen=True)
class Target:
    """What trained designs are exported for: a runtime, and the rewrites before timing."""

    runtime: For = "onnxruntime"
    rewrites: Rewrites = NONE


@dataclass(frozen=True)
class Compute:
    """Where designs are trained: a torch device, and how; None is its plain execution."""

    device: str = "cpu"
    execution: Execution | None = None


def new_builder(
    preprocessing: Preprocessing,
    encoders: Mapping[str, EncoderSpec],
    home: Path,
    target: Target,
) -> OnnxBuilder:
    """Make what exports designs for a target, on the data of `preprocessing`."""
    return OnnxBuilder(
        encoders,
        preprocessing.shapes,
        len(preprocessing.data.classes),
        home / "artifacts",
        target.runtime,
        target.rewrites,
        lambda name: preprocessing.text_lengths(encoders[name]),
        home / "parts",
    )


def new_trainer(
    preprocessing: Preprocessing,
    encoders: Mapping[str, EncoderSpec],
    protocol: TrainingProtocol,
    home: Path,
    progress: Progress | None = None,
    *,
    compute: Compute = Compute(),
    target: Target = Target(),
    whole: bool = False,
    shared: SharedStore | None = None,
) -> DesignTrainer:
    """Make a trainer on the data of `preprocessing`, and the builder that exports its designs."""
    data, shapes = preprocessing.data, preprocessing.shapes
    builder = new_builder(preprocessing, encoders, home, target)
    plan = TrainingPlan(protocol, encoders, shapes, whole, data.uninformative)
    return DesignTrainer(
        plan, preprocessing, builder, home, progress, compute.device, compute.execution, shared
    )
