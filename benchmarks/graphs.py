"""Nodes of the published designs' graphs as the exporter writes them and as they are timed.

Each design is exported once with random weights. Its graph before and after
`evaluators.onnx.passes` is run by ONNX Runtime on texts of all, some and none of their tokens; the
outputs are compared.
"""

import argparse
import json
import shutil
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime

from evaluators.onnx import export as exporting
from evaluators.onnx.builder import OnnxBuilder
from evaluators.onnx.passes.simplify import simplify
from search_space.space.named import load_space
from search_space.space.paper import seeded_designs


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default="paper")
    asked = parser.parse_args()
    space = load_space(asked.space, weights="random")
    encoders = {spec.name: spec for spec in space.encoders}
    rows = []
    with TemporaryDirectory() as folder:
        before = Path(folder) / "before.onnx"

        def kept(file: Path) -> None:
            shutil.copy(file, before)
            simplify(file)

        exporting.simplify = kept
        builder = OnnxBuilder(encoders, space.shapes, 2, Path(folder) / "built")
        for seeded in seeded_designs(space):
            made = builder.build(seeded.genotype)
            rows.append({"design": seeded.name, **_compared(before, made.path)})
            print(rows[-1], flush=True)
            made.discard()
    print(json.dumps({"space": space.name, "versions": _versions(), "designs": rows}, indent=1))


def _compared(before: Path, after: Path) -> dict[str, Any]:
    kinds = [Counter(n.op_type for n in onnx.load(str(f)).graph.node) for f in (before, after)]
    sessions = [
        onnxruntime.InferenceSession(str(f), providers=onnxruntime.get_available_providers())
        for f in (before, after)
    ]
    differences = []
    for real in (1.0, 0.2, 0.0):
        feed = _feed(sessions[0], real)
        was, now = (session.run(None, feed)[0] for session in sessions)
        differences.append(float(np.abs(was - now).max()))
    found: dict[str, Any] = {"nodes": [sum(each.values()) for each in kinds]}
    for kind in ("IsNaN", "Pad", "Softmax", "Constant", "Identity"):
        found[kind] = [each[kind] for each in kinds]
    return {**found, "greatest_difference": max(differences)}


def _feed(session: onnxruntime.InferenceSession, real: float) -> dict[str, np.ndarray]:
    generator, feed = np.random.default_rng(0), {}
    for entry in session.get_inputs():
        shape = [int(extent) for extent in entry.shape]
        if entry.name == "attention_mask":
            feed[entry.name] = (np.arange(shape[1]) < real * shape[1]).astype(np.int64)[None]
        elif entry.type == "tensor(int64)":
            feed[entry.name] = generator.integers(0, 1000, shape)
        else:
            feed[entry.name] = generator.standard_normal(shape).astype(np.float32)
    return feed


def _versions() -> dict[str, str]:
    import torch

    return {
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


if __name__ == "__main__":
    main()
