"""What a study came to, as plain values: everything that screen, page and JSON show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from evaluators.latency.readings import Reading
from studies.results.objectives import ACCURACY, LATENCY, Goals, Objective

if TYPE_CHECKING:  # they load NumPy, and commands that show no study start without
    from evaluators.statistics.paired import Correct, Paired
    from search_space.design.genotype import Genotype

State = Literal["complete", "stopped", "infeasible", "unstable", "untrained", "failed"]
Split = Literal["valid", "test"]
Timing = Literal["alone", "shared"]
Kind = Literal["on the front", "dominated", "not decidable"]


@dataclass(frozen=True)
class Value:
    """One figure and, where known, the bounds that hold it with 95 % confidence."""

    value: float
    low: float | None = None
    high: float | None = None

    @staticmethod
    def kept(source: Mapping[str, Any], name: str) -> Value | None:
        """The figure that is kept under this name as (value, low, high); None where none is."""
        return Value(*source[name]) if name in source else None


@dataclass(frozen=True)
class Turns:
    """Latencies of one design that were read in turns with those of others, at a study's end.

    session: readings of other designs that have the same number are of the same rounds.
    readings: one a round; None where the device had no stable one.
    """

    session: int
    readings: tuple[Reading | None, ...]

    @property
    def stable(self) -> tuple[Reading, ...]:
        """The readings that there are: those that no load disturbed, or all where each was."""
        found = [reading for reading in self.readings if reading is not None]
        return tuple([reading for reading in found if not reading.crowded] or found)

    @property
    def latency(self) -> Value | None:
        """The median of the stable readings, from the least bound to the greatest; None of none."""
        stable = self.stable
        if not stable:
            return None
        return Value(
            median(each.median_ms for each in stable),
            min(each.low_ms for each in stable),
            max(each.high_ms for each in stable),
        )

    @property
    def tail(self) -> dict[str, float]:
        """Of single runs, in ms: medians of `p95`, `p99` and `jitter` over the stable readings."""
        stable = self.stable
        names = stable[0].tail if stable else ()
        return {name: median(each.tail[name] for each in stable) for name in names}

    @property
    def crowded(self) -> str:
        """Which load disturbed the last reading, if it disturbed all; else empty."""
        return self.stable[-1].crowded if self.stable else ""


SEEDS, USE, SETS = "seeds", "use_by_shuffling", "set_scores"
"""Of a design's kept test figures: percent of each seed's training; what the design uses; of
multi-label data scores of sets of classes."""


@dataclass(frozen=True)
class ModalityUse:
    """What a design uses, on test; `evaluators.quality.modality_use` says how each figure is found.

    By modality, in percent points with bounds: its Shapley value, and what shuffling it costs. By
    modality, in percent: what is left without it, and in ms, where it was timed, what a graph takes
    that runs without it. chance: percent right with all shuffled, over which the Shapley values add
    up to the accuracy. ece: expected calibration error, 0 to 1.
    """

    shapley: Mapping[str, Value]
    dropped: Mapping[str, Value]
    without: Mapping[str, float]
    chance: float
    ece: float
    latency_without: Mapping[str, Value] = field(default_factory=dict)

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> ModalityUse:
        """What `dataclasses.asdict` made into `fields`."""
        valued = ("shapley", "dropped", "latency_without")
        values = {n: {m: Value(**v) for m, v in fields[n].items()} for n in valued}
        return ModalityUse(**{**fields, **values})

    @staticmethod
    def kept(figures: Mapping[str, Any] | None) -> ModalityUse | None:
        """What is kept as measures by name, each (value, low, high); None where nothing is."""
        if figures is None:
            return None

        def by_modality(what: str) -> dict[str, Value]:
            found = {name: name.removeprefix(what) for name in figures if name.startswith(what)}
            return {modality: Value(*figures[name]) for name, modality in found.items()}

        return ModalityUse(
            by_modality("shapley_"),
            by_modality("drop_shuffled_"),
            {m: value.value for m, value in by_modality("accuracy_without_").items()},
            figures["accuracy_shuffled_all"][0],
            figures["ece"][0],
            by_modality("latency_without_"),
        )


@dataclass(frozen=True)
class TrialTimes:
    """When a trial ended and where its time went, in seconds.

    ended_s: from the start of the study to the end of the trial, without the time in which no trial
    ran. took_s: from its start to its end. stages: by stage, as far as recorded.
    """

    ended_s: float
    took_s: float
    stages: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class DesignResult:
    """One trial, or one unimodal reference (which has no number: it is outside the search).

    accuracy, accuracy_nonzero, test_accuracy, test_accuracy_nonzero: percent of samples, the first
    two on validation; the last two are means over `test_seeds`, the percentages that the trainings
    of each seed reached. latency: ms of one inference. `name` is that of a seeded design or
    reference, else empty. `adapted` says how a published design was brought onto these encoders.
    `reason` says why a trial is infeasible, unstable (its latency could not be read well enough to
    be compared), stopped (before it was trained or timed, since others promise more), untrained (it
    gives one class to every sample) or failed. did_not_train: why its accuracy says little of the
    design; empty where training worked. probe_r2: percent of the spread that the probe explains.
    predicted_latency: ms that a design was taken to need before it was timed, if it was. `fidelity`
    says how it was trained, `shortened` what a bound on training took from it, `folded` which
    attention blocks cannot attend and were timed in a simpler form, `crowded` which load took
    processors from it while it was timed, `device` by which device it was timed, `timing` with what
    care: a board that did nothing else, or a machine that did; where it is not kept, the latter.
    turns: the readings of the study's end, from which `latency` then comes; latency_in_search: the
    one by which the search chose, where that was another. tail: of single runs in ms, `p95`, `p99`
    and `jitter` (mean step from run to run), where recorded. times: of a trial. genotype: the
    design itself, where the trial had one. parts: ms by encoder, of the fusion with the head
    (`fusion`) and of what every inference takes (`network`), as a model estimates them. timed_as:
    number of the trial that timed it at the end. boards: `device` and `crowded` on the boards
    beside the first one, by board, whose latencies are in `more`. use: what the trained design uses
    of each modality, where that was looked at. more: values of further objectives, by name, as far
    as they are known. test_sets: of multi-label data, scores of sets of classes on test, in percent
    by the name of the measure, of the first seed's training.
    """

    number: int | None
    state: State
    design: str
    params: Mapping[str, str | int] = field(default_factory=dict)
    name: str = ""
    adapted: str = ""
    accuracy: Value | None = None
    accuracy_nonzero: Value | None = None
    test_accuracy: Value | None = None
    test_accuracy_nonzero: Value | None = None
    test_seeds: tuple[float, ...] = ()
    use: ModalityUse | None = None
    latency: Value | None = None
    turns: Turns | None = None
    latency_in_search: Value | None = None
    probe_r2: Value | None = None
    predicted_latency: Value | None = None
    parameters: int | None = None
    macs: int | None = None
    onnx_bytes: int | None = None
    fidelity: str = ""
    shortened: str = ""
    did_not_train: str = ""
    folded: str = ""
    crowded: str = ""
    duplicate_of: int | None = None
    timed_as: int | None = None
    reason: str = ""
    device: str = ""
    timing: Timing = "shared"
    published_accuracy: float | None = None
    published_latency_ms: float | None = None
    more: Mapping[str, Value] = field(default_factory=dict)
    genotype: Genotype | None = None
    tail: Mapping[str, float] = field(default_factory=dict)
    compile_s: float | None = None
    times: TrialTimes | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    test_sets: Mapping[str, Value] = field(default_factory=dict)
    boards: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def figure(self, objective: Objective) -> Value | None:
        """The row's value of an objective, as far as it is known."""
        own = {ACCURACY.name: self.accuracy, LATENCY.name: self.latency}
        return own[objective.name] if objective.name in own else self.more.get(objective.name)

    @property
    def label(self) -> str:
        """What people call it: its name, or `trial 17`."""
        return self.name or f"trial {self.number}"


