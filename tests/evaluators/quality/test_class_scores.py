"""Macro-F1, error and correlation are those of libraries, and a study can search for them."""

from pathlib import Path

import numpy as np
import optuna
import pytest
from desk import one_line
from scipy.stats import pearsonr
from sklearn.metrics import f1_score
from tiny import new_place

from evaluators.quality.class_scores import correlation, interval, macro_f1, score_measures
from search_space import errors as codes


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_macro_f1_is_that_of_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels, predicted = rng.integers(0, classes, (2, 200))
    expected = 100 * f1_score(labels, predicted, average="macro")
    assert macro_f1(labels, predicted, classes) == pytest.approx(expected)
    low, high = interval(lambda rows: macro_f1(labels[rows], predicted[rows], classes), 200)
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


def test_error_and_correlation_of_scores_have_intervals_around_them() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(-3, 3, 120)
    predicted = scores + rng.normal(0, 1, 120)
    mae, pearson = score_measures(predicted, scores)
    assert mae.value == pytest.approx(np.abs(predicted - scores).mean()) and mae.better == "lower"
    assert pearson.value == pytest.approx(pearsonr(predicted, scores).statistic)
    for each in (mae, pearson):
        assert each.low is not None and each.high is not None
        assert each.low < each.value < each.high


def test_what_does_not_vary_has_no_correlation() -> None:
    assert correlation(np.ones(4), np.arange(4.0)) == 0.0


def scored(folder: Path) -> None:
    """Texts in the layout of clips, whose words tell their scores."""
    rows = ["video_id,clip_id,text,label,mode"]
    for k, split in enumerate(("train", "valid", "test")):
        for n in range(42 if split == "train" else 21):
            score = n % 7 - 3 + 0.2 * (n % 3 - 1)
            score = min(3.0, max(-3.0, score))
            rows.append(f"v{k}-{n},1,{'dark ' * (n % 7 + 1)}picture,{score:.1f},{split}")
    (folder / "label.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def test_a_study_searches_for_error_and_correlation_of_seven_scores(tmp_path: Path) -> None:
    place = new_place(tmp_path / "place")
    scored(place.data)
    flags = ("--text-only", "--objective", "mae", "--objective", "correlation", "--trials", "2")
    done = place.finish(place.run(*flags))
    one_line(done, codes.USAGE, "negative, non-negative", "--score-classes 7")
    done = place.finish(place.run(*flags, "--score-classes", "7"))
    assert done.returncode == 0, done.stderr
    (name,) = optuna.study.get_all_study_names(place.url)
    trials = optuna.load_study(study_name=name, storage=place.url).get_trials()
    complete = [t for t in trials if t.state is optuna.trial.TrialState.COMPLETE]
    assert complete and all(0 < t.values[2] < 3 and -1 <= t.values[3] <= 1 for t in complete)


def test_classes_without_scores_are_refused(tmp_path: Path) -> None:
    place = new_place(tmp_path / "place")
    done = place.finish(place.run("--score-classes", "7", "--trials", "1"))
    assert done.returncode != 0 and "--score-classes 7 needs scores" in done.stderr
    done = place.finish(place.run("--score-classes", "5", "--trials", "1"))
    one_line(done, codes.USAGE, "--score-classes 5: give 2 or 7")
    done = place.finish(place.run("--objective", "mae", "--trials", "1"))
    one_line(done, codes.USAGE, "mae: the classes of these data are no numbers", "leave it out")
