"""Features of the small encoders at all taps, made here or by a process of its own."""

import sys
from pathlib import Path
from typing import Any

from quick_evaluators import demo

from evaluators.data import DataSet, load
from evaluators.features.preprocessing import Preprocessing
from evaluators.features.store import Rows
from evaluators.features.taps import TapFeatures
from evaluators.features.trunk_weights import TrunkWeights
from search_space.encoders.features import Feature

EIGHT_PICTURES = 340_000
"""Shards of eight pictures' pooled forms and tokens: 41 kB each."""


def taps(data: DataSet, home: Path, seed: int = 0, **more: Any) -> TapFeatures:
    """With shards of eight of the pictures."""
    shapes = demo().shapes
    trunks = TrunkWeights(shapes, home / "trunks", seed)
    given = {"shard_bytes": EIGHT_PICTURES, **more}
    return TapFeatures(Preprocessing(data, shapes), trunks, home / "features", **given)


def of_pictures(features: TapFeatures, data: DataSet) -> Rows:
    """The mean of the pictures' third tap, over the training split."""
    asked = Feature("vision", 3, "mean")
    spec, shape = demo().encoder("small-xcit"), demo().shapes["small-xcit"]
    return features.get(spec, shape, [asked], data.split("train"), 0)[asked]


def make_as_a_worker(source: str, home: str) -> None:
    """What a process of its own does: tells what it makes, and waits for a line after each."""
    data = load(Path(source), cache=Path(home) / "data")

    def told(_what: str, done: int, most: int) -> None:
        print("made", done, most, flush=True)
        sys.stdin.readline()

    features = taps(data, Path(home), progress=told)
    print("ready", flush=True)
    sys.stdin.readline()
    print("sum", of_pictures(features, data).whole().double().sum().item(), flush=True)
