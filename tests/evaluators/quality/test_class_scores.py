"""Macro-F1 is that of scikit-learn, and a study can search for it."""

from pathlib import Path

import numpy as np
import optuna
import pytest
from sklearn.metrics import f1_score
from tiny import new_place

from evaluators.quality.class_scores import interval, macro_f1


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_macro_f1_is_that_of_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels, predicted = rng.integers(0, classes, (2, 200))
    expected = 100 * f1_score(labels, predicted, average="macro")
    assert macro_f1(labels, predicted, classes) == pytest.approx(expected)
    low, high = interval(labels, predicted, classes)
    assert low < expected < high


def test_a_class_that_is_never_predicted_counts_as_zero() -> None:
    labels = np.array([0, 0, 0, 1])
    assert macro_f1(labels, np.zeros(4, np.int64), 2) == pytest.approx(100 * (6 / 7) / 2)
    assert macro_f1(labels, labels, 3) == 100.0


def test_a_study_searches_for_macro_f1(tmp_path: Path) -> None:
    place = new_place(tmp_path / "place")
    done = place.finish(place.run("--objective", "macro-f1", "--trials", "2", "--json"))
    assert done.returncode == 0, done.stderr
    (name,) = optuna.study.get_all_study_names(place.url)
    for trial in optuna.load_study(study_name=name, storage=place.url).get_trials():
        if trial.state is optuna.trial.TrialState.COMPLETE:
            assert 0 < trial.values[2] <= 100
