"""How soon samplers find the front of a table of designs whose every answer is known.

    python benchmarks/samplers.py --make-synthetic /tmp/synthetic.jsonl
    python benchmarks/samplers.py --table FILE --runs runs.jsonl [--samplers ehvi,gp] [--seeds 20]
    python benchmarks/samplers.py --table FILE --runs runs.jsonl --report [--out RESULT.json]

A table holds one design a line: its decisions by name, "latency_ms" and "accuracy", percent by
training seed; JSON lines, or Parquet where pyarrow is installed. It must hold every design of the
space that its columns span. A run replays one study of 60 trials. With noise a sampler is told one
training seed's accuracy, the same for a design whenever it comes; without, the mean over seeds.
Hypervolume is always that of the tried designs' means over that of the whole table, both from the
table's own reference point: as published, (0 %, 1.1 times the slowest); beside it the same from
the table's lowest accuracy up, where samplers stand further apart. A design that comes again is a
trial like any other, as it is in a study that pays for it with a place in its total.

Seconds a trial are those of asking and telling, in memory, on one thread. Runs are kept in --runs
as they end: a second call goes on, and two calls with different --seeds may share a file.

Samplers: ehvi, tpe, gp, nsga2, random as `--sampler` makes them; tpe-default is Optuna's TPE with
its own settings. The settings of ehvi were chosen on synthetic tables alone.
"""

import argparse
import fcntl
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from main_job import machine, show

from search_space.encoders import EncoderShape, EncoderSpec
from search_space.space import SearchSpace
from studies.acquisition import front_of
from studies.identity import DIRECTIONS
from studies.samplers import SAMPLERS, distributions, sampler_maker

AT = (20, 40, 60)
FIGURES = ("latency_ms", "accuracy")
DEFAULTS = {
    "text_encoder": "text",
    "vision_encoder": "vision",
    "text_tokens": 32,
    "operator_1": "concatenation",
    "width_1": 64,
    "attention_blocks": 0,
    "attention_over": "pooled",
    "text_pooling": "cls",
    "vision_pooling": "mean",
    "precision": "fp32",
}


@dataclass(frozen=True)
class Table:
    """Designs (N) with latency (N,) in ms and accuracy (N, seeds) in percent, and their space."""

    space: SearchSpace
    position: dict[str, int]
    latency: np.ndarray
    accuracy: np.ndarray

    def row(self, params: Mapping[str, Any]) -> int:
        """Where the design that these answers spell stands."""
        return self.position[self.space.decode([params[d.name] for d in self.space.decisions]).key]

    def volume(self, rows: Sequence[int], lowest: float) -> float:
        """Hypervolume of some designs' mean accuracies over that of all, from `lowest` percent."""
        worst = (lowest, 1.1 * float(self.latency.max()))
        mean = self.accuracy.mean(axis=1)

        def area(some: Any) -> float:
            accuracy, latency = front_of(mean[some], self.latency[some], worst)
            steps = np.diff(np.concatenate(([lowest], accuracy)))
            return float((steps * (worst[1] - latency)).sum())

        return area(list(rows)) / area(slice(None))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table, JSON lines or Parquet."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return list(pyarrow.parquet.read_table(path).to_pylist())
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def read_table(path: Path) -> Table:
    """A table with the space that its columns span. Raises ValueError where a design is missing."""
    rows = read_rows(path)

    def choices(name: str) -> tuple[Any, ...]:
        found = {row.get(name, DEFAULTS.get(name)) for row in rows}
        return tuple(sorted(found))

    fused = choices("fusion_points") if "fusion_points" in rows[0] else (1,)
    if fused != (1,):
        raise ValueError(f"{path}: {fused} fusion points; tables have one")
    texts, visions = choices("text_encoder"), choices("vision_encoder")
    deepest = {m: max(row[f"{m}_tap_1"] for row in rows) for m in ("text", "vision")}
    shapes = {
        name: EncoderShape(
            name=name,
            modality=modality,
            widths=(64,) * deepest[modality],
            sides=((7, 7),) * deepest[modality] if modality == "vision" else (),
            max_tokens=512 if modality == "text" else 0,
            has_class_token=True,
            has_pooler=True,
        )
        for modality, names in (("text", texts), ("vision", visions))
        for name in names
    }
    blocks = choices("attention_blocks")
    space = SearchSpace(
        name=path.stem,
        encoders=tuple(EncoderSpec(s.name, s.modality, "timm", s.name) for s in shapes.values()),
        shapes=shapes,
        text_tokens=choices("text_tokens"),
        fusion_points=(1, 1),
        operators=choices("operator_1"),
        widths=choices("width_1"),
        attention_blocks=(blocks[0], blocks[-1]),
        attention_over=choices("attention_over"),
        text_poolings=choices("text_pooling"),
        vision_poolings=choices("vision_pooling"),
        precisions=choices("precision"),
    )
    fixed = {"fusion_points": 1, **DEFAULTS}
    keys = [
        space.decode([row.get(d.name, fixed.get(d.name)) for d in space.decisions]).key
        for row in rows
    ]
    if len(set(keys)) < space.size:
        raise ValueError(f"{path}: {len(set(keys))} designs; its columns span {space.size}")
    return Table(
        space,
        {key: k for k, key in enumerate(keys)},
        np.array([row["latency_ms"] for row in rows]),
        np.array([row["accuracy"] for row in rows]),
    )


