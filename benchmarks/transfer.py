"""How well 10 readings of a new device and another device's model rank the other designs.

    python benchmarks/transfer.py --readings FILE.jsonl --out benchmarks/results/DATE-transfer.json

Settings of this machine stand for devices: a runtime with a number of threads, as `cpu:1`. Random
fp32 designs of a space, no two alike, are each built once and timed in every setting, in turns
A B C, C B A, by short readings; the faster of the two readings counts, which other programs
disturbed less. What the file holds already is not timed again, so a run that was cut off goes on.
`--from-runtimes` takes the readings of a result of `benchmarks/runtimes.py` in place of new ones.

For each ordered pair of settings, and each of `--draws` draws of `--read` designs, told of the
designs that were not drawn:

- model: `evaluators.latency.transfer`, begun from the model of the other setting, which has read
  all designs there, after the drawn readings.
- unread: that other model with no reading of the new setting.
- alone: the model after the drawn readings, begun from none.
- macs: multiply-accumulates.
- readings there: the other setting's own readings.
- again: the slower of the two readings of the same setting.

Each as Spearman's rank correlation with the readings of the new setting, mean over draws; of models
also the mean absolute error as a share of the reading.
"""

import argparse
import json
import os
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from main_job import machine, show
from runtimes import designs

from device_agent.wire.request import MeasureRequest
from device_agent.wire.result import Status
from evaluators.costs import static_costs
from evaluators.latency.evaluator import LOCAL_TIMING, brief
from evaluators.latency.features import LatencyFeatures
from evaluators.latency.model import LatencyModel, TimedDesign
from evaluators.latency.transfer import leave_one_out, spearman, transferred
from evaluators.latency.trunk_work import TrunkWork
from evaluators.onnx.builder import OnnxBuilder
from evaluators.onnx.rewriting import Rewriting
from search_space.design.genotype import Genotype
from search_space.network.network import build
from search_space.network.rewrites import ALL
from search_space.space.named import load_space
from search_space.space.space import SearchSpace
from studies.config.options import RUNTIMES
from studies.study.context import local_device

LEAST_HALF_WIDTH = 0.05
"""Of readings, as a share: two of one design are seldom closer on a machine that others use."""


def taken(
    space: SearchSpace, chosen: list[Genotype], settings: list[str], file: Path
) -> dict[str, Any]:
    """The readings of each design in each setting, by its key; those that are missing are taken."""
    known: dict[str, Any] = {}
    if file.is_file():
        lines = map(json.loads, file.read_text(encoding="utf-8").splitlines())
        known = {one["key"]: one for one in lines}
    missing = [genotype for genotype in chosen if genotype.key not in known]
    if not missing:
        return known
    with TemporaryDirectory() as folder:
        home = Path(folder)
        encoders = {spec.name: spec for spec in space.encoders}
        builder = OnnxBuilder(
            encoders, space.shapes, 2, home / "onnx", rewrites=ALL, parts=home / "parts"
        )
        opener, held = local_device(home, "cpu")
        device = opener()
        for genotype in missing:
            artifact = builder.build(genotype)
            read: dict[str, list[float]] = {name: [] for name in settings}
            for name in (*settings, *reversed(settings)):
                which, threads = name.split(":")
                request = MeasureRequest(
                    artifact.sha256,
                    artifact.inputs,
                    *RUNTIMES[which],
                    brief(LOCAL_TIMING),
                    threads=int(threads),
                )
                result = device.measure(artifact.path, request)
                if result.status is not Status.OK:
                    raise RuntimeError(f"{genotype.describe()}: {name}: {result.reason}")
                read[name].append(result.median_ms)
            artifact.discard()
            one = {"key": genotype.key, "ms": read}
            known[genotype.key] = one
            with open(file, "a", encoding="utf-8") as lines_of:
                lines_of.write(json.dumps(one) + "\n")
        device.close()
        held.release()
    return known


def macs_of(space: SearchSpace, chosen: list[Genotype]) -> np.ndarray:
    """Multiply-accumulates of each design, as it is written."""
    encoders = {spec.name: spec for spec in space.encoders}
    found = []
    for genotype in chosen:
        costs = static_costs(build(genotype, encoders, space.shapes, 2), genotype, space.shapes)
        found.append(next(one.value for one in costs if one.name == "macs"))
    return np.array(found, dtype=float)


