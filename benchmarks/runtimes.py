"""Whether two runtimes rank designs alike: latencies of the same files on this machine.

Random designs of a space, distinct as graphs, each built once and timed by both runtimes in turns
A B B A on one thread. Kendall's tau-b over the designs' mean latencies, with a 95 % bootstrap
interval over designs. What a file holds already is not timed again.
"""

import argparse
import json
import platform
import random
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from device_agent.wire.request import MeasureRequest
from device_agent.wire.result import Status
from evaluators.latency.evaluator import LOCAL_TIMING
from evaluators.onnx.builder import OnnxBuilder
from search_space.design.genotype import Genotype
from search_space.network.rewrites import ALL
from search_space.space.named import load_space
from search_space.space.space import SearchSpace
from studies.config.options import RUNTIMES
from studies.study.context import local_device

ORDER = (0, 1, 1, 0)
BOOTSTRAPS = 2000


def designs(space: SearchSpace, count: int, seed: int) -> list[Genotype]:
    """Random designs in fp32, no two alike."""
    generator = random.Random(seed)
    found: dict[str, Genotype] = {}
    while len(found) < count:
        genotype = replace(space.sample(generator), precision="fp32")
        found.setdefault(genotype.key, genotype)
    return list(found.values())


def main() -> None:
    """Time what is missing, and print figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readings", type=Path, required=True, help="JSON lines, resumable")
    parser.add_argument("--space", default="demo")
    parser.add_argument("--designs", type=int, default=48)
    parser.add_argument("--runtimes", default="cpu,openvino")
    asked = parser.parse_args()
    names = asked.runtimes.split(",")
    space = load_space(asked.space)
    known: dict[str, dict[str, Any]] = {}
    if asked.readings.is_file():
        lines = map(json.loads, asked.readings.read_text(encoding="utf-8").splitlines())
        known = {one["key"]: one for one in lines}
    with TemporaryDirectory() as folder:
        home = Path(folder)
        encoders = {spec.name: spec for spec in space.encoders}
        builder = OnnxBuilder(
            encoders, space.shapes, 2, home / "onnx", rewrites=ALL, parts=home / "parts"
        )
        opener, held = local_device(home, "cpu")
        device = opener()
        versions = {one.name: one.version for one in device.hello().runtimes}
        for genotype in designs(space, asked.designs, 0):
            if genotype.key in known:
                continue
            artifact = builder.build(genotype)
            read: dict[str, list[float]] = {name: [] for name in names}
            stable = True
            for which in ORDER:
                runtime, provider = RUNTIMES[names[which]]
                request = MeasureRequest(
                    artifact.sha256, artifact.inputs, runtime, provider, LOCAL_TIMING, threads=1
                )
                result = device.measure(artifact.path, request)
                if result.status is not Status.OK:
                    raise RuntimeError(f"{genotype.describe()}: {runtime}: {result.reason}")
                read[names[which]].append(result.median_ms)
                stable = stable and result.stable
            artifact.discard()
            one = {"key": genotype.key, "design": genotype.describe(), "ms": read, "stable": stable}
            known[genotype.key] = one
            with open(asked.readings, "a", encoding="utf-8") as file:
                file.write(json.dumps(one) + "\n")
        device.close()
        held.release()
    chosen = [known[g.key] for g in designs(space, asked.designs, 0)]
    print(json.dumps(_figures(chosen, names, versions), indent=1))


def _figures(
    chosen: list[dict[str, Any]], names: list[str], versions: dict[str, str | None]
) -> dict[str, Any]:
    first, second = (np.array([fmean(one["ms"][name]) for one in chosen]) for name in names)
    tau = float(kendalltau(first, second).statistic)
    generator = np.random.default_rng(0)
    draws = generator.integers(len(chosen), size=(BOOTSTRAPS, len(chosen)))
    taus = [float(kendalltau(first[d], second[d]).statistic) for d in draws]
    own = {
        name: float(kendalltau(*zip(*(one["ms"][name] for one in chosen), strict=True)).statistic)
        for name in names
    }
    return {
        "machine": f"{platform.machine()}, one thread",
        "runtimes": {name: versions[RUNTIMES[name][0]] for name in names},
        "designs": len(chosen),
        "all_readings_stable": sum(one["stable"] for one in chosen),
        "kendall_tau": tau,
        "interval_95": [float(b) for b in np.quantile(taus, [0.025, 0.975])],
        "tau_of_a_runtime_with_itself": own,
        "median_ms": {n: float(np.median(v)) for n, v in zip(names, (first, second), strict=True)},
        "ratio_of_medians": float(np.median(second / first)),
        "readings": chosen,
    }


if __name__ == "__main__":
    main()