def write_synthetic(path: Path, seed: int) -> None:
    """A table as a real one might look; what it is made of is drawn by `seed`.

    Additive latency; accuracy that saturates in the taps of both trunks, that rises with tokens,
    that some operators serve better early and others late; 0.7 points of noise a training seed.
    """
    rng = random.Random(seed)
    text_ms, stem_ms = rng.uniform(0.6, 1.4), rng.uniform(0.3, 1.5)
    block_ms = [rng.uniform(0.2, 1.0) for _ in range(16)]
    operator_ms = {"concatenation": 0.0, "product": 0.02, "gated": 0.05, "tensor": 0.25}
    best = {name: rng.gauss(0.0, 1.2) for name in operator_ms}
    prefers = {name: rng.gauss(0.0, 1.5) for name in operator_ms}
    text_gain, vision_gain = rng.uniform(10, 22), rng.uniform(3, 12)
    text_rate, vision_rate = rng.uniform(1.5, 5), rng.uniform(1.0, 5)
    peak = rng.uniform(0.6, 1.3)  # the last layers of some text trunks are worth less than others
    bumps = [rng.gauss(0.0, 0.6) for _ in range(22)]
    floor, token_gain = rng.uniform(45, 55), rng.uniform(0.5, 5)
    with path.open("w", encoding="utf-8") as file:
        for text in range(1, 7):
            for vision in range(1, 17):
                for operator in operator_ms:
                    for tokens in (16, 32, 64):
                        ms = (
                            stem_ms
                            + text * text_ms * (0.35 + tokens / 64)
                            + sum(block_ms[:vision])
                            + operator_ms[operator]
                        )
                        t, v = text / 6, vision / 16
                        percent = (
                            floor
                            + text_gain * (1 - np.exp(-text_rate * t))
                            - 8 * max(t - peak, 0.0)
                            + vision_gain * (1 - np.exp(-vision_rate * v))
                            + token_gain * np.log2(tokens / 16) / 2 * t
                            + best[operator]
                            + prefers[operator] * (v - 0.5)
                            + bumps[text - 1]
                            + bumps[5 + vision]
                        )
                        row = {
                            "text_tap_1": text,
                            "vision_tap_1": vision,
                            "operator_1": operator,
                            "text_tokens": tokens,
                            "latency_ms": round(ms * rng.lognormvariate(0.0, 0.01), 4),
                            "accuracy": [round(rng.gauss(percent, 0.7), 3) for _ in range(3)],
                        }
                        file.write(json.dumps(row) + "\n")


Maker = Callable[[int], optuna.samplers.BaseSampler]


def maker(name: str, seed: int, space: SearchSpace) -> tuple[Maker, bool]:
    """What makes a trial's sampler, and whether one sampler serves the whole study."""
    if name == "tpe-default":
        return lambda trial: optuna.samplers.TPESampler(seed=seed), True
    return sampler_maker(name, seed, space), False


