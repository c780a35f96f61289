"""Latency of a text design on CMU-MOSI beside the paper's late design at 512 tokens.

    python benchmarks/mosi_latency.py --shared ../shared --out FILE

The text design is that of `benchmarks/mosi_text.py`: the mean of the last layer of
all-MiniLM-L6-v2. Its texts are padded to the longest clip (`--rewrites all`, the default of `run`)
or each at its own length (`own-length`, timed at their mean). The late design is that of arXiv
2511.21889, BERT-base and MobileNetV2 1.4 concatenated, with texts padded to 512 tokens and no
rewrites. Weights are random: latency depends on the graph alone.

Graphs run one by one in ONNX Runtime on one thread, in turns, forwards and backwards. Times are
processor ms of this process, so that other work on the machine counts for little; ratios are of the
same round, with Student's interval over rounds.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from main_job import machine, show
from scipy import stats

from evaluators.data import load
from evaluators.features.preprocessing import Preprocessing
from evaluators.onnx.builder import OnnxBuilder
from search_space.design.genotype import FusionPoint, Genotype
from search_space.network.rewrites import ALL, NONE, OWN_LENGTH
from search_space.space.named import load_space
from search_space.space.paper import seeded_designs

GOAL = 1 / 20
"""Of the late design's latency."""


def main() -> None:
    """Build, time and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    about = machine()
    published = load_space("paper", weights="random")
    small = load_space(
        "demo",
        text_encoders=[str(args.shared / "weights" / "all-MiniLM-L6-v2")],
        modalities=("text",),
    )
    name = small.text_encoders[0]
    late = seeded_designs(published)[0].genotype
    assert late.text_tokens == 512, late.describe()
    text = Genotype(
        name, None, 512, (FusionPoint(small.shapes[name].depth, 0),), text_pooling="mean"
    )
    graphs = [
        ("late, 512 tokens, as published", published, late, NONE),
        ("text alone, texts padded to the longest", small, text, ALL),
        ("text alone, each text at its own length", small, text, OWN_LENGTH),
    ]
    rows, runs = [], []
    with tempfile.TemporaryDirectory() as folder:
        data = load(args.shared / "data" / "mosi", cache=Path(folder), modalities=("text",))
        read = Preprocessing(data, small.shapes)
        for k, (words, space, design, rewrites) in enumerate(graphs):
            encoders = {spec.name: spec for spec in space.encoders}
            lengths = (lambda n: read.text_lengths(small.encoder(n))) if space is small else None
            home = Path(folder) / str(k)
            builder = OnnxBuilder(
                encoders, space.shapes, 2, home, rewrites=rewrites, text_lengths=lengths
            )
            made = builder.build(design)
            timed = builder.rewriting.timed(design)
            inputs = builder.rewriting.fed(timed, builder._random_inputs(timed)[0])
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.log_severity_level = 1, 3
            session = onnxruntime.InferenceSession(
                str(made.path), options, ["CPUExecutionProvider"]
            )
            names = [entry.name for entry in session.get_inputs()]
            feed = {n: part.numpy() for n, part in zip(names, inputs, strict=True)}
            runs.append((session, feed))
            tokens = timed.text_tokens
            rows.append({"graph": words, "design": design.describe(), "timed_at_tokens": tokens})
            made.discard()
    taken = np.zeros((args.rounds, len(runs)))
    for k in range(-1, args.rounds):
        order = range(len(runs)) if k % 2 else reversed(range(len(runs)))
        for which in order:
            session, feed = runs[which]
            started = time.process_time()
            session.run(None, feed)
            if k >= 0:
                taken[k, which] = 1000 * (time.process_time() - started)
    logs = np.log(taken / taken[:, :1])
    reach = stats.t.ppf(0.975, args.rounds - 1) * logs.std(0, ddof=1) / np.sqrt(args.rounds)
    for which, row in enumerate(rows):
        row["processor_ms_median"] = round(float(np.median(taken[:, which])), 2)
        ratios = np.exp(logs[:, which].mean() + np.array([0, -1, 1]) * reach[which])
        row["of_the_late_design"] = [round(float(each), 5) for each in ratios]
        row["within_the_goal"] = bool(ratios[2] <= GOAL)
    show({"rounds": args.rounds, "goal": GOAL, "graphs": rows, "machine": about}, args.out)


if __name__ == "__main__":
    main()
