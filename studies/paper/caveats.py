"""What stands against the published figures, computed from what is known: a line for each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluators.data import wilson
from evaluators.evaluation import Evaluation
from evaluators.statistics.paired import Correct, Paired
from search_space.design.genotype import Genotype
from search_space.design.rules import Shapes, fused_width
from search_space.space.paper import LATE_CLIPS, LATE_RIGHT, TEST_CLIPS
from studies.results import text as result_text
from studies.results.outcome import Value

SLICE = 0.2
"""Share of test that the late designs' published accuracy is from."""
SLICES = 2_000
SEED = 0


@dataclass(frozen=True)
class Caveat:
    """One line below the table, and its figures with units in their names."""

    name: str
    text: str
    figures: dict[str, float | int | str]


@dataclass(frozen=True)
class At:
    """A design's latency at a text length."""

    design: str
    tokens: int
    evaluation: Evaluation

    @property
    def ms(self) -> float:
        """The latency, which is there: the design is not infeasible."""
        return self.evaluation["latency_ms"].value


def slice_interval(correct: Correct, share: float = SLICE) -> Value:
    """Accuracy in percent over all samples, and what 95 % of random slices of a share of them say.

    right: (seeds, N); seeds are averaged. Slices are drawn without replacement, from a fixed seed.
    """
    samples = correct.mean(0)
    size = max(1, round(share * len(samples)))
    generator = np.random.default_rng(SEED)
    means = [generator.choice(samples, size, replace=False).mean() for _ in range(SLICES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Value(100 * float(samples.mean()), 100 * float(low), 100 * float(high))


def subset_of_test(late: str = "", correct: Correct | None = None) -> Caveat:
    """How far an accuracy on so few clips can be from that on all of test."""
    share = wilson(LATE_RIGHT, LATE_CLIPS)
    text = (
        f"Subset of test: the paper's late accuracy is of {LATE_CLIPS} of {TEST_CLIPS} test clips. "
        f"{LATE_RIGHT} right are {100 * share.value:.1f} %, with 95 % confidence "
        f"{100 * share.low:.1f} to {100 * share.high:.1f} %."
    )
    figures: dict[str, float | int | str] = {
        "published_clips": LATE_CLIPS,
        "published_right": LATE_RIGHT,
        "published_percent": 100 * share.value,
        "published_low_percent": 100 * share.low,
        "published_high_percent": 100 * share.high,
    }
    if correct is not None:
        ours = slice_interval(correct)
        assert ours.low is not None and ours.high is not None
        text += (
            f" Here {late} reads {ours.value:.1f} % on all {correct.shape[1]} test samples, and "
            f"{ours.low:.1f} to {ours.high:.1f} % on 95 % of random slices of 20 % of them."
        )
        figures |= {
            "late": late,
            "test_samples": correct.shape[1],
            "test_percent": ours.value,
            "slices_low_percent": ours.low,
            "slices_high_percent": ours.high,
        }
    return Caveat("subset of test", text, figures)


def idle_parameters(genotype: Genotype, shapes: Shapes) -> int:
    """Query and key weights and biases of attention blocks over one vector: none ever learns."""
    if genotype.attention_over != "pooled":
        return 0
    width = fused_width(genotype, genotype.points[-1], shapes)
    return genotype.attention_blocks * 2 * (width * width + width)


def attention_over_one_key(
    genotype: Genotype, shapes: Shapes, plain: At, folded: At | None
) -> Caveat:
    """What the attention blocks over one vector are, and what folding them brings."""
    idle = idle_parameters(genotype, shapes)
    total = int(plain.evaluation["parameters"].value)
    text = (
        f"Attention over one key: softmax over one score is 1, so {genotype.attention_blocks} "
        f"blocks of {plain.design} cannot attend. {result_text.count(idle)} query and key "
        f"parameters of its {result_text.count(total)} ({100 * idle / total:.1f} %) never learn."
    )
    figures: dict[str, float | int | str] = {
        "design": plain.design,
        "blocks": genotype.attention_blocks,
        "idle_parameters": idle,
        "parameters": total,
        "idle_percent": 100 * idle / total,
    }
    if folded is not None:
        text += (
            f" Folded to one linear map a block, the same outputs take {result_text.ms(folded.ms)} "
            f"instead of {result_text.ms(plain.ms)} ms at {plain.tokens} tokens."
        )
        figures |= {"text_tokens": plain.tokens, "ms": plain.ms, "folded_ms": folded.ms}
    return Caveat("attention over one key", text, figures)


def padded_to(longest: int, pairs: Sequence[tuple[At, At]]) -> Caveat:
    """What the padding costs: each pair is a design at its own length and at the data's longest."""
    said = [
        f"{short.design} takes {result_text.ms(short.ms)} ms there instead of "
        f"{result_text.ms(long.ms)} ({result_text.ms(long.ms / short.ms)} times as fast)"
        for long, short in pairs
    ]
    full = pairs[0][0].tokens
    figures: dict[str, float | int | str] = {"longest_text_tokens": longest, "text_tokens": full}
    for long, short in pairs:
        figures |= {f"{long.design}_ms": long.ms, f"{long.design}_cut_ms": short.ms}
    text = (
        f"Padding to {full} tokens: the longest text of these data has {longest}. "
        f"{'; '.join(said)}."
    )
    return Caveat("padding", text, figures)


def confounded_training(
    protocol: str, late: str, early: str, here: Paired, other: Paired | None
) -> Caveat:
    """What training by one protocol makes of late against early; `here`: late less early."""
    text = (
        "Confounded training: the paper trained late otherwise than early (rate, epochs, trunks "
        f"tuned first). Under --protocol {protocol} {late} less {early} is "
        f"{_points(here)} on the same samples"
    )
    figures: dict[str, float | int | str] = {"late": late, "early": early}
    figures |= _figures(protocol, here)
    name = "paper" if protocol == "fair" else "fair"
    if other is None:
        text += (
            f"; the same under --protocol {name} (for a study: a new one, with another --name) "
            "shows what training alone changes."
        )
    else:
        moved = here.points - other.points
        text += f", under {name} {_points(other)}: training alone moves it by {moved:+.1f}."
        figures |= {**_figures(name, other), "moved_points": moved}
    return Caveat("confounded training", text, figures)


def _points(points: Paired) -> str:
    return f"{points.points:+.1f} points ({points.low:+.1f} to {points.high:+.1f})"


def _figures(protocol: str, points: Paired) -> dict[str, float | int | str]:
    return {
        f"{protocol}_points": points.points,
        f"{protocol}_low_points": points.low,
        f"{protocol}_high_points": points.high,
    }
