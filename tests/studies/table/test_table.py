"""The table of `fusion-nas table`: every design of its space, and studies replayed on it."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from search_space import errors as codes
from search_space.space.named import load_space
from studies.cli.app import app
from studies.samplers.registry import sampler_maker
from studies.table.replay import OptunaProposer, as_text, replay, summary
from studies.table.table import (
    DECISIONS,
    FIGURES,
    NAME,
    Table,
    TableError,
    all_designs,
    card,
    load_table,
    write_table,
)

Change = Callable[[list[dict[str, Any]]], object]


def made_rows() -> list[dict[str, Any]]:
    """A row a design: deeper taps are slower and better, and concatenation is best of all."""
    space = load_space(NAME, weights="random")
    rows = []
    for design in all_designs(space).values():
        decided = dict(zip((d.name for d in space.decisions), space.encode(design), strict=True))
        depth = int(decided["text_tap_1"]) + int(decided["vision_tap_1"])
        right = 50.0 + depth + (decided["operator_1"] == "concatenation")
        figures = dict.fromkeys(FIGURES, 1.0) | {
            "valid_accuracy": [right, right - 1, right + 1],
            "test_accuracy": [right - 2, right - 2, right - 2],
            "latency_ms": 1.0 + depth + int(decided["text_tokens"]) / 64,
            "latency_readings_ms": [1.0],
        }
        rows.append({**{name: decided[name] for name in DECISIONS}, **figures})
    return rows


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    file = tmp_path_factory.mktemp("table") / "made.parquet"
    write_table(made_rows(), file)
    return load_table(file)


def test_the_shipped_table_holds_every_design_of_its_space_trained_thrice_and_timed() -> None:
    shipped = load_table()
    assert len(shipped.genotypes) == 1152 == len({g.key for g in shipped.genotypes})
    assert shipped.accuracy.shape == shipped.test_accuracy.shape == (1152, 3)
    assert (shipped.latency > 0).all() and len(set(shipped.latency)) > 1000
    assert ((shipped.accuracy > 40) & (shipped.accuracy < 95)).all()
    assert len(shipped.front) > 3
    assert NAME in card() and "not" in card()


def test_the_front_is_of_the_designs_that_no_other_beats(table: Table) -> None:
    told = [(table.latency[k], table.mean[k]) for k in table.front]
    assert told == sorted(told)
    for k in table.front:
        beats = (table.latency <= table.latency[k]) & (table.mean >= table.mean[k])
        assert set(table.mean[beats]) == {table.mean[k]}
    assert table.volume(table.front) == pytest.approx(1.0)
    assert table.volume(table.front[:1]) < 0.99


def test_a_row_is_known_by_the_answers_of_a_trial(table: Table) -> None:
    asked = table.space.decisions
    for k in (0, 500, 1151):
        vector = table.space.encode(table.genotypes[k])
        assert table.row({d.name: c for d, c in zip(asked, vector, strict=True)}) == k


@pytest.mark.parametrize("name", ["random", "ehvi"])
def test_a_study_of_the_table_is_the_same_again(table: Table, name: str) -> None:
    def once(seed: int) -> tuple[float, ...]:
        proposer = OptunaProposer(sampler_maker(name, seed, table.space), table.space)
        return replay(table, name, proposer, seed, True, (4, 8, 12)).above_lowest

    assert once(1) == once(1)
    assert once(1) != once(2)
    assert all(0 < share <= 1 for share in once(1))


def test_a_sampler_with_no_design_left_ends_its_study(table: Table) -> None:
    make = sampler_maker("ehvi", 0, table.space)
    make(0)._pool.offered[:] = make(0)._pool.offered[:9]  # type: ignore[attr-defined]
    found = replay(table, "ehvi", OptunaProposer(make, table.space), 0, False, (5, 15))
    assert found.different == 9
    assert found.started == (5, 9)


class EveryThird:
    """Starts the table's designs in turn and lets every third of them be trained."""

    def __init__(self, table: Table) -> None:
        self._table, self.started = table, 0

    def ask(self) -> Mapping[str, Any]:
        self.started += 3
        space = self._table.space
        vector = space.encode(self._table.genotypes[self.started - 1])
        return dict(zip((d.name for d in space.decisions), vector, strict=True))

    def tell(self, accuracy: float, latency: float) -> None: ...


