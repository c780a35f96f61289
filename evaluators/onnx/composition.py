"""A design's ONNX composed of parts: trunks with all their taps, branches of a fusion, heads.

Each part is exported once and kept, see `evaluators.onnx.subgraphs`; a design that was never seen
needs no export where its parts are known. Weights are random: latency depends on the graph
alone. A trunk's are those of `load_trunk` at any depth; a branch's are drawn from its place
among the
branches, a head's anew, so that both depend on nothing that they are not keyed by.

What is composed is compared with torch: the trunks run once for all taps and designs, the fusion
for each design; the composed graph runs whole in ONNX Runtime. After its basic optimisations the
operators are those of the exported design, but for attention blocks over MobileNetV2's tokens: each
keeps a `Where` over the padding mask, of which the exported design has one for all.
"""

import hashlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, ValueInfoProto, helper
from torch import Tensor, nn

from evaluators.costs import count_macs, example_inputs
from evaluators.evaluation import content_key
from evaluators.features.trunk_weights import architecture
from evaluators.onnx.export import export
from evaluators.onnx.rewriting import Rewriting
from evaluators.onnx.subgraphs import Joined, Subgraph, SubgraphStore, joined
from evaluators.onnx.versions import OPSET
from search_space.design.encoder import EncoderShape, EncoderSpec
from search_space.design.genotype import FusionPoint, Genotype
from search_space.design.reading import plugin_key, reads_tokens
from search_space.design.rules import branch_widths, fused_width, own_widths, pooled_side
from search_space.encoders.features import Feature, Form, features_of, map_tokens, read_at
from search_space.encoders.loading import load_trunk
from search_space.modality import Modality
from search_space.network.branch import Branch
from search_space.network.network import INPUTS, by_modality, input_names, new_branch, new_head
from search_space.network.rewrites import fold_branch

COMPOSITION_VERSION = 4
"""Goes up whenever a part would become another graph."""
OUTPUT = "logits"
KEPT_BRANCHES, KEPT_HEADS = 64, 16
"""So many of the last ones stay in memory; any other is read from its file."""
Row = tuple[Tensor, ...]


@dataclass(frozen=True)
class Composed:
    """A composed graph, and what tells whether it is right and what it costs."""

    graph: Joined
    parameters: int
    macs: int


@dataclass(frozen=True)
class _Branch:
    """A branch as written, as its part, and the multiply-accumulates of what is exported."""

    written: Branch
    part: Subgraph
    output: str
    parameters: int
    macs: int


class _Tapped(nn.Module):
    """A trunk that gives all of its features in order."""

    def __init__(self, trunk: nn.Module, wanted: Sequence[Feature]) -> None:
        super().__init__()
        self.trunk, self.wanted = trunk, tuple(wanted)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        found = self.trunk(*inputs, self.wanted)
        return tuple(found[feature] for feature in self.wanted)


class _BranchOf(nn.Module):
    """A branch with its features and the mask as plain inputs."""

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, *inputs: Tensor) -> Tensor:
        given, mask = list(inputs), None
        read = list(self.branch.features.values())
        if len(given) > len(read):
            mask = given.pop()
        fused: Tensor = self.branch(dict(zip(read, given, strict=True)), mask)
        return fused


