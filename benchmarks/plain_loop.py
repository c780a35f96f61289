"""How many times more trials an hour the toolkit makes than a plain Optuna script.

    export OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000
    python benchmarks/plain_loop.py ours --rows DIR --shared DIR
    python benchmarks/plain_loop.py plain --rows DIR --shared DIR
    python benchmarks/plain_loop.py tuned --rows DIR --shared DIR --designs 12
    python benchmarks/plain_loop.py plain --rows DIR --shared DIR --full
    python benchmarks/plain_loop.py ours --rows DIR --shared DIR --full
    python benchmarks/plain_loop.py ours --rows DIR2 --shared DIR --sizes all
    python benchmarks/plain_loop.py plain --rows DIR2 --shared DIR --sizes all
    python benchmarks/plain_loop.py again --rows DIR2 --shared DIR --sizes all
    python benchmarks/plain_loop.py report --rows DIR --shared DIR --out FILE

`again` is ours once more, each feature turned by a millionth of itself, about as far as two ways to
run a trunk in float32 are apart: how far its logits part from ours is how far training itself
carries such digits, and no two programs can be asked to agree by more.

`plain` is what a user would write otherwise (`plain_trial.py`): encoders of transformers cut at the
taps, their forward at every batch, frozen. `tuned` is the same script training the whole network.
Both sides judge the same designs of `fusion-1152` on the same tweets with the same epochs, batches,
optimiser, schedule, first weights and seed. Neither times designs on a device. Seconds are told on
the wall and on the processor; on a machine that does other work too the latter say more. `plain`
and `tuned` keep a JSON line a trial in --rows and go on from there; `ours` adds a whole pass.

In favour of the plain side: pictures are decoded and texts cut up before its clock starts, trunks
stop at the tap and run in inference mode, pixels come channels last, texts are cut to the longest
of their batch, AdamW is fused, and the C library keeps freed memory (the export above; without it
pictures in batches of 64 take it about twice as long). Within our count: an empty home, decoding,
texts, features, and the keeping of weights.

On a part of the tweets, for the plain side is slow; --sizes says which part, or all of them, for
fewer designs of all epochs (a plain trial then takes minutes). With --full, on all of them, the
plain side runs one epoch of one design; a trial of all epochs is worked out from it and from what
the same design and the others take on the part. A pass of ours over fewer than --designs is carried
on by its median trial; it has to hold a design of every text length, for their features (seven do).
"""

import argparse
import itertools
import json
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from main_job import machine, show
from plain_trial import PROTOCOL, SEED, plain_inputs, plain_trial
from scipy.stats import kendalltau
from torch import Tensor
from torch.nn import functional as F

from evaluators.data import DataSet, Split, load
from evaluators.features.preprocessing import Preprocessing
from evaluators.features.store import Rows
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.quality.trainer import new_trainer
from evaluators.training.loop import predict
from search_space.design.genotype import Genotype
from search_space.encoders.features import Feature
from search_space.space.named import load_space
from search_space.space.space import SearchSpace

SIZES = "96,48"
"""Tweets of train and valid; few, for the plain side is slow."""
EPOCHS_ON_ALL = 1
CLOCKS = ("wall_s", "cpu_s")
SPLITS: tuple[Split, ...] = ("train", "valid")
TURNED_BY = 1e-6
"""Standard deviation of what `again` adds to a feature, as a share of it."""


# -- what both sides share


def tweets(shared: Path, cache: Path, sizes: str) -> DataSet:
    """So many tweets of train and valid, or all, drawn from SEED; none of the test split."""
    data = load(shared / "data" / "tweets", cache=cache)
    draw, samples = random.Random(SEED), []
    asked = [None, None] if sizes == "all" else list(map(int, sizes.split(",")))
    for split, size in zip(SPLITS, asked, strict=True):
        of = data.split(split)
        samples += of if size is None else draw.sample(of, size)
    counts = "-".join(str(sum(s.split == split for s in samples)) for split in SPLITS)
    return replace(data, samples=tuple(samples), fingerprint=f"{data.fingerprint}-{counts}")


