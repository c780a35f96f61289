"""What exact rewrites make of the paper's designs, at full size, on the texts of CMU-MOSI.

    python benchmarks/rewrites.py --shared ../shared --out benchmarks/results/DATE-rewrites.json

Random weights (latency depends on the graph alone; all forms of a design have the same ones), ONNX
Runtime on the CPU with `--threads` threads, batch 1. Forms:

- late as written, early as written: the paper's designs with MobileNetV2, texts padded to 512.
- late padded to the longest: as `--rewrites all`, texts padded to the longest of MOSI.
- late at own length: as `--rewrites own-length`, nothing padded.
- chain as written, chain folded: the early design's four attention blocks over one key, alone.

All forms of a group are timed in blocks A B C .. C B A in one run, one session alive at a time. A
block warms up, then runs the same texts, picked evenly from MOSI's texts in order of length, in
each of `--passes` passes; its figure is the mean over the texts of the median over the passes. So
`late at own length` is what a clip takes on average, and says nothing of the longest: that one is
timed too, alone, as is a text of mean length, which is what a study times. Goals stand beside the
ratios that they are for, whether or not these reach them.

Outputs are compared on the same texts with one random picture each: the greatest difference
from the design as written, and how far its own logits spread over the texts, without which equal
outputs would mean nothing. Prints one JSON object; `--out FILE` keeps it.
"""

import argparse
import csv
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

import numpy as np
import onnxruntime
import torch
from main_job import machine

from evaluators.features.tokenizers import PretrainedTokenizer
from evaluators.onnx.builder import Artifact, OnnxBuilder
from evaluators.onnx.versions import OPSET
from search_space.design.encoder import EncoderSpec
from search_space.design.genotype import Genotype
from search_space.network.branch import AttentionBlock
from search_space.network.network import FusionNetwork, build
from search_space.network.rewrites import ALL, NONE, OWN_LENGTH, Rewrites, fold
from search_space.space.named import load_space
from search_space.space.paper import BERT, seeded_designs
from search_space.space.space import SearchSpace

Feed = dict[str, np.ndarray]
WARM_UP = 3


@dataclass(frozen=True)
class Form:
    """One graph and what it is fed, one entry a text."""

    name: str
    file: Path
    feeds: Sequence[Feed]