def test_designs_that_a_sampler_stopped_itself_are_told_beside_its_figures(table: Table) -> None:
    run = replay(table, "third", EveryThird(table), 0, False, (5, 10))
    assert run.started == (15, 30) and run.different == 10
    assert "  of 15, 30 started" in as_text(summary([run]))


def test_a_summary_tells_medians_and_fits_the_terminal(table: Table) -> None:
    def proposer(seed: int) -> OptunaProposer:
        return OptunaProposer(sampler_maker("random", seed, table.space), table.space)

    runs = [
        replay(table, "random", proposer(seed), seed, noise, (20, 40))
        for seed in range(3)
        for noise in (True, False)
    ]
    entries = summary(runs)
    told = sorted(run.hypervolume[1] for run in runs if run.noise)
    assert entries[0]["hypervolume"]["40"][1] == pytest.approx(told[1], abs=1e-4)
    assert all(len(line) <= 80 for line in as_text(entries).splitlines())


# Bad input


def without_first(rows: list[dict[str, Any]]) -> object:
    return rows.pop(0)


def twice_the_first(rows: list[dict[str, Any]]) -> None:
    rows.append(rows[0])


def unknown_operator(rows: list[dict[str, Any]]) -> None:
    rows[7]["operator_1"] = "guess"


def no_latency(rows: list[dict[str, Any]]) -> None:
    rows[3]["latency_ms"] = math.nan


def no_time(rows: list[dict[str, Any]]) -> None:
    rows[3]["latency_ms"] = 0.0


def one_number(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["valid_accuracy"] = 60.0


def no_seeds(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["valid_accuracy"] = []


def one_seed_less(rows: list[dict[str, Any]]) -> None:
    rows[3]["valid_accuracy"] = [1.0]


def no_column(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        del row["macs"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_first, "1 of 1152 designs have no row, the first"),
        (twice_the_first, "repeats"),
        (unknown_operator, "row 7 is no design of fusion-1152"),
        (no_latency, "latency_ms is not a number in every row"),
        (no_time, "a latency is not above 0 ms"),
        (one_number, "valid_accuracy is not numbers, one a seed"),
        (no_seeds, "valid_accuracy is not numbers, one a seed"),
        (one_seed_less, "a seed is missing"),
        (no_column, "has no column macs"),
    ],
)
def test_a_damaged_table_is_refused_by_what_is_wrong_with_it(
    tmp_path: Path, change: Change, said: str
) -> None:
    rows = made_rows()
    change(rows)
    write_table(rows, tmp_path / "damaged.parquet")
    with pytest.raises(TableError, match=said):
        load_table(tmp_path / "damaged.parquet")


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(TableError, match="cannot be read as Parquet"):
        load_table(tmp_path / "text.parquet")
    with pytest.raises(TableError, match="there is no such file"):
        load_table(tmp_path / "none.parquet")
    parquet.write_table(pyarrow.table({"x": np.arange(3)}), tmp_path / "other.parquet")
    with pytest.raises(TableError, match="has no column"):
        load_table(tmp_path / "other.parquet")


# The command


def told(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    app(["table", *flags], standalone_mode=False)
    return capsys.readouterr().out


def test_the_command_shows_the_front_the_card_and_replayed_samplers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = json.loads(told(capsys, "--json"))
    assert (shown["designs"], shown["seeds"]) == (1152, 3)
    assert len(shown["front"]) == len(load_table().front)
    assert "1,152 designs" in told(capsys)
    assert told(capsys, "--card").strip() == card().strip()
    flags = ("--sampler", "random", "--seeds", "2", "--trials", "6")
    (entry,) = json.loads(told(capsys, *flags, "--json"))["results"]
    assert (entry["sampler"], entry["seeds"], list(entry["hypervolume"])) == (
        "random",
        2,
        ["2", "4", "6"],
    )
    assert "random" in told(capsys, *flags)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--seeds", "3"), "give --sampler too"),
        (("--sampler", "guess"), "choose one of"),
        (("--sampler", "random", "--trials", "2"), "--trials 2: give 3"),
        (("--sampler", "random", "--trials", "2000"), "--trials 2000: give 3"),
        (("--sampler", "random", "--seeds", "0"), "--seeds 0: give 1"),
        (("--card", "--json"), "leave the other flags out"),
        (("--file", "nowhere.parquet"), "nowhere.parquet: there is no such file"),
    ],
)
def test_flags_that_cannot_be_meant_are_named(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], said: str
) -> None:
    assert app(["table", *flags], standalone_mode=False) == codes.USAGE
    assert said in capsys.readouterr().err