def drawn(space: SearchSpace, count: int) -> list[Genotype]:
    """So many different designs, drawn from SEED."""
    rng, found = random.Random(SEED), {}
    while len(found) < count:
        design = space.sample(rng)
        found[design.key] = design
    return list(found.values())


def study(space: SearchSpace, designs: list[Genotype], judge: Callable[[Genotype], float]) -> None:
    """An Optuna study in memory of these designs."""

    def objective(trial: optuna.Trial) -> float:
        asked = [trial.suggest_categorical(d.name, d.choices) for d in space.decisions]
        return judge(space.decode(asked))

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = optuna.create_study(direction="maximize")
    names = [decision.name for decision in space.decisions]
    for design in designs:
        made.enqueue_trial(dict(zip(names, space.encode(design), strict=True)))
    if designs:
        made.optimize(objective, n_trials=len(designs))


def lines(file: Path) -> list[dict[str, Any]]:
    """What a file of JSON lines holds; a torn last line is left out."""
    found = []
    for line in file.read_text("utf-8").splitlines() if file.is_file() else ():
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def keep(file: Path, line: dict[str, Any]) -> None:
    """Appends a line."""
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")


def clocks() -> np.ndarray:
    """Seconds now: wall, and this process's own on the processor."""
    return np.array([time.perf_counter(), time.process_time()])


# -- the steps


def run_plain(
    space: SearchSpace, designs: list[Genotype], data: DataSet, file: Path, tuned: bool, full: bool
) -> None:
    """Runs the plain script on the designs that have no line yet."""
    inputs = plain_inputs(data, space)
    epochs = EPOCHS_ON_ALL if full else PROTOCOL.fusion_pretrained.epochs

    def judge(design: Genotype) -> float:
        started = clocks()
        found = plain_trial(design, space, inputs, tuned, epochs)
        wall, cpu = clocks() - started
        keep(file, {"key": design.key, "wall_s": wall, "cpu_s": cpu, **found})
        print(f"{design.describe()}: {wall:.1f} s, {100 * found['accuracy']:.1f} %", flush=True)
        return float(found["accuracy"])

    done = {line["key"] for line in lines(file)}
    study(space, [design for design in designs if design.key not in done], judge)


def turned(get: Callable[..., dict[Feature, Rows]], by: float) -> Callable[..., Any]:
    """The same features, each as far off as that share of it, alike whenever they are asked for."""

    def of(*asked: Any) -> dict[Feature, Rows]:
        found = {}
        for feature, rows in get(*asked).items():
            own = rows.whole().float()
            generator = torch.Generator().manual_seed(SEED)
            found[feature] = Rows([own + by * own * torch.randn(own.shape, generator=generator)])
        return found

    return of


def run_ours(
    space: SearchSpace, designs: list[Genotype], data: DataSet, file: Path, by: float
) -> None:
    """Runs all designs from an empty home, and keeps the whole pass as one line.

    Features are turned by that share of them, where it is not 0.
    """
    trials: list[dict[str, Any]] = []
    encoders = {spec.name: spec for spec in space.encoders}
    with tempfile.TemporaryDirectory() as home:
        begun = clocks()
        ours = QualityEvaluator(
            new_trainer(Preprocessing(data, space.shapes), encoders, PROTOCOL, Path(home))
        )
        if by:
            features = ours.trainer.inputs._features
            vars(features)["get"] = turned(features.get, by)

        def judge(design: Genotype) -> float:
            started = clocks()
            told = ours.evaluate(design)
            wall, cpu = clocks() - started
            accuracy = told["accuracy"].value / 100
            trials.append({"key": design.key, "wall_s": wall, "cpu_s": cpu, "accuracy": accuracy})
            return accuracy

        study(space, designs, judge)
        wall, cpu = clocks() - begun
        for trial, design in zip(trials, designs, strict=True):  # as they were judged
            fusion = ours.trainer.trained_part(design)
            kept = ours.trainer.inputs.kept(design, "valid")
            trial["logits"] = predict(fusion, kept).tolist()
    labels = [sample.label for sample in data.split("valid")]
    keep(file, {"wall_s": wall, "cpu_s": cpu, "trials": trials, "labels": labels})
    print(f"{len(designs)} trials in {wall:.1f} s", flush=True)