def replay(table: Table, name: str, seed: int, noise: bool) -> dict[str, Any]:
    """One study: hypervolume at each of AT from both reference points, seconds a trial."""
    rng = np.random.default_rng(seed)
    count, seeds = table.accuracy.shape
    told = table.accuracy[np.arange(count), rng.integers(seeds, size=count)]
    told = told if noise else table.accuracy.mean(axis=1)
    asked = distributions(table.space)
    make, once = maker(name, seed, table.space)
    study = optuna.create_study(directions=DIRECTIONS, sampler=make(0))
    rows, seconds = [], []
    for number in range(AT[-1]):
        begun = time.perf_counter()
        if not once:
            study.sampler = make(number)
        trial = study.ask(asked)
        asking = time.perf_counter() - begun
        row = table.row(trial.params)
        begun = time.perf_counter()
        study.tell(trial, [float(told[row]), float(table.latency[row])])
        seconds.append(asking + time.perf_counter() - begun)
        rows.append(row)
    lowest = float(table.accuracy.mean(axis=1).min())
    return {
        "sampler": name,
        "seed": seed,
        "noise": noise,
        "hypervolume": [round(table.volume(rows[:n], 0.0), 5) for n in AT],
        "above_lowest": [round(table.volume(rows[:n], lowest), 5) for n in AT],
        "different": len(set(rows)),
        "seconds_a_trial": round(float(np.mean(seconds[1:])), 4),
        "slowest_s": round(max(seconds[1:]), 4),
        "first_s": round(seconds[0], 4),
    }


def quartiles(values: Sequence[float]) -> list[float]:
    """[lower quartile, median, upper quartile]."""
    return [round(float(q), 4) for q in np.quantile(values, (0.25, 0.5, 0.75))]


def report(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry per sampler and noise."""
    found = []
    for noise in (True, False):
        for name in dict.fromkeys(run["sampler"] for run in runs):
            same = [r for r in runs if (r["sampler"], r["noise"]) == (name, noise)]
            if not same:
                continue
            entry: dict[str, Any] = {"sampler": name, "noise": noise, "seeds": len(same)}
            for kind in ("hypervolume", "above_lowest"):
                entry[kind] = {
                    str(n): quartiles([r[kind][k] for r in same]) for k, n in enumerate(AT)
                }
            entry["different"] = quartiles([r["different"] for r in same])
            entry["seconds_a_trial"] = quartiles([r["seconds_a_trial"] for r in same])
            found.append(entry)
    return found


def as_text(entries: Sequence[Mapping[str, Any]]) -> str:
    """The report in lines of at most 80 columns: median (lower to upper quartile)."""
    lines = []
    for kind, what in (
        ("hypervolume", "from 0 %"),
        ("above_lowest", "from the lowest accuracy"),
    ):
        for noise in (True, False):
            lines.append(f"share of the front, {what}, {'with' if noise else 'without'} noise")
            lines.append(f"{'sampler':<12}" + "".join(f"{n:>19} " for n in AT) + "  s/trial")
            for entry in (e for e in entries if e["noise"] is noise):
                cells = (f"{m:.3f} ({a:.3f}-{b:.3f})".rjust(20) for a, m, b in entry[kind].values())
                seconds = entry["seconds_a_trial"][1]
                lines.append(f"{entry['sampler']:<12}" + "".join(cells) + f"{seconds:8.3f}")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--make-synthetic", type=Path)
    parser.add_argument("--synthetic-seed", type=int, default=0)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--samplers", default=",".join((*SAMPLERS, "tpe-default")))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--noise", choices=("both", "with", "without"), default="both")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.make_synthetic:
        write_synthetic(given.make_synthetic, given.synthetic_seed)
        return
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = read_table(given.table)
    given.runs.touch()

    def kept() -> list[dict[str, Any]]:
        return [json.loads(line) for line in given.runs.read_text("utf-8").splitlines()]

    if not given.report:
        done = {(run["sampler"], run["seed"], run["noise"]) for run in kept()}
        noises = {"both": (True, False), "with": (True,), "without": (False,)}[given.noise]
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            for name in given.samplers.split(","):
                for noise in noises:
                    if (name, seed, noise) in done:
                        continue
                    line = json.dumps(replay(table, name, seed, noise)) + "\n"
                    with given.runs.open("a", encoding="utf-8") as file:
                        fcntl.flock(file, fcntl.LOCK_EX)
                        file.write(line)
    entries = report(kept())
    print(as_text(entries))
    if given.out:
        about = {"designs": len(table.latency), "machine": machine(), "results": entries}
        show(about, given.out)


if __name__ == "__main__":
    main()