class Composer:
    """Composes designs over some encoders for a number of classes; parts lie in a folder.

    Trunks stay in memory, in torch and as parts (twice: as they are written and as they are run),
    with all their features; of branches and heads the last ones do.
    """

    def __init__(
        self,
        encoders: Mapping[str, EncoderSpec],
        shapes: Mapping[str, EncoderShape],
        classes: int,
        folder: Path,
        rewriting: Rewriting,
    ) -> None:
        self._encoders = {n: replace(spec, weights="random") for n, spec in encoders.items()}
        self._shapes, self._classes, self._rewriting = shapes, classes, rewriting
        self._store = SubgraphStore(folder)
        self._parts: dict[str, Subgraph] = {}
        self._branches: dict[str, _Branch] = {}
        self._heads: dict[int, tuple[nn.Sequential, Subgraph]] = {}
        self._trunks: dict[str, nn.Module] = {}
        self._features: dict[tuple[str, str], list[dict[Feature, Tensor]]] = {}
        self._trunk_costs: dict[tuple[object, ...], tuple[int, int]] = {}

    def compose(self, genotype: Genotype, fed: Row) -> Composed:
        """The design's graph, for inputs of these sizes."""
        wanted = features_of(genotype, self._shapes)
        pieces: list[tuple[Subgraph, Sequence[str], Mapping[str, str]]] = []
        parameters = macs = 0
        own = by_modality(genotype.encoders, fed)
        for modality, name in genotype.encoders.items():
            names = [f.name for f in wanted if f.modality == modality]
            pieces.append((self._trunk_part(genotype, name, own[modality]), names, {}))
            found = self._costs_of_trunk(genotype, name, wanted)
            parameters, macs = parameters + found[0], macs + found[1]
        fused = []
        for k, point in enumerate(genotype.points):
            branch = self._branch(genotype, k, fed)
            read = read_at(genotype, point, self._shapes)
            given: dict[str, str] = {f.modality: f.name for f in read}
            if branch.output in branch.part.alias:  # a branch of one modality may do nothing
                fused.append(given[branch.part.alias[branch.output]])
            else:
                fused.append(branch.output)
                pieces.append((branch.part, [branch.output], given))
            parameters, macs = parameters + branch.parameters, macs + branch.macs
        head, part = self._head(genotype)
        between = []
        if len(fused) > 1:
            between.append(helper.make_node("Concat", fused, ["fused"], name="fused", axis=1))
            fused = ["fused"]
        pieces.append((part, [OUTPUT], {"fused": fused[0]}))
        parameters += sum(p.numel() for p in head.parameters())
        macs += sum(m.in_features * m.out_features for m in head if isinstance(m, nn.Linear))
        output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, (1, self._classes))
        graph = joined(pieces, between, self._inputs(genotype, fed), output)
        return Composed(graph, parameters, macs)

    def expected(self, genotype: Genotype, rows: Sequence[Row]) -> np.ndarray:
        """Logits (N, classes) that torch gives for inputs of the network as written."""
        wanted = features_of(genotype, self._shapes)
        found: list[dict[Feature, Tensor]] = [{} for _ in rows]
        given_to = [by_modality(genotype.encoders, row) for row in rows]
        for modality, name in genotype.encoders.items():
            own = [given[modality] for given in given_to]
            for features, known in zip(found, self._features_of(name, own), strict=True):
                features.update({f: known[f] for f in wanted if f.modality == modality})
        fed = self._rewriting.fed(genotype, rows[0])
        branches = [self._branch(genotype, k, fed).written for k in range(len(genotype.points))]
        head, _ = self._head(genotype)
        said = []
        with torch.inference_mode():
            for features, row in zip(found, rows, strict=True):
                mask = row[1] if genotype.text_encoder else None
                fused = []
                for branch, point in zip(branches, genotype.points, strict=True):
                    # A branch is kept for all taps, with those of the design that it came with.
                    read = read_at(genotype, point, self._shapes)
                    taps = zip(branch.features.values(), read, strict=True)
                    given = {tap: features[feature] for tap, feature in taps}
                    fused.append(branch(given, mask))
                said.append(head(torch.cat(fused, dim=1)))
        return torch.cat(said).numpy()

    # -- trunks

    def _trunk(self, name: str) -> nn.Module:
        if name not in self._trunks:
            self._trunks[name] = load_trunk(self._encoders[name], self._shapes[name].depth)
        return self._trunks[name]

    def _trunk_part(self, genotype: Genotype, name: str, inputs: Row) -> Subgraph:
        spec, shape = self._encoders[name], self._shapes[name]
        axes = self._rewriting.open_axes(genotype) if shape.modality == "text" else {}
        # At a length of its own the length that a graph is traced with is not part of it.
        length = None if axes else tuple(inputs[0].shape)
        key = _key("trunk", [architecture(spec), length, bool(axes)])
        if key not in self._parts:
            wanted = [f for f in every_feature(shape) if not (axes and f.form == "tokens")]

            def make(file: Path) -> None:
                names = INPUTS[shape.modality]
                tapped = _Tapped(self._trunk(name), wanted).eval()
                of = f"{shape.modality} encoder {self._encoders[name].source}"
                export(tapped, inputs, file, names, [f.name for f in wanted], axes, of)

            self._parts[key] = self._store.get(key, shape.modality, make)
        return self._parts[key]

    def _features_of(self, name: str, rows: Sequence[Row]) -> list[dict[Feature, Tensor]]:
        """All features of a trunk in torch for these inputs."""
        digest = hashlib.sha256()
        for part in (part for row in rows for part in row):
            digest.update(part.contiguous().numpy().tobytes())
        key = (name, digest.hexdigest())
        if key not in self._features:
            wanted = every_feature(self._shapes[name])
            with torch.inference_mode():
                self._features[key] = [self._trunk(name)(*row, wanted) for row in rows]
        return self._features[key]

    def _costs_of_trunk(
        self, genotype: Genotype, name: str, wanted: Sequence[Feature]
    ) -> tuple[int, int]:
        """Parameters and multiply-accumulates of a trunk up to its deepest tap."""
        modality = self._shapes[name].modality
        read = tuple(f for f in wanted if f.modality == modality)
        depth = max(f.tap for f in read)
        timed = self._rewriting.timed(genotype)
        pooled = tuple(f for f in read if f.form == "pooler")
        key = (name, depth, timed.text_tokens if modality == "text" else 0, pooled)
        if key not in self._trunk_costs:
            trunk = load_trunk(self._encoders[name], depth)
            inputs = example_inputs(timed, self._shapes)
            own = by_modality(genotype.encoders, inputs)[modality]
            self._trunk_costs[key] = (
                sum(p.numel() for p in trunk.parameters()),
                count_macs(lambda: trunk(*own, read)),
            )
        return self._trunk_costs[key]

    # -- the fusion

    def _branch(self, genotype: Genotype, k: int, fed: Row) -> _Branch:
        """The branch of the k-th point; taps and encoders are no part of what it depends on."""
        point = genotype.points[k]
        read = read_at(genotype, point, self._shapes)
        sizes: dict[str, tuple[int, ...]] = {f.modality: self._size(genotype, f, fed) for f in read}
        masked = bool(genotype.text_encoder) and reads_tokens(genotype, point, "text")
        last = k == len(genotype.points) - 1
        folds = self._rewriting.rewrites.fold_attention
        side = pooled_side(genotype, point, self._shapes)
        key = _key(
            "branch",
            {
                **({"grid": self._grid(genotype, point, side)} if side else {}),
                "place": [k, last, len(genotype.points) > 1],
                "forms": [f.form for f in read],
                "sizes": sizes,
                "widths": [
                    own_widths(genotype, point, self._shapes),
                    branch_widths(genotype, point, self._shapes),
                    fused_width(genotype, point, self._shapes),
                ],
                "operator": [point.operator, point.width],
                "blocks": [genotype.attention_blocks, genotype.attention_over] if last else [],
                "poolings": [
                    "cls" if genotype.text_pooling == "pooler" else genotype.text_pooling,
                    genotype.vision_pooling,
                    genotype.audio_pooling,
                ],
                "folded": folds,
                **plugin_key(genotype),
            },
        )
        if key not in self._branches:
            _make_room(self._branches, KEPT_BRANCHES)
            self._branches[key] = self._new_branch(key, genotype, k, sizes, masked)
        return self._branches[key]

    def _grid(self, genotype: Genotype, point: FusionPoint, side: int) -> list[object]:
        """What a pooling of image tokens depends on."""
        shape = self._shapes[str(genotype.vision_encoder)]
        return [shape.token_grid(point.vision_tap), side, shape.has_class_token]

    def _new_branch(
        self,
        key: str,
        genotype: Genotype,
        k: int,
        sizes: Mapping[str, tuple[int, ...]],
        masked: bool,
    ) -> _Branch:
        written = new_branch(genotype, genotype.points[k], self._shapes, seed=k).eval()
        exported = deepcopy(written)
        if self._rewriting.rewrites.fold_attention:
            fold_branch(exported)
        inputs = [torch.zeros(size) for size in sizes.values()]
        names = list(sizes)
        if masked:
            inputs.append(torch.ones(sizes["text"][:2], dtype=torch.int64))
            names.append("attention_mask")
        alone, output = _BranchOf(exported).eval(), f"branch-{k}"

        def make(file: Path) -> None:
            export(alone, tuple(inputs), file, names, [output], {}, genotype.describe())

        part = self._store.get(key, output, make)
        parameters = sum(p.numel() for p in exported.parameters())
        return _Branch(written, part, output, parameters, count_macs(lambda: alone(*inputs)))

    def _size(self, genotype: Genotype, feature: Feature, fed: Row) -> tuple[int, ...]:
        """Of a feature of one input as the graph takes it."""
        shape = self._shapes[genotype.encoders[feature.modality]]
        width = shape.widths[feature.tap - 1]
        if feature.form == "grid":
            return (1, width, *shape.sides[feature.tap - 1])
        if feature.form != "tokens":
            return (1, width)
        if feature.modality == "text":
            return (1, fed[0].shape[1], width)
        return (1, map_tokens(shape, feature.tap), width)

    def _head(self, genotype: Genotype) -> tuple[nn.Sequential, Subgraph]:
        width = sum(fused_width(genotype, point, self._shapes) for point in genotype.points)
        if width not in self._heads:
            head = new_head(width, self._classes, seed=0).eval()

            def make(file: Path) -> None:
                inputs = (torch.zeros(1, width),)
                export(head, inputs, file, ["fused"], [OUTPUT], {}, genotype.describe())

            key = _key("head", [width, self._classes])
            _make_room(self._heads, KEPT_HEADS)
            self._heads[width] = head, self._store.get(key, "head", make)
        return self._heads[width]

    def _inputs(self, genotype: Genotype, fed: Row) -> list[ValueInfoProto]:
        axes = self._rewriting.open_axes(genotype)
        made = []
        for name, part in zip(input_names(genotype), fed, strict=True):
            kind = TensorProto.FLOAT if part.is_floating_point() else TensorProto.INT64
            extents = [axes.get(name, {}).get(k, extent) for k, extent in enumerate(part.shape)]
            made.append(helper.make_tensor_value_info(name, kind, extents))
        return made


_FORMS: dict[Modality, tuple[Form, ...]] = {
    "text": ("cls", "mean", "tokens"),
    "vision": ("mean", "max", "grid", "tokens"),
    "audio": ("mean", "max", "tokens"),
}


def every_feature(shape: EncoderShape) -> tuple[Feature, ...]:
    """All that a trunk of this shape can give."""
    forms = _FORMS[shape.modality] + (("cls",) if shape.has_class_token else ())
    found = [Feature(shape.modality, tap, f) for tap in range(1, shape.depth + 1) for f in forms]
    if shape.has_pooler:
        found.append(Feature(shape.modality, shape.depth, "pooler"))
    return tuple(found)


def _make_room(kept: dict[Any, Any], most: int) -> None:
    while len(kept) >= most:
        del kept[next(iter(kept))]


def _key(kind: str, told: object) -> str:
    versions = [torch.__version__, onnx.__version__, OPSET]
    return content_key(
        f"{kind} part", {"recipe": COMPOSITION_VERSION, "versions": versions, "told": told}
    )
