"""What the study `superfuse` found, in sentences, and what of it is as published."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import atan, isnan, pi

from evaluators.superfuse.names import Fusion
from studies.results.outcome import Value
from studies.superfuse.outcome import (
    REFERENCE_FACTOR,
    Cell,
    Seeds,
    Superfused,
    TaskFacts,
    decided,
    difference,
    mean,
    seconds,
)

SOURCE = "“Encoding Domain Insights into Multi-modal Fusion”"
PUBLISHED_LARGEST = 327_700


def _fall(cell: Cell) -> Seeds:
    return cell.fall("text", REFERENCE_FACTOR)


def _share_lost(cell: Cell) -> Seeds:
    return cell.share_lost("text", REFERENCE_FACTOR)


@dataclass(frozen=True)
class Claim:
    """What the source reports of noise on text: one fusion has more of a figure (sign 1) than the
    others, or less (-1)."""

    fusion: Fusion
    words: str
    figure: Callable[[Cell], Seeds]
    unit: str
    sign: int


CLAIMS = (
    Claim("product", "product falls most", _fall, "points", 1),
    Claim("tensor", "tensor falls least in relative terms", _share_lost, "% of clean accuracy", -1),
)


@dataclass(frozen=True)
class Finding:
    """Sentences about one task at one training size."""

    title: str
    lines: tuple[str, ...]


def findings(outcome: Superfused) -> tuple[Finding, ...]:
    """What came of each task: clean, then under noise, beside what the source reports."""
    return tuple(
        Finding(title_of(task, size), tuple(_found(outcome, task, size)))
        for task in outcome.tasks
        for size in outcome.shown_sizes(task.name)
    )


def title_of(task: TaskFacts, size: int) -> str:
    """Of what is shown of one task at one training size."""
    return f"{task.name.capitalize()} task, {size:,} training pairs"


def _found(outcome: Superfused, task: TaskFacts, size: int) -> Iterator[str]:
    held = outcome.at(task.name, size)
    clean = ", ".join(f"{name} {percent(mean(cell.test))}" for name, cell in held.items())
    yield f"Clean: {clean}; the most frequent class {task.majority_percent:.1f} %."
    if "product" in held:
        apart = (
            f"minus {name} {points(difference(held['product'], cell, lambda c: c.test))}"
            for name, cell in held.items()
            if name != "product"
        )
        yield f"Product {', '.join(apart)}, paired over seeds."
    falls = ", ".join(
        f"{points(mean(_fall(cell)))} from {name}, "
        f"{number(mean(_share_lost(cell)).value)} % of its accuracy"
        for name, cell in held.items()
    )
    yield f"{100 * REFERENCE_FACTOR:.0f} % noise on text takes {falls}."
    for claim in CLAIMS:
        if claim.fusion in held:
            yield f"The source reports: {claim.words}. Here: {_beside(claim, held)}."
    if outcome.drawn:
        turned = 100 * atan(REFERENCE_FACTOR) / pi
        yield (
            f"Such noise changes the sign of {number(turned)} % of the dot products of drawn "
            "pairs, so a network that computes them exactly loses as much. In the source product "
            "falls from about 75 % to about 55 %, which noise of that size cannot do to drawn "
            "pairs."
        )
    idle = [name for name, c in held.items() if (mean(c.test).low or 0.0) <= task.majority_percent]
    if idle:
        yield (
            "Not significantly above the most frequent class, so noise has nothing to take from: "
            f"{', '.join(idle)}."
        )


def _beside(claim: Claim, held: Mapping[Fusion, Cell]) -> str:
    parts = []
    for other, cell in held.items():
        if other == claim.fusion:
            continue
        value = difference(held[claim.fusion], cell, claim.figure)
        as_there = "as reported" if claim.sign * value.value > 0 else "not as reported"
        parts.append(
            f"against {other} {points(value, claim.unit)}, "
            + (as_there if decided(value) else "not decided")
        )
    return "; ".join(parts)


def percent(value: Value) -> str:
    """`94.5 % (94.2 to 94.8)`."""
    return f"{number(value.value)} % ({number(value.low)} to {number(value.high)})"


def area(value: Value) -> str:
    """`0.982 (0.979-0.985)`; `-` where there is no curve."""
    if isnan(value.value):
        return "-"
    return f"{value.value:.3f} ({value.low:.3f}-{value.high:.3f})"


def points(value: Value, unit: str = "points") -> str:
    """`44.6 points (44.2 to 45.0)`."""
    return f"{number(value.value)} {unit} ({number(value.low)} to {number(value.high)})"


def number(value: float | None) -> str:
    """One digit after the point, and no minus before a zero."""
    return "?" if value is None else f"{round(value, 1) + 0.0:.1f}"


def as_published(outcome: Superfused) -> tuple[str, ...]:
    """What is done as the source has it."""
    config = outcome.config
    return (
        "The fusions: concatenation (2N inputs), product (2N), outer product (N × M); after them a "
        f"linear layer to {config.hidden} features, a linear layer and a softmax.",
        f"AdamW at {config.learning_rate:g}, weight decay 0, at most {config.epochs} epochs, the "
        "best by validation accuracy.",
        f"Sizes double; {outcome.seeds} networks of each, every one with its own start and its own "
        "rows in its own order, a larger set holding the smaller ones.",
        "Noise: n ~ N(mean, standard deviation) of a modality's embeddings in the training set, "
        "scaled by a factor of 0 to 0.95 and added: to text, to image, to both.",
    )


def not_as_published(outcome: Superfused) -> tuple[str, ...]:
    """What differs from the source, and what it leaves open and was chosen here."""
    config = outcome.config
    largest = max(cell.size for cell in outcome.cells)
    widths = sorted({task.widths for task in outcome.tasks})
    wide = " and ".join(
        f"{text}" if text == vision else f"{text} and {vision}" for text, vision in widths
    )
    between = (
        "nothing stands"
        if config.activation == "none"
        else "a ReLU stands, which it does not name,"
    )
    what = "drawn unit vectors" if outcome.drawn else "embeddings of other encoders or data"
    done = [f"on {outcome.projected} random directions"] if outcome.projected else []
    done += ["less each modality's training mean"] if outcome.centred else []
    return (
        f"The source has CLIP embeddings of tweets, 768 wide; these are {what}, {wide} wide"
        + f"{', '.join(['', *done])}.",
        f"Its sizes end at {PUBLISHED_LARGEST:,} pairs, these at {largest:,}.",
        "It shows the best epoch's validation accuracy, which its own choice makes too high; shown "
        "here is that epoch's accuracy on test, and the former in the table.",
        "Its bars are standard deviations between networks; these are 95 % intervals of their "
        "mean, over seeds alone: other data are not in them.",
        "Its ROC curves are of one network each; these are means over seeds of the rate of true "
        "positives at each rate of false positives. The positive class is the second of two; of "
        "more classes, each against the rest, averaged.",
        "It tests one checkpoint of each fusion under noise; here all networks of a size are, each "
        "with noise of its own, which is drawn once and scaled.",
        f"It names no activation between the two linear layers: here {between} there. With none, "
        "concatenation adds up what text says and what the image says, and no size teaches it a "
        "dot product.",
        f"It names no batch size: {config.batch} pairs here, or a {config.steps}nd of the training "
        "set where that is more. It does not say whether mean and deviation of the noise are one "
        "for a modality or, as here, one for each feature, and takes them from the training set in "
        "one place, the test set in another: here from training.",
    )


def conditions(outcome: Superfused) -> dict[str, str]:
    """What the figures were made under, by label."""
    config, found = outcome.config, {}
    for task in outcome.tasks:
        rows = ", ".join(f"{count:,} {split}" for split, count in task.rows.items())
        found[f"{task.name} task"] = (
            f"{len(task.classes)} classes ({', '.join(task.classes)}); pairs: {rows}; text "
            f"{task.widths[0]} wide, vision {task.widths[1]}"
        )
    found["seeds"] = ", ".join(str(each.seed) for each in outcome.cells[0].trained)
    found["training"] = (
        f"AdamW at {config.learning_rate:g}, {config.epochs} epochs, {config.hidden} features, "
        f"activation {config.activation}, batch {config.batch} or a {config.steps}nd of the "
        "training set"
    )
    train_s, noise_s = seconds(outcome.cells)
    found["processor time"] = (
        f"{train_s:,.0f} s for training, {noise_s:,.1f} s for the noise curves "
        f"({100 * noise_s / train_s:.1f} %), when these networks were made"
    )
    return found
