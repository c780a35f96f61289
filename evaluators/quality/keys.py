"""Content keys of trained designs, of their features, and of trunks that are tuned alone."""

from collections.abc import Sequence
from dataclasses import asdict

from evaluators.evaluation import content_key
from evaluators.features.preprocessing import Preprocessing
from evaluators.features.trunk_weights import TrunkWeights, tuned_identity
from evaluators.onnx.builder import OnnxBuilder
from evaluators.onnx.quantisation import recipe_of
from evaluators.training.loop import TRAINING_VERSION
from evaluators.training.plan import WHOLE, TrainingPlan
from search_space.design.encoder import EncoderSpec
from search_space.design.genotype import Genotype
from search_space.design.reading import plugin_key
from search_space.encoders.features import features_of
from search_space.network.adapters import ADAPTERS_VERSION
from search_space.network.rewrites import NONE
from search_space.operators.registry import operator_of


class TrainingKeys:
    """Of everything that training on one data set by one plan depends on.

    Evaluations and trained weights that users have stored are found by these keys: another key for
    the same conditions would train everything anew.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        preprocessing: Preprocessing,
        trunks: TrunkWeights,
        builder: OnnxBuilder,
    ) -> None:
        self._plan, self._preprocessing = plan, preprocessing
        self._trunks, self._builder = trunks, builder
        self._data = preprocessing.data

    def quality(self, genotype: Genotype) -> str:
        """Of the trained design: data, protocol, seed, and the weights that the trunks start from.

        Its weights and its evaluation on validation are kept under this key.
        """
        return content_key("quality", self._conditions(genotype))

    def test(self, genotype: Genotype) -> str:
        """Of the trained design's evaluation on test."""
        return content_key("test", self._conditions(genotype))

    def features(self, genotype: Genotype) -> str:
        """Of what the design's fusion reads: taps and forms, texts' length, trunks and data."""
        specs = self._plan.specs(genotype)
        conditions = {
            "data": self._data.fingerprint,
            "features": [feature.name for feature in features_of(genotype, self._plan.shapes)],
            "text_tokens": genotype.text_tokens,
            "trunks": [self._identity(spec) for spec in specs],
            "inputs": [self._preprocessing.fingerprint(spec) for spec in specs],
        }
        return content_key("features", conditions)

    def tuned_trunk(self, spec: EncoderSpec) -> str:
        """Of the encoder's trunk when it is fine-tuned alone."""
        conditions = [
            TRAINING_VERSION,
            self._trunks.loaded_identity(spec),
            self._data.fingerprint,
            self._preprocessing.fingerprint(spec),
            asdict(self._plan.alone_config(spec)),
            self._plan.protocol.arithmetic,
            self._plan.protocol.seed,
            *self._batched([spec]),
        ]
        return content_key("tuned trunk", {"conditions": conditions})

    def _conditions(self, genotype: Genotype) -> dict[str, object]:
        plan, specs = self._plan, self._plan.specs(genotype)
        batched = self._batched(specs) if plan.trains_whole(genotype) else []
        return {
            "genotype": genotype.key,
            "data": self._data.fingerprint,
            "protocol": asdict(plan.protocol),
            "recipe": TRAINING_VERSION,
            "trunks": [self._identity(spec) for spec in specs],
            "inputs": [self._preprocessing.fingerprint(spec) for spec in specs],
            **recipe_of(genotype.precision, self._builder.runtime),
            **self._exported_as(genotype),
            **({"rung": WHOLE} if plan.whole and not plan.ends_whole(genotype) else {}),
            **({"batches": batched} if batched else {}),
            **({"adapters": self._adapters()} if plan.adapts(genotype) else {}),
            **self._drawn(genotype),
            **plugin_key(genotype),
        }

    def _adapters(self) -> list[object]:
        """The recipe of adapters; where they are and of what rank the design says."""
        return [ADAPTERS_VERSION, asdict(self._plan.adapters_config())]

    def _drawn(self, genotype: Genotype) -> dict[str, object]:
        """Operators whose first weights are drawn otherwise than they once were."""
        names = {point.operator for point in genotype.points} if genotype.is_fused else set()
        drawn = {name: operator_of(name).first_weights for name in sorted(names)}
        changed = {name: version for name, version in drawn.items() if version}
        return {"first_weights": changed} if changed else {}

    def _batched(self, specs: Sequence[EncoderSpec]) -> list[str]:
        """What is peculiar to the batches that these trunks are trained on."""
        shared = any(spec.modality == "vision" for spec in specs) and self._data.shares_pictures
        return ["of one picture together"] if shared else []

    def _exported_as(self, genotype: Genotype) -> dict[str, object]:
        """What rewrites make of a graph in reduced precision, which is judged by running it."""
        rewriting = self._builder.rewriting
        if genotype.precision == "fp32" or rewriting.rewrites == NONE:
            return {}
        return {"exported": [rewriting.longest(genotype), rewriting.key(genotype)]}

    def _identity(self, spec: EncoderSpec) -> str:
        """Of the trunks that designs are trained on, also before those have been tuned."""
        if self._plan.is_tuned(spec):
            return tuned_identity(self.tuned_trunk(spec))
        return self._trunks.loaded_identity(spec)
