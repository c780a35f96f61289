"""Designs composed of kept parts, and a comparison with the same designs exported whole."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from torch import nn

from evaluators.onnx.builder import Artifact, OnnxBuilder, run_onnx
from search_space.design.genotype import FusionPoint, Genotype
from search_space.encoders.loading import load_trunk
from search_space.network.network import FusionNetwork, new_branch, new_fusion, new_head
from search_space.network.rewrites import NONE, Rewrites
from search_space.space.space import SearchSpace

LENGTHS = (3, 11, 5, 2)
EARLY = Genotype("tiny-bert", "tiny-vit", 16, (FusionPoint(1, 1, "gated", 16),))


def composing(
    space: SearchSpace, folder: Path, parts: Path | None, rewrites: Rewrites = NONE
) -> OnnxBuilder:
    encoders = {spec.name: spec for spec in space.encoders}
    return OnnxBuilder(
        encoders,
        space.shapes,
        2,
        folder,
        rewrites=rewrites,
        text_lengths=lambda name: LENGTHS,
        parts=parts,
    )


def network_of(space: SearchSpace, genotype: Genotype) -> FusionNetwork:
    """A design with the weights of parts: trunks cut at their taps, each branch by its place."""
    shapes = space.shapes
    fusion = new_fusion(genotype, shapes, 2, seed=1)
    width = fusion.head[0].in_features
    points = enumerate(genotype.points)
    fusion.branches = nn.ModuleList(new_branch(genotype, p, shapes, seed=k) for k, p in points)
    fusion.head = new_head(width, 2, seed=0)
    trunks = {
        modality: load_trunk(space.encoder(name), genotype.deepest_tap(modality))
        for modality, name in genotype.encoders.items()
    }
    return FusionNetwork(genotype, shapes, fusion, trunks).eval()


def operators(made: Artifact) -> Counter[str]:
    """Operators of a graph as a runtime has them, without second names and equal constants."""
    options, optimised = onnxruntime.SessionOptions(), made.path.with_suffix(".optimised")
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(optimised)
    onnxruntime.InferenceSession(str(made.path), options, ["CPUExecutionProvider"])
    graph = onnx.load(str(optimised)).graph
    return Counter(node.op_type for node in graph.node)


def assert_same(
    space: SearchSpace, genotype: Genotype, folder: Path, parts: Path, how: Rewrites
) -> None:
    """Composed and exported graphs say and cost the same, and take the same inputs."""
    made = composing(space, folder / "composed", parts, how).build(genotype)
    plain = composing(space, folder / "exported", None, how)
    whole = plain.build(genotype, network_of(space, genotype))
    rows = [plain.rewriting.fed(genotype, row) for row in plain._random_inputs(genotype)]
    said, expected = run_onnx(made.path, rows), run_onnx(whole.path, rows)
    scale = max(1.0, float(abs(expected).max()))
    assert float(abs(said - expected).max()) <= 1e-5 * scale and np.isfinite(said).all()
    assert operators(made) == operators(whole)
    onnx.checker.check_model(str(made.path), full_check=True)
    graphs = [onnx.load(str(one.path)) for one in (made, whole)]
    told = [[*graph.graph.input, *graph.graph.output] for graph in graphs]
    assert told[0] == told[1] and graphs[0].opset_import == graphs[1].opset_import
    assert made.inputs == whole.inputs and made.rewritten == whole.rewritten
    assert made.costs[:3] == whole.costs[:3]
    assert made.costs[3].value == made.path.stat().st_size
