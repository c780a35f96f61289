"""How soon samplers find the front of a table of designs whose every answer is known.

    python benchmarks/samplers.py --runs runs.jsonl [--samplers ehvi,gp] [--seeds 20]
    python benchmarks/samplers.py --runs runs.jsonl --report [--out RESULT.json]
    python benchmarks/samplers.py --make-synthetic /tmp/synthetic.parquet

On the table that comes with the toolkit, or on --table FILE. What is counted,
`studies.table.replay` says; runs are kept in --runs as they end: a second call goes on,
and two calls with different seeds may share a file.

Samplers: those of `--sampler`; tpe-default is Optuna's TPE with its own settings. The settings of
ehvi were chosen on synthetic tables alone. Those of other toolkits run if they are named: ax,
ax-reference, moasha, moasha-ranks (`rivals.py` says what they are and what to install for them). A
trial is a design that was trained; how many were started for them is told where it is more.
"""

import argparse
import fcntl
import json
import random
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from main_job import machine, show
from rivals import PACKAGES, RivalMissing, check_installed, rival, versions

from studies.samplers.registry import SAMPLERS, sampler_maker
from studies.table.replay import OptunaProposer, Proposer, Replay, as_text, replay, summary
from studies.table.table import Table, load_table, write_table

AT = (20, 40, 60)


def synthetic(seed: int) -> list[dict[str, Any]]:
    """Rows of a table as a real one might look; what it is made of is drawn by `seed`.

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
    rows = []
    for text, vision, operator, tokens in product(
        range(1, 7), range(1, 17), operator_ms, (16, 32, 64)
    ):
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
        ms = round(ms * rng.lognormvariate(0.0, 0.01), 4)
        accuracy = [round(rng.gauss(percent, 0.7), 3) for _ in range(3)]
        rows.append(
            {
                "text_tap_1": text,
                "vision_tap_1": vision,
                "operator_1": operator,
                "text_tokens": tokens,
                "valid_accuracy": accuracy,
                "test_accuracy": accuracy,
                "latency_ms": ms,
                "latency_low_ms": ms,
                "latency_high_ms": ms,
                "latency_readings_ms": [ms],
                "parameters": 0,
                "macs": 0,
                "probe_r2": round(rng.gauss(percent, 1.5), 3),
                "probe_s": 0.0,
                "training_s": 0.0,
            }
        )
    return rows


def proposer(name: str, seed: int, table: Table) -> Proposer:
    """A sampler, new; of Optuna's own settings one sampler serves the whole study."""
    if name in PACKAGES:
        return rival(name, seed, table)
    if name == "tpe-default":
        sampler = optuna.samplers.TPESampler(seed=seed)
        return OptunaProposer(lambda trial: sampler, table.space)
    return OptunaProposer(sampler_maker(name, seed, table.space), table.space)


def named(text: str) -> list[str]:
    """The samplers of a list with commas. Raises ValueError, RivalMissing for what is not there."""
    names = text.split(",")
    known = (*SAMPLERS, "tpe-default", *PACKAGES)
    for name in names:
        if name not in known:
            raise ValueError(f"--samplers {name}: choose of {', '.join(known)}")
        if name in PACKAGES:
            check_installed(name)
    return names


def kept(file: Path) -> list[Replay]:
    """The runs that a file holds."""
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    return [Replay(**json.loads(line)) for line in lines]


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
        write_table(synthetic(given.synthetic_seed), given.make_synthetic)
        return
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = load_table(given.table)
    if not given.report:
        try:
            names = named(given.samplers)
        except (ValueError, RivalMissing) as error:
            raise SystemExit(str(error)) from error
        done = {(run.sampler, run.seed, run.noise) for run in kept(given.runs)}
        noises = {"both": (True, False), "with": (True,), "without": (False,)}[given.noise]
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            for name in names:
                for noise in noises:
                    if (name, seed, noise) in done:
                        continue
                    run = replay(table, name, proposer(name, seed, table), seed, noise, AT)
                    with given.runs.open("a", encoding="utf-8") as file:
                        fcntl.flock(file, fcntl.LOCK_EX)
                        file.write(json.dumps(run.as_json()) + "\n")
    entries = summary(kept(given.runs))
    print(as_text(entries))
    if given.out:
        on = machine() | versions()
        show({"designs": len(table.genotypes), "machine": on, "results": entries}, given.out)


if __name__ == "__main__":
    main()