def compared(
    features: LatencyFeatures,
    chosen: list[Genotype],
    rows: list[dict[str, Any]],
    pair: tuple[str, str],
    macs: np.ndarray,
    read: int,
    draws: int,
) -> dict[str, Any]:
    """Predict the second setting from the first."""
    first, second = pair
    costs = features.of(chosen)
    there, here = (np.array([min(row["ms"][name]) for row in rows]) for name in pair)
    again = np.array([max(row["ms"][second]) for row in rows])

    def readings(which: list[int], ms: np.ndarray) -> list[TimedDesign]:
        return [TimedDesign(chosen[k], float(ms[k]), LEAST_HALF_WIDTH) for k in which]

    others = {first: LatencyModel.fit(features, readings(list(range(len(rows))), there))}
    found: dict[str, list[float]] = {}
    sources, loo = [], []
    for draw in range(draws):
        drawn = sorted(np.random.default_rng(draw).choice(len(rows), read, replace=False).tolist())
        held = [k for k in range(len(rows)) if k not in drawn]
        new = transferred(features, readings(drawn, here), others)
        alone = LatencyModel.fit(features, readings(drawn, here))
        sources.append(f"{new.source or 'none'} x {new.likeness:g}")
        said = {
            "model": new.model.predict(costs[held])[0],
            "unread": others[first].predict(costs[held])[0],
            "alone": alone.predict(costs[held])[0],
            "readings there": there[held],
            "again": again[held],
            "macs": macs[held],
        }
        for name, values in said.items():
            found.setdefault(name, []).append(spearman(values, here[held]) or 0.0)
        for name in ("model", "alone"):
            error = float(np.abs(said[name] / here[held] - 1).mean())
            found.setdefault(f"{name}, error", []).append(error)
        told = leave_one_out(new, readings(drawn, here), others)
        if told is not None:
            loo.append(told.error)
    return {
        "from": first,
        "to": second,
        **{name: round(float(np.mean(values)), 4) for name, values in found.items()},
        "model, least": round(min(found["model"]), 4),
        "leave-one-out error": round(float(np.mean(loo)), 4) if loo else None,
        "began from": {each: sources.count(each) for each in sorted(set(sources))},
    }


def main() -> None:
    """Time what is missing, and print figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--readings", type=Path, help="JSON lines, kept as they come")
    parser.add_argument("--from-runtimes", type=Path, help="a result of benchmarks/runtimes.py")
    parser.add_argument("--settings", default="cpu:1,cpu:2,openvino:1")
    parser.add_argument("--space", default="demo")
    parser.add_argument("--designs", type=int, default=40)
    parser.add_argument("--read", type=int, default=10)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if (args.readings is None) == (args.from_runtimes is None):
        parser.error("give --readings or --from-runtimes")
    about, space = machine(), load_space(args.space)
    if args.from_runtimes is not None:
        stored = json.loads(args.from_runtimes.read_text(encoding="utf-8"))
        settings = list(stored["runtimes"])
        known = {one["key"]: one for one in stored["readings"]}
        chosen = [g for g in designs(space, len(known), 0) if g.key in known]
    else:
        settings = args.settings.split(",")
        chosen = designs(space, args.designs, 0)
        known = taken(space, chosen, settings, args.readings)
    about["load_after"] = os.getloadavg()[0]
    rows = [known[genotype.key] for genotype in chosen]
    features = LatencyFeatures(TrunkWork(space.encoders, space.shapes), Rewriting(ALL))
    macs = macs_of(space, chosen)
    pairs = [
        compared(features, chosen, rows, pair, macs, args.read, args.draws)
        for pair in permutations(settings, 2)
    ]
    given = {"space": args.space, "read": args.read, "draws": args.draws, "designs": len(rows)}
    of = args.from_runtimes.name if args.from_runtimes else None
    readings = {} if args.from_runtimes else {"readings": rows}
    show(
        {"machine": about, "settings": given, "readings of": of, "pairs": pairs, **readings},
        args.out,
    )


if __name__ == "__main__":
    main()