def texts_of(shared: Path) -> list[str]:
    """Every transcript of MOSI."""
    with open(shared / "data" / "mosi" / "label.csv", encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def spread(lengths: Sequence[int]) -> dict[str, Any]:
    """How long the texts are, in tokens with those that mark start and end."""
    cuts = quantiles(lengths, n=100)
    percent = {f"{p} % are at most": cuts[p - 1] for p in (50, 75, 90, 95, 99)}
    return {
        "texts": len(lengths),
        "mean": mean(lengths),
        "shortest": min(lengths),
        **percent,
        "longest": max(lengths),
    }


def evenly(lengths: Sequence[int], count: int) -> list[int]:
    """Texts picked evenly in order of length, from the middle of each part: their mean is that of
    all of them but for rounding."""
    order = sorted(range(len(lengths)), key=lambda k: lengths[k])
    return [order[int((k + 0.5) * len(order) / count)] for k in range(count)]


@contextmanager
def session(file: Path, threads: int) -> Iterator[Callable[[Feed], np.ndarray]]:
    """A network ready to run, with the options of the device agent."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    loaded = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    yield lambda feed: loaded.run(None, feed)[0]  # type: ignore[no-any-return]


def block_ms(form: Form, threads: int, passes: int) -> float:
    """Mean over the texts of the median over the passes, in ms."""
    with session(form.file, threads) as run:
        for feed in [form.feeds[0], form.feeds[-1]] * WARM_UP:
            run(feed)
        taken: list[list[float]] = [[] for _ in form.feeds]
        for _ in range(passes):
            for feed, times in zip(form.feeds, taken, strict=True):
                started = time.perf_counter()
                run(feed)
                times.append(1e3 * (time.perf_counter() - started))
    return mean(map(median, taken))


def timed(forms: Sequence[Form], threads: int, passes: int, blocks: int) -> dict[str, list[float]]:
    """Each form's figures, in blocks forth and back."""
    found: dict[str, list[float]] = {form.name: [] for form in forms}
    for _ in range(blocks):
        for form in (*forms, *reversed(forms)):
            found[form.name].append(block_ms(form, threads, passes))
    return found


def outputs(form: Form, threads: int) -> np.ndarray:
    """What the network says of each of its feeds, one row each."""
    with session(form.file, threads) as run:
        return np.concatenate([run(feed) for feed in form.feeds])


class Designs:
    """Forms of the paper's designs on the same texts and pictures."""

    def __init__(self, folder: Path, lengths: Sequence[int], ids: torch.Tensor) -> None:
        self._space: SearchSpace = load_space("paper", weights="random")
        self._designs = {s.name: s.genotype for s in seeded_designs(self._space)}
        self._folder, self._lengths, self._ids = folder, lengths, ids
        self._networks: dict[str, FusionNetwork] = {}
        self._built: dict[tuple[str, Rewrites], tuple[OnnxBuilder, Artifact]] = {}

    def form(self, name: str, design: str, rewrites: Rewrites, picked: Sequence[int]) -> Form:
        """A design under these rewrites, fed the picked texts."""
        builder, artifact = self._artifact(design, rewrites)
        genotype = self._designs[design]
        names = [spec.name for spec in artifact.inputs]
        feeds = []
        for k in picked:
            fed = builder.rewriting.fed(genotype, self._row(k, genotype))
            feeds.append({n: t.contiguous().numpy() for n, t in zip(names, fed, strict=True)})
        return Form(name, artifact.path, feeds)

    def _artifact(self, design: str, rewrites: Rewrites) -> tuple[OnnxBuilder, Artifact]:
        if (design, rewrites) not in self._built:
            genotype = self._designs[design]
            encoders, shapes = {s.name: s for s in self._space.encoders}, self._space.shapes
            builder = OnnxBuilder(
                encoders, shapes, 2, self._folder, "onnxruntime", rewrites, self._of_text
            )
            if design not in self._networks:
                self._networks[design] = build(genotype, encoders, shapes, 2)
            artifact = builder.build(genotype, self._networks[design])
            self._built[design, rewrites] = builder, artifact
        return self._built[design, rewrites]

    def _of_text(self, encoder: str) -> Sequence[int]:
        assert encoder == BERT
        return self._lengths

    def _row(self, k: int, genotype: Genotype) -> tuple[torch.Tensor, ...]:
        mask = (torch.arange(self._ids.shape[1]) < self._lengths[k]).to(torch.int64)
        side = self._space.shapes[str(genotype.vision_encoder)].image_size
        picture = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(k))
        return self._ids[k : k + 1], mask.unsqueeze(0), picture


def chains(folder: Path, count: int = 4, width: int = 856) -> list[Form]:
    """The early design's attention blocks as written and folded: 768 of text and 88 of vision."""
    torch.manual_seed(0)
    blocks = [AttentionBlock(width, residual=False).eval() for _ in range(count)]
    for parameter in (p for block in blocks for p in block.parameters()):
        if parameter.ndim == 1:  # biases and norms as training leaves them, not zeros and ones
            torch.nn.init.normal_(parameter, parameter.detach().mean().item(), 0.1)
    vectors = torch.randn(200, 1, 1, width)
    made = (("chain as written", torch.nn.Sequential(*blocks)), ("chain folded", fold(blocks)))
    forms = []
    torch.backends.mha.set_fastpath_enabled(False)  # the fused kernel has no ONNX form
    for name, chain in made:
        file = folder / f"{name}.onnx"
        given = vectors if name == "chain as written" else vectors.squeeze(1)
        torch.onnx.export(
            chain, (given[0],), str(file), dynamo=False, opset_version=OPSET, input_names=["vector"]
        )
        forms.append(Form(name, file, [{"vector": one.numpy()} for one in given]))
    return forms


