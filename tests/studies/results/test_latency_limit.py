"""A finished study is read under another latency limit than its own."""

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from stored_study import stored_study

from studies.cli.study import show_study
from studies.config.usage import UsageError
from studies.results.study_outcome import SUBJECT, outcome_of


@pytest.fixture
def study(tmp_path: Path) -> Iterator[optuna.Study]:
    storage = stored_study(tmp_path)
    (name,) = optuna.get_all_study_names(storage)
    yield optuna.load_study(study_name=name, storage=storage)


def latencies(study: optuna.Study, limit_ms: float | None) -> list[float]:
    return [row.latency.value for row in outcome_of(study, limit_ms).front if row.latency]


def test_a_lower_limit_takes_slower_designs_off_the_front(study: optuna.Study) -> None:
    whole = latencies(study, None)
    limit = sorted(whole)[0] * 1.001
    outcome = outcome_of(study, limit)
    assert len(whole) > 1 and latencies(study, limit) == [min(whole)]
    assert outcome.latency_limit_ms == limit
    over = [row for row in outcome.rows if row.state == "infeasible"]
    assert over and all("over the latency limit of" in row.reason for row in over)
    assert not any("searched under" in caution for caution in outcome.cautions)


def test_a_higher_limit_than_the_studys_own_says_what_may_be_missing(study: optuna.Study) -> None:
    study.set_user_attr(SUBJECT, {**study.user_attrs[SUBJECT], "latency_limit_ms": 1.0})
    said = " ".join(outcome_of(study, 2.0).cautions)
    assert "searched under a latency limit of 1 ms" in said and "may be missing" in said
    assert "searched under" not in " ".join(outcome_of(study, 0.5).cautions)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("inf"), float("nan")])
def test_a_limit_is_milliseconds_above_0(limit: float) -> None:
    with pytest.raises(UsageError, match="give milliseconds above 0"):
        show_study(None, None, None, True, None, limit)
