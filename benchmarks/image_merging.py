"""What merging of similar tokens (ToMe) saves in a ViT: multiply-accumulates and latency.

    python benchmarks/image_merging.py --out FILE

ViT-S/16 at 224 pixels with random weights, the mean of its last layer, alone in ONNX Runtime on one
thread, at 0, 4, 8 and 13 pairs a layer. Graphs are run in turns, forwards and backwards. Times are
processor seconds of this process, so that other work on the machine counts for little; the ratio to
the graph without merging is that of the same round, with Student's interval over rounds.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from main_job import machine, show
from scipy import stats
from torch import Tensor, nn

from evaluators.costs import count_macs
from evaluators.onnx.export import export
from search_space.design.encoder import spec_for
from search_space.encoders.features import Feature
from search_space.encoders.loading import describe, load_trunk

MODEL, PAIRS = "timm/vit_small_patch16_224", (0, 4, 8, 13)


class Mean(nn.Module):
    """The mean of a trunk's last layer."""

    def __init__(self, trunk: nn.Module, depth: int) -> None:
        super().__init__()
        self.trunk, self.wanted = trunk, Feature("vision", depth, "mean")

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.trunk(pixels, (self.wanted,))[self.wanted]
        return found


def main() -> None:
    """Export, time and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    about, pixels = (
        machine(),
        torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)),
    )
    rows, sessions = [], []
    with tempfile.TemporaryDirectory() as folder:
        for pairs in PAIRS:
            spec = spec_for("vision", MODEL, "random").with_merging(pairs)
            network = Mean(load_trunk(spec, depth := describe(spec).depth), depth).eval()
            file = Path(folder) / f"{pairs}.onnx"
            export(network, (pixels,), file, ["pixel_values"], ["mean"], {})
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.log_severity_level = 1, 3
            session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
            with torch.no_grad():
                expected = network(pixels).numpy()
            (found,) = session.run(None, {"pixel_values": pixels.numpy()})
            sessions.append(session)
            rows.append(
                {
                    "pairs": pairs,
                    "tokens_after_the_last_layer": 197 - depth * pairs,
                    "macs": count_macs(lambda n=network: n(pixels)),  # type: ignore[misc]
                    "nodes": len(onnx.load(str(file)).graph.node),
                    "difference_from_torch": float(np.abs(found - expected).max()),
                }
            )
    taken = np.zeros((args.rounds, len(PAIRS)))
    for k in range(-1, args.rounds):
        order = range(len(PAIRS)) if k % 2 else reversed(range(len(PAIRS)))
        for which in order:
            started = time.process_time()
            sessions[which].run(None, {"pixel_values": pixels.numpy()})
            if k >= 0:
                taken[k, which] = 1000 * (time.process_time() - started)
    logs = np.log(taken / taken[:, :1])
    reach = stats.t.ppf(0.975, args.rounds - 1) * logs.std(0, ddof=1) / np.sqrt(args.rounds)
    for which, row in enumerate(rows):
        row["processor_ms_median"] = round(float(np.median(taken[:, which])), 1)
        ratios = np.exp(logs[:, which].mean() + np.array([0, -1, 1]) * reach[which])
        row["ratio"] = [round(float(each), 3) for each in ratios]
        row["macs_ratio"] = round(row["macs"] / rows[0]["macs"], 3)
    show({"model": MODEL, "rounds": args.rounds, "graphs": rows, "machine": about}, args.out)


if __name__ == "__main__":
    main()
