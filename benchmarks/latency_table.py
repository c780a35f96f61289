"""How well the latency model knows the designs of the table from 20 readings of it.

    python benchmarks/latency_table.py [--table FILE] [--read 20] [--out RESULT.json]

The model chooses the designs that it reads before it has read any (`next_to_time`); all others of
the table are held out. Beside it multiply-accumulates (MACs), brought to ms by the factor that
fits the same readings best. error: mean absolute error as a share of the table's latency; tau:
Kendall's.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from latency_model import judged
from main_job import machine, show

from evaluators.latency.features import LatencyFeatures
from evaluators.latency.model import LatencyModel, TimedDesign
from evaluators.latency.trunk_work import TrunkWork
from evaluators.onnx.rewriting import Rewriting
from search_space.network.rewrites import ALL
from studies.table.table import Table, load_table


def held_out(table: Table, features: LatencyFeatures, read: int) -> dict[str, Any]:
    """Model and MACs on the designs that were not read."""
    costs = features.of(table.genotypes)
    chosen = LatencyModel.fit(features, []).next_to_time(costs, read)
    half = (table.latency_high - table.latency_low) / 2 / table.latency
    readings = [
        TimedDesign(table.genotypes[k], float(table.latency[k]), float(half[k])) for k in chosen
    ]
    others = np.setdiff1d(np.arange(len(table.genotypes)), chosen)
    said, _ = LatencyModel.fit(features, readings).predict(costs[others])
    factor = np.exp(np.median(np.log(table.latency[chosen] / table.macs[chosen])))
    seen = table.latency[others]
    return {"model": judged(said, seen), "macs": judged(factor * table.macs[others], seen)}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--read", type=int, default=20)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    table = load_table(given.table)
    features = LatencyFeatures(TrunkWork(table.space.encoders, table.space.shapes), Rewriting(ALL))
    found = held_out(table, features, given.read)
    about = {"designs": len(table.genotypes), "read": given.read, "machine": machine()}
    show({**about, "results": found}, given.out)


if __name__ == "__main__":
    main()