def timed_later(rows: Sequence[DesignResult]) -> dict[int, DesignResult]:
    """Complete trials by the number of the earlier unstable trial whose design they timed again."""
    complete = {row.design: row for row in rows if row.state == "complete"}
    found = {}
    for row in rows:
        later = complete.get(row.design)
        if row.state != "unstable" or row.number is None or later is None or later.number is None:
            continue
        if later.number > row.number:
            found[row.number] = later
    return found


@dataclass(frozen=True)
class Verdict:
    """What these data decide about a design; `studies.results.verdict` has the rules.

    kind: decided either way, or not. split: the samples that it was judged on. held_against:
    number of other designs. rival: the one that dominates it, or that it cannot be told apart
    from. points: the rival's accuracy less its own, over the same samples. times_faster: its own
    latency over the rival's, with bounds. more_samples: roughly how many would decide between the
    two; None where that is not the question. why: what keeps it from being decided. covers_seeds:
    whether accuracies are apart beyond what other seeds of training could bring; None where none
    were compared.
    """

    kind: Kind
    split: Split
    held_against: int
    rival: DesignResult | None = None
    points: Paired | None = None
    times_faster: Value | None = None
    more_samples: int | None = None
    why: str = ""
    covers_seeds: bool | None = None


@dataclass(frozen=True)
class Standing:
    """Where a named design stands against the front.

    By the means: on the front, or dominated by the trial that beats it by most, with how much
    accuracy (in points) and latency (as a ratio, its own over the other's) that trial gains.
    `verdict` is what of this the data decide; None where it is not kept which samples were right.
    """

    row: DesignResult
    on_front: bool
    dominated_by: DesignResult | None = None
    points_lost: float = 0.0
    times_slower: float = 1.0
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Gain:
    """The best design found, compared with a baseline.

    roles: what the baseline is, in words, one or several. points: how much more accurate the design
    is, over the same samples; None where it is not kept which were right. times_faster: the
    baseline's latency over the design's, with bounds.
    """

    baseline: DesignResult
    roles: tuple[str, ...]
    points: Paired | None = None
    times_faster: Value | None = None


