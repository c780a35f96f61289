"""Evaluators with short trainings and timings, and small data and designs for them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from device_agent.wire.request import TimingProtocol
from evaluators.data import DataSet, load
from evaluators.devices.client import open_local_device
from evaluators.features.examples import Batch
from evaluators.features.preprocessing import Preprocessing
from evaluators.latency.evaluator import LatencyEvaluator, Runs
from evaluators.onnx.builder import OnnxBuilder
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.quality.trainer import Compute, Target, new_trainer
from evaluators.training.loop import TrainingConfig, TrainingProtocol
from search_space.design.genotype import FusionPoint, Genotype
from search_space.network.network import FusionNetwork
from search_space.network.rewrites import NONE
from search_space.space.named import load_space
from search_space.space.space import SearchSpace

QUICK_TIMING = TimingProtocol(
    warmup_min_runs=1, warmup_min_s=0.0, warmup_max_s=0.1, min_repeats=8, max_repeats=12,
    min_time_s=0.0, max_time_s=1.0, interval_share=100.0, block_tolerance=100.0,
    reference_tolerance=100.0, reference_runs=3, others_cores=1e6, watch_board=False, retries=0,
    steady_runs=1, steady_tolerance=1.0,
)  # fmt: skip
QUICK = TrainingProtocol(
    "frozen",
    alone=TrainingConfig(1, 1, 8, 1e-3, 1e-3),
    fusion=TrainingConfig(3, 3, 8, 2e-3, 0.0),
    whole=TrainingConfig(2, 2, 8, 5e-4, 5e-4),
)
BY_STAGE = replace(QUICK, trunks="by-stage")
WORDS = ("good", "bad", "fine", "slow", "plain")
SPLITS = {"train": 17, "valid": 12, "test": 6}


@lru_cache(maxsize=1)
def demo() -> SearchSpace:
    return load_space("demo")


def image_folder(
    root: Path, classes: Sequence[str] = ("no", "yes"), texts: Sequence[str] = ()
) -> DataSet:
    """Noisy pictures and short texts, neither telling all; 17 train rows leave a batch of one."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    rows = ["id,text,label,mode"]
    for split, count in SPLITS.items():
        for k in range(count):
            label, name = k % len(classes), f"{split}{k:02}"
            words = " ".join([WORDS[label], *rng.choice(WORDS, int(rng.integers(1, 9)))])
            text = texts[k % len(texts)] if texts else words
            rows.append(f"{name},{text},{classes[label]},{split}")
            pixels = rng.normal(60 + 50 * label, 70, (20, 24, 3)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / f"{name}.png")
    (root / "label.csv").write_text("\n".join(rows))
    return load(root, cache=root.parent / "cache")


def design(
    operator: str = "concatenation", text_tap: int = 2, vision_tap: int = 3, **changes: object
) -> Genotype:
    """A design of the demo space that is fused at one point."""
    point = FusionPoint(text_tap, vision_tap, operator, 16)
    made = Genotype("small-bert", "small-xcit", 16, (point,))
    return replace(made, **changes)  # type: ignore[arg-type]


def quality(
    data: DataSet,
    home: Path,
    protocol: TrainingProtocol = QUICK,
    space: SearchSpace | None = None,
    **more: Any,
) -> QualityEvaluator:
    space = space or demo()
    encoders = {spec.name: spec for spec in space.encoders}
    compute = Compute(more.pop("compute_device", "cpu"), more.pop("execution", None))
    target = Target(more.pop("runtime", "onnxruntime"), more.pop("rewrites", NONE))
    read = Preprocessing(data, space.shapes)
    return QualityEvaluator(
        new_trainer(read, encoders, protocol, home, compute=compute, target=target, **more)
    )


def builder(folder: Path, classes: int = 2) -> OnnxBuilder:
    encoders = {spec.name: spec for spec in demo().encoders}
    return OnnxBuilder(encoders, demo().shapes, classes, folder)


def latency(home: Path, runs: Runs | None = None, classes: int = 2) -> LatencyEvaluator:
    runs = runs or Runs(threads=1, timing=QUICK_TIMING, deadline_s=60.0)
    return LatencyEvaluator(
        builder(home / "artifacts", classes), lambda: open_local_device(home / "device"), runs
    )


class Line:
    """One feature, two classes; `validation` scripts how right every epoch will be."""

    def __init__(self, count: int, scripted: Sequence[float] = (), factor: float = 1.0) -> None:
        self.labels = torch.arange(count) % 2
        self.lengths: Tensor | None = None
        self.groups: Tensor | None = None
        self.scripted, self.factor = list(scripted), factor
        self.weights: list[Tensor] = []

    def batch(self, indices: Tensor) -> Batch:
        return Batch(self.labels[indices], lambda module: self.logits(module, indices))

    def logits(self, module: nn.Module, indices: Tensor) -> Tensor:
        if not self.scripted:
            said: Tensor = module(self.labels[indices, None].float() - 0.5)
            return said * self.factor
        right = self.scripted[len(self.weights)]
        self.weights.append(next(module.parameters()).detach().clone())
        wrong = torch.arange(len(indices)) >= round(right * len(indices))
        return nn.functional.one_hot(self.labels[indices] ^ wrong.long(), 2).float()


def without_weights_on(
    trial_runner: QualityEvaluator, modality: str
) -> Callable[[Genotype], FusionNetwork]:
    """The trained network of the design that concatenates, with all weights on one modality 0."""
    whole = trial_runner.trainer.trained
    widths = [demo().shapes[n].widths[t - 1] for n, t in (("small-bert", 2), ("small-xcit", 3))]
    columns = slice(0, widths[0]) if modality == "text" else slice(widths[0], sum(widths))

    def trained(genotype: Genotype) -> FusionNetwork:
        network = whole(genotype)
        with torch.no_grad():
            network.fusion.branches[0].project_fused.weight[:, columns] = 0  # type: ignore[union-attr, operator]
        return network

    return trained