def median_design(rows: Path, designs: list[Genotype]) -> list[Genotype]:
    """The design that took the plain script the median of what it took: run on all tweets."""
    took = {line["key"]: line["cpu_s"] for line in lines(rows / "plain.jsonl")}
    known = sorted((d for d in designs if d.key in took), key=lambda design: took[design.key])
    return known[len(known) // 2 :][:1]


# -- the report


def agreement(plain: dict[str, Any], ours: dict[str, Any], labels: Tensor) -> dict[str, Any]:
    """How two sides rank the designs that both judged; losses do not tie as accuracies do."""

    def losses(side: dict[str, Any]) -> list[float]:
        return [float(F.cross_entropy(torch.tensor(side[k]["logits"]), labels)) for k in plain]

    def tau(a: list[float], b: list[float]) -> float | None:
        found = float(kendalltau(a, b).statistic) if len(a) > 1 else math.nan
        return None if math.isnan(found) else round(found, 4)

    a, b = ([side[key]["accuracy"] for key in plain] for side in (plain, ours))
    pairs = list(itertools.combinations(a, 2))
    return {
        "tau_b_of_accuracies": tau(a, b),
        "tau_of_losses": tau(losses(plain), losses(ours)),
        "equal_accuracies": sum(math.isclose(x, y) for x, y in zip(a, b, strict=True)),
        "share_of_pairs_tied": round(sum(x == y for x, y in pairs) / max(1, len(pairs)), 3),
        "accuracy_percent": [spread(a), spread(b)],
    }


def logits_apart(side: dict[str, Any], ours: dict[str, Any]) -> dict[str, float]:
    """How far the logits of designs that both trained are apart: a design's greatest difference."""
    both = [(np.array(side[key]["logits"]), np.array(ours[key]["logits"])) for key in side]
    apart = [float(np.abs(a - b).max()) for a, b in both]
    return {
        "logits_apart_max": float(f"{max(apart):.3g}"),
        "logits_apart_median": float(f"{statistics.median(apart):.3g}"),
        "logits_within_1e-4": sum(each <= 1e-4 for each in apart),
    }


def spread(accuracies: list[float]) -> list[float]:
    """Least, median and greatest, in percent."""
    return [round(100 * f(accuracies), 1) for f in (min, statistics.median, max)]


def seconds(trials: list[dict[str, Any]], of: Callable[[list[float]], float]) -> dict[str, float]:
    """Mean or median seconds a trial on both clocks."""
    return {clock: round(of([trial[clock] for trial in trials]), 3) for clock in CLOCKS}


def times(plain: dict[str, float], ours: dict[str, float]) -> dict[str, float]:
    """How many times as long the plain side takes, on both clocks."""
    return {clock: round(plain[clock] / ours[clock], 1) for clock in CLOCKS}


def all_counted(runs: Sequence[dict[str, Any]], designs: int) -> dict[str, float]:
    """Our seconds a trial over a pass from an empty home, the median of the passes.

    A pass of fewer designs is carried on to all of them by its median trial.
    """
    found = []
    for run in runs:
        more = designs - len(run["trials"])
        usual = seconds(run["trials"], statistics.median)
        found.append({clock: (run[clock] + more * usual[clock]) / designs for clock in CLOCKS})
    return seconds(found, statistics.median)


def report(rows: Path, designs: int) -> dict[str, Any]:
    """Everything that the lines in `rows` tell."""
    passes, full = lines(rows / "ours.jsonl"), lines(rows / "ours-full.jsonl")
    ours = {trial["key"]: trial for trial in passes[0]["trials"]}
    labels = torch.tensor(passes[0]["labels"])
    mean = all_counted(passes, designs)
    found: dict[str, Any] = {
        "ours": {
            "trials": len(ours),
            "passes": len(passes),
            "pass_s": seconds(passes, statistics.median),
            "median_s": seconds([t for p in passes for t in p["trials"]], statistics.median),
            "all_counted_s": mean,
        }
    }
    if full:
        found["ours_on_all"] = {
            "trials": len(full[0]["trials"]),
            "pass_s": seconds(full, statistics.median),
            "median_s": seconds([t for p in full for t in p["trials"]], statistics.median),
            "all_counted_s_carried_on": all_counted(full, designs),
        }
    for run in lines(rows / "again.jsonl")[:1]:
        again = {trial["key"]: trial for trial in run["trials"]}
        found["again"] = {
            "trials": len(again),
            "beside_ours": agreement(again, ours, labels),
            **logits_apart(again, ours),
        }
    for name in ("plain", "tuned"):
        told = {trial["key"]: trial for trial in lines(rows / f"{name}.jsonl")}
        if not told:
            continue
        trials = list(told.values())
        found[name] = {
            "trials": len(trials),
            "median_s": seconds(trials, statistics.median),
            "mean_s": seconds(trials, statistics.mean),
            "times_ours": times(seconds(trials, statistics.mean), mean),
            "beside_ours": agreement(told, ours, labels),
        }
        if name == "plain":
            found[name] |= logits_apart(told, ours)
        on_all = [trial for trial in lines(rows / f"{name}-full.jsonl") if trial["key"] in told]
        if on_all:
            of_part = [told[trial["key"]] for trial in on_all]
            epochs = PROTOCOL.fusion_pretrained.epochs / EPOCHS_ON_ALL
            grown = times(seconds(on_all, sum), seconds(of_part, sum))
            average = found[name]["mean_s"]
            whole = {c: round(epochs * grown[c] * average[c], 1) for c in CLOCKS}
            found[f"{name}_on_all"] = {
                "trials": len(on_all),
                "epochs_run": EPOCHS_ON_ALL,
                "run_s": seconds(on_all, statistics.mean),
                "mean_s_worked_out": whole,
            }
            if full:
                against = times(whole, all_counted(full, designs))
                found[f"{name}_on_all"]["times_ours_worked_out"] = against
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("step", choices=("ours", "again", "plain", "tuned", "report"))
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--space", default="fusion-1152", help="the name, or the space's file")
    parser.add_argument("--designs", type=int, default=60, help="so many, or the first so many")
    parser.add_argument("--full", action="store_true", help="on all tweets")
    parser.add_argument("--sizes", default=SIZES, help="train,valid or all; the same in every step")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.rows.mkdir(parents=True, exist_ok=True)
    about = machine()
    if given.step == "report":
        found = {
            "tweets_train_valid": given.sizes,
            "epochs": PROTOCOL.fusion_pretrained.epochs,
            "threads": 1,
            **report(given.rows, given.designs),
            "allocator": {k: v for k, v in os.environ.items() if k.startswith("MALLOC_")},
            "machine": about,
        }
        show(found, given.out)
        return
    weights = given.shared.resolve() / "weights"
    text, vision = (weights / n for n in ("all-MiniLM-L6-v2", "mobilenet_v2_1.0_224"))
    space = load_space(given.space, [str(text)], [str(vision)])
    designs = drawn(space, given.designs)
    sizes = "all" if given.full else given.sizes
    data = tweets(given.shared.resolve(), given.rows / "data", sizes)
    file = given.rows / f"{given.step}{'-full' if given.full else ''}.jsonl"
    if given.step in ("ours", "again"):
        run_ours(space, designs, data, file, TURNED_BY if given.step == "again" else 0.0)
        return
    if given.full:
        designs = median_design(given.rows, designs)
    run_plain(space, designs, data, file, given.step == "tuned", given.full)


if __name__ == "__main__":
    main()