@dataclass(frozen=True)
class Summary:
    """The most accurate design of a search beside its baselines.

    split: of the samples that `points` are over; None where no points are known.
    """

    best: DesignResult
    gains: tuple[Gain, ...]
    split: Split | None


@dataclass(frozen=True)
class GridPoint:
    """One point of a fixed list's plot: the design of this name, at `at` of a series.

    against: the design that it is compared with; empty for the one that others are compared with.
    """

    series: str
    at: int | str
    design: str
    against: str = ""


@dataclass(frozen=True)
class GridOutcome:
    """A study of a fixed list of designs.

    kind: which list. about: in words, what it compares. paired: by (design, against), how much
    more accurate the first is on the same test samples; holds what is known so far.
    """

    kind: str
    about: str
    points: tuple[GridPoint, ...]
    notes: tuple[str, ...] = ()
    paired: Mapping[tuple[str, str], Paired] = field(default_factory=dict)


@dataclass(frozen=True)
class Rungs:
    """How a study's stages went.

    probed, trained: designs, the second among the first. tau: Kendall's tau-b of their ranks by
    probe and by training, over the trained ones; None where those are too few or all alike.
    fine_tuned, fine_tau: designs that were fine-tuned whole, and the same of their ranks by
    training the fusion and by fine-tuning.
    """

    probed: int
    trained: int
    tau: float | None
    fine_tuned: int = 0
    fine_tau: float | None = None


@dataclass(frozen=True)
class FineTuned:
    """A design that was fine-tuned whole after the search.

    row: its trial with the accuracies that fine-tuning reached. before: its trial as the search
    saw it. gained: how much more accurate it has become over the same samples. on_front: whether
    no other fine-tuned design beats it; these accuracies are compared with each other alone.
    """

    row: DesignResult
    before: DesignResult
    gained: Paired
    on_front: bool


