"""What a study saves by probing designs before training, and by timing after it, and what it loses.

    python benchmarks/early_stopping.py --runs runs.jsonl [--table FILE] [--sampler ehvi]
    python benchmarks/early_stopping.py --runs runs.jsonl --report [--out RESULT.json]

Studies of 60 trials by the product's own loop, on the table that comes with the toolkit: "all"
times and trains every design, "probe" is `--probe`, "few" is `--deferred-timing`, "both" is both.
Told are one training seed's accuracies. Counted are readings, trainings, and the table's seconds of
probes and trainings; hypervolume is that of the mean accuracies of the designs that ended complete,
over that of the whole table. Readings are the table's own, so no ratio holds what a second reading
would differ by. The 0.3 % of `--deferred-timing` and the probe's ridge were chosen on this very
table, so both figures are a little kind. Each ratio is to "all" with the same seed. Runs are kept
as they end.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from main_job import machine, show
from optuna.trial import TrialState

from evaluators.evaluation import Evaluation, Measure, content_key
from evaluators.onnx.rewriting import Rewriting
from evaluators.store import EvaluationStore
from search_space.design.genotype import Genotype
from search_space.network.rewrites import ALL
from studies.infra.storage import quiet_optuna
from studies.infra.workers import Workers
from studies.results.objectives import Goals
from studies.samplers.registry import SAMPLERS, sampler_maker
from studies.search.early_stopping import EarlyStopping
from studies.search.latency_prediction import LearnedLatency
from studies.search.loop import Search
from studies.search.trial_runner import Evaluators, SearchTargets, TrialRunner
from studies.study.identity import directions_of
from studies.table.replay import quartiles
from studies.table.table import Table, load_table

TRIALS = 60
VARIANTS = {"all": (False, False), "probe": (True, False), "few": (False, True)}
VARIANTS["both"] = (True, True)


class FromTable:
    """One column of a table as an evaluator; `asked` holds the designs that it was asked for."""

    def __init__(self, table: Table, kind: str, measure: str, values: np.ndarray) -> None:
        self._position = {genotype.key: k for k, genotype in enumerate(table.genotypes)}
        self._table, self._kind, self._measure, self._values = table, kind, measure, values
        self.asked: list[int] = []

    def key(self, genotype: Genotype) -> str:
        return content_key(self._kind, {"genotype": genotype.key})

    def evaluate(self, genotype: Genotype) -> Evaluation:
        at = self._position[genotype.key]
        self.asked.append(at)
        value = float(self._values[at])
        low, high = value, value
        if self._kind == "latency":
            low, high = float(self._table.latency_low[at]), float(self._table.latency_high[at])
        measure = Measure(self._measure, value, "", "neither", low, high)
        details = {"fidelity": "fusion on frozen trunks"}
        return Evaluation(self.key(genotype), self._kind, (measure,), details)


class Quiet:
    """A reporter that says nothing."""

    def trial(self, done: int, total: int, text: str) -> None: ...

    def step(self, what: str, done: int, total: int) -> None: ...

    def line(self, text: str) -> None: ...


def run(table: Table, variant: str, sampler: str, seed: int) -> dict[str, Any]:
    """One study."""
    rng = np.random.default_rng(seed)
    count, seeds = table.accuracy.shape
    told = table.accuracy[np.arange(count), rng.integers(seeds, size=count)]
    latency: Any = FromTable(table, "latency", "latency_ms", table.latency)
    quality: Any = FromTable(table, "quality", "accuracy", told)
    probe = FromTable(table, "probe", "probe_r2", table.probe)
    probes, few = VARIANTS[variant]
    study = optuna.create_study(directions=directions_of(Goals()))
    learnt = None
    if sampler == "ehvi" or few:
        learnt = LearnedLatency(study, table.space, Rewriting(ALL, None))
    early = EarlyStopping(probe if probes else None, learnt if few else None)
    draw = sampler_maker(sampler, seed, table.space, learnt if sampler == "ehvi" else None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = EvaluationStore(folder / "evaluations.jsonl")
        workers = Workers(folder / "workers")
        evaluators = Evaluators(latency, quality, store)
        runner = TrialRunner(study, table.space, evaluators, SearchTargets(), early)
        search = Search(runner, workers, Quiet(), draw)
        search.run(TRIALS)
        workers.close()
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    rows = [table.row(trial.params) for trial in ended]
    return {
        "variant": variant,
        "sampler": sampler,
        "seed": seed,
        "trials": len(study.trials),
        "readings": len(latency.asked),
        "trainings": len(quality.asked),
        "probe_s": round(float(table.probe_s[probe.asked].sum()), 3),
        "training_s": round(float(table.training_s[quality.asked].sum()), 3),
        "hypervolume": round(table.volume(rows), 5),
        "above_lowest": round(table.volume(rows, float(table.mean.min())), 5),
    }


def report(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """An entry a variant and sampler, quartiles over seeds; ratios to "all" of the same seed."""
    whole = {(r["sampler"], r["seed"]): r for r in runs if r["variant"] == "all"}
    found = []
    for sampler in dict.fromkeys(r["sampler"] for r in runs):
        for variant in VARIANTS:
            same = [r for r in runs if (r["sampler"], r["variant"]) == (sampler, variant)]
            pairs = [(r, whole[sampler, r["seed"]]) for r in same if (sampler, r["seed"]) in whole]
            if not pairs:
                continue
            entry: dict[str, Any] = {"sampler": sampler, "variant": variant, "seeds": len(pairs)}
            for name in ("readings", "trainings", "hypervolume", "above_lowest"):
                entry[name] = quartiles([r[name] for r, _ in pairs])
            for name in ("hypervolume", "above_lowest"):
                entry[f"{name}_kept"] = quartiles([r[name] / a[name] for r, a in pairs])
            entry["fewer_readings"] = quartiles([a["readings"] / r["readings"] for r, a in pairs])
            entry["probe_over_training_s"] = quartiles(
                [r["probe_s"] / max(a["training_s"], 1e-9) for r, a in pairs]
            )
            entry["seconds_kept"] = quartiles(
                [(r["probe_s"] + r["training_s"]) / max(a["training_s"], 1e-9) for r, a in pairs]
            )
            found.append(entry)
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--sampler", choices=sorted(SAMPLERS), default="ehvi")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    quiet_optuna()
    kept = given.runs.read_text("utf-8").splitlines() if given.runs.is_file() else []
    runs = [json.loads(line) for line in kept]
    table = load_table(given.table)
    if not given.report:
        done = {(r["variant"], r["sampler"], r["seed"]) for r in runs}
        for seed in range(given.seeds):
            for variant in given.variants.split(","):
                if (variant, given.sampler, seed) in done:
                    continue
                runs.append(run(table, variant, given.sampler, seed))
                with given.runs.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(runs[-1]) + "\n")
    entries = report(runs)
    show({"designs": len(table.genotypes), "machine": machine(), "results": entries}, given.out)


if __name__ == "__main__":
    main()
