"""The samplers of other toolkits that `benchmarks/samplers.py` takes, where they are installed."""

from pathlib import Path

import pytest

from studies.samplers.ehvi import SpaceExhausted
from studies.table.replay import replay
from studies.table.table import load_table


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))


@pytest.mark.parametrize("name", ["ax", "ax-reference", "moasha", "moasha-ranks"])
def test_a_rival_proposes_designs_of_the_table_and_the_same_again(name: str) -> None:
    import rivals

    module, package = rivals.PACKAGES[name]
    pytest.importorskip(module, reason=f"{name} needs {package}")
    table = load_table()

    def once() -> tuple[float, ...]:
        run = replay(table, name, rivals.rival(name, 1, table), 1, True, (2, 7))
        assert run.different > 4 and run.started >= (2, 7)
        return run.above_lowest

    assert once() == once()


def test_a_design_that_beats_all_others_ranks_first_with_our_ranks() -> None:
    import numpy as np
    import rivals

    pytest.importorskip("syne_tune", reason="the ranks are those of syne-tune's designs")
    ranks = rivals._ranks()(np.array([[3.0, 3], [1, 2], [2, 1], [4, 4], [0, 0]]))
    assert ranks[4] == 0 and ranks[3] == 4 and sorted(ranks) == [0, 1, 2, 3, 4]


def test_moasha_ends_where_it_has_started_as_many_designs_as_there_are() -> None:
    import rivals

    pytest.importorskip("syne_tune", reason="moasha needs syne-tune")
    table = load_table()
    moasha = rivals.rival("moasha", 0, table)
    moasha.started = len(table.genotypes)
    with pytest.raises(SpaceExhausted, match="1,152 designs were started"):
        moasha.ask()


def test_a_rival_that_is_not_installed_is_refused_with_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import rivals
    import samplers

    monkeypatch.setitem(rivals.PACKAGES, "nobody", ("no_such_module", "no-such-package"))
    with pytest.raises(rivals.RivalMissing, match=r"nobody: .* pip install no-such-package"):
        samplers.named("random,nobody")
    with pytest.raises(ValueError, match="--samplers guess: choose of"):
        samplers.named("guess")
