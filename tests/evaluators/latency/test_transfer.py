"""A new device's model begins from another device's, as far as the two are alike."""

import numpy as np
import pytest
from planted_devices import READ, candidates, error_of, features, planted, read

from evaluators.latency.model import LatencyModel
from evaluators.latency.transfer import leave_one_out, spearman, transferred
from search_space.design.genotype import Genotype

FEW = 6


def models(*seeds: int) -> dict[str, LatencyModel]:
    designs = candidates()[:READ]
    return {
        f"device {seed}": LatencyModel.fit(features(), read(planted(seed), designs, seed))
        for seed in seeds
    }


def twin(genotype: Genotype) -> float:
    """A device three times as slow as the planted device 0 at every part alike."""
    return 3 * planted(0)(genotype)


def test_the_device_that_a_new_one_is_like_is_found_and_helps() -> None:
    others = models(1, 0)
    readings = read(twin, candidates()[READ : READ + FEW], 7)
    found = transferred(features(), readings, others)
    assert found.source == "device 0" and found.readings == FEW
    rest = candidates()[READ + FEW :]
    alone = LatencyModel.fit(features(), readings)
    errors = [error_of(model, twin, rest) for model in (found.model, alone)]
    assert errors[0] < errors[1] and errors[0] < 0.1


def test_unlike_devices_do_not_make_the_model_worse() -> None:
    worse = []
    for seed in range(3, 5):
        device = planted(seed)
        readings = read(device, candidates()[READ : READ + 10], seed)
        found = transferred(features(), readings, models(0))
        alone = LatencyModel.fit(features(), readings)
        rest = candidates()[READ + 10 :]
        worse.append(error_of(found.model, device, rest) / error_of(alone, device, rest))
    assert np.mean(worse) < 1.1


def test_the_leave_one_out_error_is_that_of_designs_not_read() -> None:
    others = models(0)
    readings = read(twin, candidates()[READ : READ + 8], 3)
    found = transferred(features(), readings, others)
    told = leave_one_out(found, readings, others)
    assert told is not None and told.readings == 8
    unseen = error_of(found.model, twin, candidates()[READ + 8 :])
    assert unseen / 3 < told.error < 3 * unseen + 0.02
    assert told.spearman is not None and told.spearman > 0.7
    assert leave_one_out(found, readings[:3], others) is None


def test_without_readings_or_other_devices_it_is_the_model_of_either() -> None:
    costs = features().of(candidates()[:5])
    others = models(0)
    unread = transferred(features(), (), others)
    assert unread.source == "device 0" and unread.readings == 0
    before = LatencyModel.fit(features(), (), others["device 0"])
    assert np.array_equal(unread.model.predict(costs)[0], before.predict(costs)[0])
    readings = read(twin, candidates()[:FEW])
    alone = transferred(features(), readings, {})
    assert alone.source == "" and alone.likeness == 1.0
    expected = LatencyModel.fit(features(), readings).predict(costs)[0]
    assert np.array_equal(alone.model.predict(costs)[0], expected)


def test_ranks_of_equal_figures_are_not_told() -> None:
    assert spearman(np.array([1.0, 1.0]), np.array([1.0, 2.0])) is None
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])) == pytest.approx(0.5)
