"""What a design reads of a data set: kept features, raw inputs, or those of its exported graph."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from evaluators.data import DataSet, Sample, Split
from evaluators.data.answers import targets_of
from evaluators.features.examples import CachedFeatures, Examples, RawInputs
from evaluators.features.fusion_inputs import FusionInputs, read_by
from evaluators.features.preprocessing import Preprocessing, Values
from evaluators.features.store import Rows
from evaluators.features.taps import TapFeatures
from search_space.design.encoder import EncoderShape, EncoderSpec
from search_space.design.genotype import Genotype
from search_space.encoders.features import Feature, features_of
from search_space.network.network import FusionNetwork


class DesignInputs:
    """Of one data set, for designs over some encoders, as examples on one compute device."""

    def __init__(
        self,
        data: DataSet,
        encoders: Mapping[str, EncoderSpec],
        shapes: Mapping[str, EncoderShape],
        preprocessing: Preprocessing,
        features: TapFeatures,
        compute_device: str,
    ) -> None:
        self.data = data
        self._encoders, self._shapes = encoders, shapes
        self._preprocessing, self._features = preprocessing, features
        self._device = compute_device
        self._values: dict[tuple[str, Split], Values] = {}

    def examples(self, genotype: Genotype, split: Split, kept: bool) -> Examples:
        """The split's samples as kept features of frozen trunks, or as raw inputs."""
        return self.kept(genotype, split) if kept else self.raw(genotype, split)

    def raw(self, genotype: Genotype, split: Split) -> RawInputs:
        """Token ids, masks, pictures and sounds of one split; its pictures are decoded once."""
        samples = self.data.split(split)
        values = []
        for name in self._maps(genotype):
            if (name, split) not in self._values:
                made = self._preprocessing.values(self._encoders[name], samples)
                self._values[name, split] = made
            values.append(self._values[name, split])
        return RawInputs(self._text(genotype, samples), values, self._labels(samples), self._device)

    def raw_of(self, genotype: Genotype, samples: Sequence[Sample]) -> RawInputs:
        """The same of any samples, as spoilt ones; their pictures are decoded anew."""
        values = [
            self._preprocessing.values(self._encoders[name], samples)
            for name in self._maps(genotype)
        ]
        return RawInputs(self._text(genotype, samples), values, self._labels(samples), self._device)

    def kept(
        self, genotype: Genotype, split: Split, wanted: Sequence[Feature] | None = None
    ) -> CachedFeatures:
        """Features of one split, made where they are not kept yet; without `wanted` the design's.

        Of a fold they are made over all of its samples and then cut: trunks that are no fold's
        own give every fold the same features, made once. A fold holds none of the test split.
        """
        samples = self.data.split(split)
        over = self.data.samples if self.data.cut_from else samples
        text = self._text(genotype, over)
        mask = text[1] if text else None
        wanted = features_of(genotype, self._shapes) if wanted is None else wanted
        found: dict[Feature, Rows] = {}
        for modality, name in genotype.encoders.items():
            of_trunk = [f for f in wanted if f.modality == modality]
            length = text[0].shape[1] if text else 0
            spec, shape = self._encoders[name], self._shapes[name]
            found |= self._features.get(spec, shape, of_trunk, over, length)
        if over is not samples:
            rows = torch.tensor([k for k, sample in enumerate(over) if sample.split == split])
            found = {feature: kept.select(rows) for feature, kept in found.items()}
            mask = None if mask is None else mask[rows]
        return CachedFeatures(found, mask, self._labels(samples), self._device)

    def nothing(self, genotype: Genotype) -> tuple[Tensor, ...]:
        """What a fused design reads where nothing is said, shown or heard, of batch 1.

        Ids and mask (1, L) of a text without words; a picture (1, 3, S, S) of one colour, its set's
        mean; a silent sound as its encoder reads it.
        """
        empty = replace(self.data.split("train")[0], text="")
        inputs = list(self._text(genotype, [empty]) or ())
        for name in self._maps(genotype):
            inputs.append(self._preprocessing.nothing(self._encoders[name]).unsqueeze(0))
        return tuple(inputs)

    def nothing_read(self, genotype: Genotype, network: FusionNetwork) -> FusionInputs:
        """What the fusion of a network on the compute device reads of `nothing`."""
        with torch.inference_mode():
            return read_by(network, *(each.to(self._device) for each in self.nothing(genotype)))

    def one_by_one(
        self, genotype: Genotype, samples: Sequence[Sample]
    ) -> Iterable[tuple[Tensor, ...]]:
        """The network's inputs of batch 1; pictures of a large split need not fit into memory."""
        parts: list[Iterable[Tensor]] = []
        if genotype.text_encoder:
            spec, length = self._encoders[genotype.text_encoder], genotype.text_tokens
            for tensor in self._preprocessing.text(spec, samples, length):
                parts.append([row.unsqueeze(0) for row in tensor])
        for name in self._maps(genotype):
            parts.append(self._preprocessing.values(self._encoders[name], samples).stream(1))
        return zip(*parts, strict=True)

    def _text(self, genotype: Genotype, samples: Sequence[Sample]) -> tuple[Tensor, Tensor] | None:
        if not genotype.text_encoder:
            return None
        spec = self._encoders[genotype.text_encoder]
        return self._preprocessing.text(spec, samples, genotype.text_tokens)

    def _labels(self, samples: Sequence[Sample]) -> Tensor:
        return labels_of(samples, len(self.data.classes))

    @staticmethod
    def _maps(genotype: Genotype) -> list[str]:
        """The encoders that read pictures or sounds, in the order of the inputs."""
        return [name for modality, name in genotype.encoders.items() if modality != "text"]


def labels_of(samples: Sequence[Sample], classes: int) -> Tensor:
    """(N,) int64: the samples' classes; of multi-label data (N, C) float32, 1 for those."""
    found = torch.from_numpy(targets_of(samples, classes))
    return found if found.dim() == 1 else found.float()