def told(figures: dict[str, list[float]]) -> dict[str, Any]:
    """Each form's mean over its blocks, and how far these are apart."""
    return {
        name: {"ms": mean(found), "blocks_ms": found, "apart": max(found) / min(found) - 1}
        for name, found in figures.items()
    }


def compared(reference: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """The greatest difference, and how far the reference's own outputs spread."""
    return {
        "greatest_difference": float(np.abs(reference - other).max()),
        "spread_over_inputs": float(np.ptp(reference, axis=0).max()),
    }


def measured(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures."""
    texts = texts_of(args.shared)
    tokenizer = PretrainedTokenizer(
        EncoderSpec("minilm", "text", "transformers", str(args.shared / "weights" / args.tokenizer))
    )
    ids, mask = tokenizer.encode(texts, 512)
    lengths: list[int] = mask.sum(1).tolist()
    picked = evenly(lengths, args.texts)
    longest = lengths.index(max(lengths))
    middle = min(range(len(lengths)), key=lambda k: abs(lengths[k] - mean(lengths)))
    designs = Designs(folder, lengths, ids)
    late, few = "late-mobilenetv2", picked[:: max(1, len(picked) // args.padded_texts)]
    written = designs.form("late as written", late, NONE, few)
    padded = designs.form("late padded to the longest", late, ALL, few)
    own = designs.form("late at own length", late, OWN_LENGTH, picked)
    early = designs.form("early as written", "early-mobilenetv2", NONE, few)
    ms = timed([written, padded, own, early], args.threads, args.passes, args.blocks)
    single = [
        Form(f"late at own length, {lengths[k]} tokens ({what})", own.file, one.feeds * 20)
        for k, what in ((middle, "mean"), (longest, "longest"))
        for one in [designs.form("", late, OWN_LENGTH, [k])]
    ]
    alone = timed(single, args.threads, args.passes, args.blocks)
    chain = chains(folder)
    links = timed(chain, args.threads, args.passes, args.blocks)
    checked = [*few, longest]
    said = {
        name: outputs(designs.form("", late, rewrites, checked), args.threads)
        for name, rewrites in (("written", NONE), ("padded", ALL), ("own", OWN_LENGTH))
    }
    mean_of = {name: mean(found) for name, found in (ms | links).items()}

    def times(slow: Form, *fast: Form) -> dict[str, float]:
        return {form.name: mean_of[slow.name] / mean_of[form.name] for form in fast}

    return {
        "tokens": spread(lengths),
        "mean_of_picked": mean(lengths[k] for k in picked),
        "timed": told(ms | alone | links),
        "times_faster": [
            {"than": written.name, "goal": 8.0, **times(written, padded, own)},
            {"than": early.name, "goal": 3.0, **times(early, padded, own)},
            {"than": chain[0].name, "goal": 5.0, **times(*chain)},
        ],
        "outputs": {
            "late padded to the longest": compared(said["written"], said["padded"]),
            "late at own length": compared(said["written"], said["own"]),
            "chain folded": compared(
                outputs(chain[0], args.threads)[:, 0], outputs(chain[1], args.threads)
            ),
            "texts": len(checked),
            "goal": 1e-4,
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--tokenizer", default="all-MiniLM-L6-v2", help="of BERT's vocabulary")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--texts", type=int, default=100, help="texts that run at own length")
    parser.add_argument("--padded-texts", type=int, default=10, help="texts that run padded")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=2, help="times forth and back")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    about = machine()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(args, Path(folder))
    about["load_after"] = os.getloadavg()[0]
    given = {k: v for k, v in vars(args).items() if k not in ("out", "shared")}
    text = json.dumps({"machine": about, "settings": given, **found}, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