@dataclass(frozen=True)
class BoardFront:
    """A study's designs by accuracy and the latency on one board.

    letter: what tables call the board. front: rows that no other beats there, fastest first; the
    latency of each is that on the board. designs: rows with a latency there, by the design's key.
    correct: which validation samples each was right about.
    """

    letter: str
    board: str
    front: tuple[DesignResult, ...]
    designs: Mapping[str, DesignResult]
    correct: Mapping[int | str, Correct]


@dataclass(frozen=True)
class Ranks:
    """How the latencies of the designs that were timed in two places rank.

    first, second: letters of the two. shared: how many designs were timed in both. tau: Kendall's
    tau-b; None for too few designs or equal latencies. times_slower: median ratio of the second's
    latency to the first's; None without any.
    """

    first: str
    second: str
    shared: int
    tau: float | None
    times_slower: float | None


@dataclass(frozen=True)
class GoodOnAll:
    """A design that is good in every study, or on every board.

    design: in words. rows: its row in each, in their order. on_front: whether it is on the front of
    each; otherwise no design of that front is decidedly better.
    """

    design: str
    rows: tuple[DesignResult, ...]
    on_front: tuple[bool, ...]


@dataclass(frozen=True)
class OnBoards:
    """A study of several unlike boards.

    fronts: of each board, the first one first. ranks: of each pair of boards. complete: designs
    that are complete, and so timed on all. good: those that are good on all boards, those on most
    fronts first, then by accuracy.
    """

    fronts: tuple[BoardFront, ...]
    ranks: tuple[Ranks, ...]
    complete: int
    good: tuple[GoodOnAll, ...]


@dataclass(frozen=True)
class Outcome:
    """A whole study.

    rows: trials in order of number. references: unimodal designs and the like. front: rows that
    no other complete row beats, fastest first; duplicates are left out. cv: designs were chosen by
    cross-validation over train and valid, so that "validation" means those. neighbours: how much
    more accurate each design of the front is than the next faster one, on test where all of them
    were looked at there, else on validation; None where that is not kept. hypervolume: after each
    complete trial, in the product of the objectives' units, up to the reference point; empty until
    two designs are known. majority: percent that the most frequent class reaches on (valid, test),
    the latter None until test is looked at.
    ceilings: percent that the best possible classifier reaches, where the data say so.
    conditions: everything a reader needs to repeat it, label to words, in the order to show.
    command: the command line that repeats it; empty where it is not recorded. importances_by: the
    method that found the importances. boards: the fronts of each board, of a study of several
    unlike ones; None for any other. latency_is: what the latency is; "latency" is that of one
    inference. multi_label: a sample has any number of classes, and is right where all of them are;
    the majority is then that of the most frequent set of classes.
    grid: what a study of a fixed list compares; None for a search. rungs: how the stages of a study
    with a probe or with fine-tuning went, else None. fine_tuned: the designs that were trained
    whole at the end, fastest first. goals: what was searched for; the front, the hypervolume and
    the reference point, a value each, are in these objectives. summary: the best design found
    beside the baselines; None for a list, for further objectives and before there is one.
    """

    study: str
    title: str
    data_name: str
    data_note: str
    majority: tuple[float, float | None]
    ceilings: Mapping[str, float]
    rows: tuple[DesignResult, ...]
    references: tuple[DesignResult, ...]
    front: tuple[DesignResult, ...]
    standings: tuple[Standing, ...]
    hypervolume: tuple[tuple[int, float], ...]
    reference_point: tuple[float, ...] | None
    importances: Mapping[str, Mapping[str, float]]
    conditions: Mapping[str, str]
    latency_limit_ms: float | None = None
    cautions: tuple[str, ...] = ()
    cv: bool = False
    neighbours: tuple[Paired | None, ...] = ()
    grid: GridOutcome | None = None
    rungs: Rungs | None = None
    fine_tuned: tuple[FineTuned, ...] = ()
    goals: Goals = field(default_factory=Goals)
    summary: Summary | None = None
    command: str = ""
    importances_by: str = ""
    latency_is: str = "latency"
    multi_label: bool = False
    boards: OnBoards | None = None
