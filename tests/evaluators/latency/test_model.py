"""A latency model learns a device from few readings, says how sure it is, and chooses what to time.

Planted devices: latencies are made from the design by a rule that is not the model's own.
"""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planted_devices import READ, Device, candidates, error_of, features, planted, read, space
from scipy.stats import kendalltau

from evaluators.latency.features import LatencyFeatures
from evaluators.latency.model import LatencyModel, TimedDesign
from evaluators.latency.trunk_work import TrunkWork
from evaluators.onnx.rewriting import Rewriting
from search_space.design.genotype import FusionPoint, Genotype
from search_space.network.rewrites import ALL, NONE


def learnt(device: Device, count: int, seed: int = 0) -> tuple[LatencyModel, tuple[Genotype, ...]]:
    """The model after `count` readings that it chose, and the designs that it did not see."""
    designs = candidates()
    before = LatencyModel.fit(features(), [])
    chosen = before.next_to_time(features().of(designs), count)
    model = LatencyModel.fit(features(), read(device, [designs[k] for k in chosen], seed))
    return model, tuple(g for k, g in enumerate(designs) if k not in chosen)


def test_twenty_readings_give_the_latency_of_other_designs_within_five_percent() -> None:
    errors = []
    for seed in range(6):
        device = planted(seed)
        model, unseen = learnt(device, READ, seed)
        errors.append(error_of(model, device, unseen))
        said, _ = model.predict(features().of(unseen))
        assert kendalltau(said, [device(g) for g in unseen]).statistic > 0.85
    assert np.mean(errors) < 0.05
    assert max(errors) < 0.07


def test_about_95_percent_of_unseen_readings_lie_within_two_deviations() -> None:
    within: list[bool] = []
    for seed in range(12):
        device = planted(seed)
        model, unseen = learnt(device, READ, seed)
        said, deviation = model.predict(features().of(unseen))
        seen = np.array([one.ms for one in read(device, unseen, seed + 100)])
        within += list(np.abs(np.log(seen / said)) < 2 * deviation)
    assert 0.90 <= np.mean(within) <= 0.995


def test_more_readings_give_a_smaller_error_and_a_smaller_deviation() -> None:
    errors, deviations = [], []
    for count in (4, 12, 60):
        found = [(learnt(planted(seed), count, seed), planted(seed)) for seed in range(4)]
        errors.append(np.mean([error_of(m, device, unseen) for (m, unseen), device in found]))
        everywhere = features().of(candidates())
        deviations.append(np.mean([m.predict(everywhere)[1].mean() for (m, _), _ in found]))
    assert errors[0] > errors[1] > errors[2]
    assert deviations[0] > deviations[1] > deviations[2]


def test_four_readings_are_of_use_and_their_uncertainty_covers_the_error() -> None:
    device = planted(1)
    model, unseen = learnt(device, 4)
    said, deviation = model.predict(features().of(unseen))
    truth = np.array([device(g) for g in unseen])
    assert np.abs(said / truth - 1).mean() < 0.35
    assert (np.abs(np.log(truth / said)) < 2 * deviation).mean() > 0.85


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=12), st.floats(0, 1))
def test_latencies_are_positive_and_finite_whatever_was_read(
    ms: list[float], half_width: float
) -> None:
    readings = [TimedDesign(g, one, half_width) for g, one in zip(candidates(), ms, strict=False)]
    said, deviation = LatencyModel.fit(features(), readings).predict(features().of(candidates()))
    assert (said > 0).all() and np.isfinite(said).all()
    assert (deviation > 0).all() and np.isfinite(deviation).all()


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(st.permutations(range(12)))
def test_the_order_of_readings_does_not_matter(order: list[int]) -> None:
    readings = read(planted(2), candidates()[:12])
    one = LatencyModel.fit(features(), readings)
    other = LatencyModel.fit(features(), [readings[k] for k in order])
    costs = features().of(candidates())
    assert np.array_equal(one.predict(costs), other.predict(costs))


def test_a_device_twice_as_fast_is_predicted_twice_as_fast() -> None:
    device = planted(3)
    costs = features().of(candidates())
    slow = LatencyModel.fit(features(), read(device, candidates()[:READ])).predict(costs)[0]
    halved = read(lambda g: device(g) / 2, candidates()[:READ])
    assert LatencyModel.fit(features(), halved).predict(costs)[0] == pytest.approx(
        slow / 2, rel=0.03
    )


def test_the_same_design_read_twice_counts_as_two_readings() -> None:
    readings = read(planted(4), candidates()[:6])
    costs = features().of([candidates()[0]])
    once = LatencyModel.fit(features(), readings)
    again = LatencyModel.fit(features(), [*readings, *[readings[0]] * 5])
    said, _ = again.predict(costs)
    assert abs(np.log(said[0] / readings[0].ms)) <= abs(
        np.log(once.predict(costs)[0][0] / readings[0].ms)
    )
    assert np.isfinite(again.predict(features().of(candidates()))).all()


def test_a_device_of_constant_latency_is_learnt_as_constant() -> None:
    model = LatencyModel.fit(features(), [TimedDesign(g, 5.0, 0.02) for g in candidates()[:READ]])
    said, _ = model.predict(features().of(candidates()[READ:]))
    assert np.abs(said / 5.0 - 1).mean() < 0.15


def test_one_reading_taken_while_others_ran_does_not_bend_the_model() -> None:
    device = planted(5)
    readings = read(device, candidates()[:READ])
    corrupted = [replace(readings[0], ms=3 * readings[0].ms), *readings[1:]]
    unseen = candidates()[READ:]
    assert error_of(LatencyModel.fit(features(), corrupted), device, unseen) < 0.08


