"""What is said of latencies that contradict each other."""

from dataclasses import replace

from search_space.design.genotype import FusionPoint, Genotype
from studies.results.cautions import cautions_of
from studies.results.outcome import DesignResult, Value

FUSED = Genotype("bert", "vit", 16, (FusionPoint(3, 3),))
TEXT = Genotype("bert", None, 16, (FusionPoint(3, 0),))
VISION = Genotype(None, "vit", 0, (FusionPoint(0, 3),))


def row(name: str, genotype: Genotype, ms: float, number: int | None = None) -> DesignResult:
    latency = Value(ms, 0.99 * ms, 1.01 * ms)
    return DesignResult(
        number,
        "complete",
        name,
        name=name,
        accuracy=Value(80.0, 75.0, 85.0),
        latency=latency,
        genotype=genotype,
        timing="alone",
    )


def said(fused_ms: float, text: Genotype = TEXT, own: Genotype = FUSED) -> list[str]:
    references = (row("text-only", text, 2.0), row("vision-only", VISION, 3.0))
    found = cautions_of((row("late", own, fused_ms, 0),), {}, references)
    return [text for text in found if "contradict" in text]


def test_a_design_is_not_faster_than_a_network_that_it_contains() -> None:
    (caution,) = said(1.0)
    assert "late contains text-only and was read 2.00 times as fast" in caution
    assert "--retime" in caution


def test_a_design_that_takes_about_the_sum_of_its_encoders_is_not_mentioned() -> None:
    assert said(5.0) == [] and said(9.0) == []


def test_a_design_that_takes_twice_the_sum_of_its_encoders_is_mentioned() -> None:
    (caution,) = said(12.0)
    assert "over twice as long as networks of its encoders alone (12" in caution


def test_networks_that_are_no_part_of_a_design_say_nothing_of_it() -> None:
    longer = Genotype("bert", None, 32, (FusionPoint(3, 0),))
    shallow = Genotype("bert", "vit", 16, (FusionPoint(2, 2),))
    assert said(2.5, longer) and "vision-only" in said(2.5, longer)[0]
    assert said(2.5, longer, shallow) == [] and said(1.0, own=shallow) == []


def test_a_design_that_a_later_trial_timed_again_is_cautioned_with_that_trial() -> None:
    first = replace(row("late", FUSED, 5.0, 0), state="unstable", reason="blocks 31 % apart")
    lost = replace(row("early", TEXT, 5.0, 1), state="unstable", reason="blocks 40 % apart")
    again, still = cautions_of((first, lost, row("late", FUSED, 5.0, 2)), {})
    assert again == (
        "1 trial had no stable latency and was timed again in a later trial: trial 0 as trial 2."
    )
    assert still.startswith("1 trial had no stable latency: on no front") and "early" in still
    (never,) = cautions_of((row("late", FUSED, 5.0, 0), replace(first, number=2)), {})
    assert never.startswith("1 trial had no stable latency: on no front"), "not timed after that"
