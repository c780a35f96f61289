"""What `fusion-nas table` does: the table itself, its card, and samplers replayed on it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import track
from rich.table import Table as Grid

from studies.config.usage import MAX_SEEDS, UsageError, check_choice, check_range
from studies.infra.storage import quiet_optuna
from studies.report.progress import open_console
from studies.samplers.registry import SAMPLERS, sampler_maker
from studies.table.table import Table, card, load_table

LEAST_TRIALS = 3


def show_table(
    file: Path | None,
    samplers: Sequence[str],
    seeds: int | None,
    trials: int | None,
    only_card: bool,
    as_json: bool,
) -> None:
    """Prints the table's front, or its card, or how soon samplers find that front.

    Raises TableError, and UsageError for flags that cannot be meant.
    """
    if not samplers and (seeds is not None or trials is not None):
        raise UsageError("--seeds and --trials are for samplers: give --sampler too")
    if only_card and (file or samplers or as_json):
        raise UsageError("--card prints the card alone: leave the other flags out")
    if only_card:
        print(card())
        return
    if samplers:
        quiet_optuna()
        _show_replays(
            load_table(file),
            samplers,
            5 if seeds is None else seeds,
            60 if trials is None else trials,
            as_json,
        )
    else:
        _show_front(load_table(file), as_json)


def _show_replays(
    table: Table, samplers: Sequence[str], seeds: int, trials: int, as_json: bool
) -> None:
    for name in samplers:
        check_choice("--sampler", name, tuple(SAMPLERS))
    check_range("--seeds", seeds, 1, MAX_SEEDS)
    check_range("--trials", trials, LEAST_TRIALS, len(table.genotypes))
    at = (trials // 3, 2 * trials // 3, trials)
    jobs = [(name, seed) for seed in range(seeds) for name in dict.fromkeys(samplers)]
    console = open_console(stderr=True)
    from studies.table.replay import OptunaProposer, Replay, as_text, replay, summary

    runs: list[Replay] = []
    for name, seed in track(jobs, "studies replayed", console=console, transient=True):
        proposer = OptunaProposer(sampler_maker(name, seed, table.space), table.space)
        runs.append(replay(table, name, proposer, seed, True, at))
    if as_json:
        print(json.dumps({"space": table.space.name, "results": summary(runs)}))
    else:
        print(as_text(summary(runs)))


def _show_front(table: Table, as_json: bool) -> None:
    front = [_told(table, k) for k in table.front]
    seeds = table.accuracy.shape[1]
    if as_json:
        about = {"space": table.space.name, "designs": len(table.genotypes), "seeds": seeds}
        print(json.dumps({**about, "front": front}))
        return
    console = open_console()
    console.print(
        f"{table.space.name}: {len(table.genotypes):,} designs, each trained {seeds} times and "
        f"timed; {len(front)} on the front",
        highlight=False,
    )
    grid = Grid("ms", "valid %", "test %", "design", title="Front", title_justify="left")
    for told in front:
        figures = (f"{told['latency_ms']:.2f}", *(f"{told[n]:.1f}" for n in ("valid", "test")))
        grid.add_row(*figures, told["design"])
    console.print(grid)
    console.print("fusion-nas table --card says how it was made and what it is not for")


def _told(table: Table, k: int) -> dict[str, Any]:
    genotype = table.genotypes[k]
    point = genotype.points[0]
    return {
        "design": f"{point.text_tap}x{point.vision_tap} {point.operator}, "
        f"{genotype.text_tokens} tokens",
        "latency_ms": float(table.latency[k]),
        "valid": round(float(table.mean[k]), 2),
        "test": round(float(table.test_accuracy[k].mean()), 2),
    }