def test_a_precision_that_was_never_read_is_less_sure_than_one_that_was() -> None:
    device, designs = planted(0), candidates("fp32")
    model = LatencyModel.fit(features(), read(device, designs[:READ]))
    assert error_of(model, device, designs[READ:]) < 0.10
    _, read_one = model.predict(features().of(designs[READ:]))
    _, other = model.predict(features().of(candidates("int8-dynamic")[READ:]))
    assert other.mean() > 1.5 * read_one.mean()


def test_what_to_time_is_chosen_alike_every_time_and_never_twice() -> None:
    costs = features().of(candidates())
    model = LatencyModel.fit(features(), read(planted(0), candidates()[:5]))
    chosen = model.next_to_time(costs, 10)
    assert chosen == model.next_to_time(costs, 10)
    assert len(set(chosen)) == 10
    assert model.next_to_time(costs, 3) == chosen[:3]
    assert sorted(model.next_to_time(costs[:4], 10)) == [0, 1, 2, 3]
    assert model.next_to_time(costs[:0], 10) == []


def test_of_very_many_candidates_some_are_drawn_by_the_seed() -> None:
    costs = np.tile(features().of(candidates()), (12, 1))
    model = LatencyModel.fit(features(), [])
    assert model.next_to_time(costs, 4, seed=1) == model.next_to_time(costs, 4, seed=1)
    assert max(model.next_to_time(costs, 4, seed=1)) < len(costs)


def test_chosen_readings_teach_more_than_the_same_number_at_random() -> None:
    chosen, drawn = [], []
    for seed in range(6):
        device = planted(seed)
        model, _ = learnt(device, 8, seed)
        _, deviation = model.predict(features().of(candidates()))
        picked = random.Random(seed).sample(candidates(), 8)
        other = LatencyModel.fit(features(), read(device, picked, seed))
        chosen.append(deviation.mean())
        drawn.append(other.predict(features().of(candidates()))[1].mean())
    assert np.mean(chosen) < np.mean(drawn)


def test_rewrites_count_as_the_graph_that_they_leave() -> None:
    written = LatencyFeatures(TrunkWork(space().encoders, space().shapes), Rewriting(NONE))
    design = next(g for g in candidates() if g.attention_blocks and g.attention_over == "pooled")
    assert written.of([design]).sum() > features().of([design]).sum()
    cut = Rewriting(ALL, lambda encoder: [16, 9])
    short = LatencyFeatures(TrunkWork(space().encoders, space().shapes), cut)
    longer = replace(design, text_tokens=64)
    assert np.array_equal(short.of([longer]), short.of([replace(design, text_tokens=16)]))
    assert features().of([longer]).sum() > short.of([longer]).sum()


def test_a_design_of_one_modality_has_the_costs_of_that_one_alone() -> None:
    both = next(g for g in candidates() if g.points[-1].operator == "concatenation")
    tap = both.deepest_tap("text")
    alone = replace(
        both,
        vision_encoder=None,
        points=(FusionPoint(tap, 0),),
        attention_blocks=0,
        attention_over="pooled",
        vision_pooling="mean",
    )
    whole, part = features().of([both, alone])
    assert 0 < part.sum() < whole.sum()
    assert np.count_nonzero(part) < np.count_nonzero(whole)


def test_an_unknown_encoder_is_refused_in_one_line() -> None:
    stranger = replace(candidates()[0], text_encoder="other-bert")
    with pytest.raises(ValueError, match="text encoder 'other-bert' is unknown") as refused:
        features().of([stranger])
    assert "choose one of tiny-bert" in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="other-bert"):
        LatencyModel.fit(features(), [TimedDesign(stranger, 1.0, 0.1)])


@pytest.mark.parametrize(
    ("ms", "half_width", "said"),
    [(0.0, 0.1, "0.0 ms"), (float("nan"), 0.1, "nan ms"), (1.0, -0.1, "-0.1")],
)
def test_readings_that_are_none_are_refused(ms: float, half_width: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TimedDesign(candidates()[0], ms, half_width)


@pytest.mark.parametrize("from_another", [False, True])
def test_the_parts_of_a_design_add_up_to_its_prediction(from_another: bool) -> None:
    device, designs = planted(3), candidates()
    other = LatencyModel.fit(features(), read(planted(4), designs[:READ]))
    readings = [TimedDesign(g, 3 * device(g), 0.01) for g in designs[:READ]]
    model = LatencyModel.fit(features(), readings, other if from_another else None)
    costs = features().of(designs)
    for parts, expected in zip(model.by_owner(costs), model.predict(costs)[0], strict=True):
        assert sum(parts.values()) == pytest.approx(expected)
        assert parts.keys() > {"fusion", "network"} and all(ms > 0 for ms in parts.values())


@pytest.mark.parametrize("seed", range(3))
def test_the_model_of_another_device_is_a_better_start_than_none(seed: int) -> None:
    """A device three times as slow, whose layers differ by a fifth in how they compare."""
    first, designs = planted(seed), candidates()
    other = LatencyModel.fit(features(), read(first, designs[:READ]))

    def second(genotype: Genotype) -> float:
        return 3 * first(genotype) * 1.2 ** (genotype.deepest_tap("text") / 3)

    few, rest = designs[READ : READ + 2], designs[READ + 2 :]
    alone, informed = (
        LatencyModel.fit(features(), read(second, few), start) for start in (None, other)
    )
    assert error_of(informed, second, rest) < error_of(alone, second, rest)
    # How far the new device may differ is not taken to be known.
    unread = LatencyModel.fit(features(), (), other)
    assert unread.predict(features().of(list(rest)))[1].mean() > 0.5
