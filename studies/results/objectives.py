"""What a study may search for beside accuracy and latency, and limits on any of it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from search_space.plugins import NotUsable, Plugin, Plugins, load_plugins

if TYPE_CHECKING:  # commands that need no objective start without NumPy
    from evaluators.objectives import PredictionObjective

ON_BOARD = "@"
"""Between an objective's name and the board that it is of, where that is not the first."""
FoundBy = Literal["timing", "training", "use", "robustness", "scores"]
MOST = 4
"""Objectives of one study: with more, nearly every design is on the front."""


@dataclass(frozen=True)
class Objective:
    """One figure of a design that can be searched for.

    measure: its name in a trial's record. words: for people, with its unit. higher: whether more
    of it is better. found_by: which evaluator tells it; "timing" knows it before any training.
    """

    name: str
    measure: str
    words: str
    higher: bool
    found_by: FoundBy

    @property
    def board(self) -> str | None:
        """The board beside the first one that it is of; None for any other objective."""
        return self.name.partition(ON_BOARD)[2] or None

    def gain(self, value: float) -> float:
        """The value such that more is better."""
        return value if self.higher else -value


ACCURACY = Objective("accuracy", "accuracy", "accuracy, %", True, "training")
LATENCY = Objective("latency", "latency_ms", "latency, ms", False, "timing")
PAIR = (ACCURACY, LATENCY)
"""Of every study."""
MORE = (
    Objective("macro-f1", "macro_f1", "macro-F1, %", True, "scores"),
    Objective("micro-f1", "micro_f1", "micro-F1, %", True, "scores"),
    Objective(
        "mean-average-precision",
        "mean_average_precision",
        "mean average precision, %",
        True,
        "scores",
    ),
    Objective("mae", "mae", "mean absolute error of the score", False, "scores"),
    Objective("correlation", "correlation", "correlation with the score", True, "scores"),
    Objective("robustness", "robustness", "robustness, %", True, "robustness"),
    Objective("robustness-text", "robustness_text", "robustness to text, %", True, "robustness"),
    Objective(
        "robustness-vision", "robustness_vision", "robustness to vision, %", True, "robustness"
    ),
    Objective("robustness-audio", "robustness_audio", "robustness to audio, %", True, "robustness"),
    Objective("robustness-both", "robustness_both", "robustness to both, %", True, "robustness"),
    Objective("robustness-all", "robustness_all", "robustness to all, %", True, "robustness"),
    Objective("without-text", "accuracy_without_text", "accuracy without text, %", True, "use"),
    Objective(
        "without-vision", "accuracy_without_vision", "accuracy without vision, %", True, "use"
    ),
    Objective("without-audio", "accuracy_without_audio", "accuracy without audio, %", True, "use"),
    Objective("calibration", "ece", "calibration error", False, "use"),
    Objective("parameters", "parameters", "parameters", False, "timing"),
    Objective("bytes", "onnx_bytes", "ONNX, bytes", False, "timing"),
    Objective("memory", "peak_memory_mb", "peak memory, MB", False, "timing"),
    Objective("energy", "energy_mj", "energy an inference, mJ", False, "timing"),
)
OF_A_BOARD = ("latency", "memory", "energy")
"""Objectives that each board has its own of."""
OF_NUMBERS = ("mae", "correlation")
"""Objectives of data whose classes are numbers."""
OF_SETS = ("micro-f1", "mean-average-precision")
"""Objectives of multi-label data."""
BY_NAME = {objective.name: objective for objective in (*PAIR, *MORE)}
GROUP = "fusion_nas.objectives"
"""Entry points of plugins that add objectives."""


@dataclass(frozen=True)
class Limit:
    """What an objective must reach or must not exceed."""

    objective: Objective
    value: float

    def missed_by(self, value: float) -> float:
        """How far a value is on the wrong side, in the objective's unit; 0 or below: within."""
        return self.objective.gain(self.value) - self.objective.gain(value)

    def words(self, value: float) -> str:
        """How a value misses the limit."""
        side = "under" if self.objective.higher else "over"
        return f"{self.objective.words} {value:.4g} is {side} the limit of {self.value:g}"


@dataclass(frozen=True)
class Goals:
    """All that a study searches for: its objectives, accuracy and latency first, and its limits."""

    objectives: tuple[Objective, ...] = PAIR
    limits: tuple[Limit, ...] = ()

    @property
    def more(self) -> tuple[Objective, ...]:
        """The objectives beside accuracy and latency."""
        return self.objectives[len(PAIR) :]

    @property
    def needed(self) -> tuple[Objective, ...]:
        """All that has to be known of a design, objectives first."""
        limited = [limit.objective for limit in self.limits]
        return tuple(dict.fromkeys([*self.objectives, *limited]))

    def limits_on(self, found_by: Iterable[FoundBy]) -> list[Limit]:
        """The limits on what these evaluators tell."""
        return [limit for limit in self.limits if limit.objective.found_by in found_by]


def latency_on(board: str) -> str:
    """The name of the latency on a board beside the first one."""
    return f"{LATENCY.name}{ON_BOARD}{board}"


def measure_on(board: str, measure: str) -> str:
    """The name of a measure in a trial's record, for a board beside the first one."""
    return f"{board}:{measure}"


def boards_in(measures: Iterable[str]) -> dict[str, str]:
    """Names of objectives on boards beside the first by the names of their measures."""
    names = {BY_NAME[name].measure: name for name in OF_A_BOARD}
    found = {}
    for measure in measures:
        board, colon, own = measure.partition(":")
        if colon and own in names:
            found[measure] = f"{names[own]}{ON_BOARD}{board}"
    return found


def goals(
    objectives: Iterable[str],
    limits: Iterable[str],
    stored: Mapping[str, Mapping[str, Any]] | None = None,
) -> Goals:
    """What flags ask for. Raises ValueError, in words, for what cannot be meant.

    `stored`: what a study keeps of objectives of plugins (`stored_of_plugins`), with which it is
    read without them.
    """
    known = {
        name: _of_plugin(name, each["words"], each["higher"])
        for name, each in (stored or {}).items()
    }
    more = []
    for name in dict.fromkeys(objectives):
        if name in {each.name for each in PAIR}:
            continue
        more.append(_known("--objective", name, known))
    if len(PAIR) + len(more) > MOST:
        bound = f", or bound one: --limit {more[-1].name}=NUMBER" if more[-1].board else ""
        raise ValueError(
            f"--objective {more[-1].name}: with accuracy and latency that makes "
            f"{len(PAIR) + len(more)}; give {MOST - len(PAIR)} at most{bound}"
        )
    return Goals((*PAIR, *more), tuple(_limit(text, known) for text in limits))


def _limit(text: str, known: Mapping[str, Objective]) -> Limit:
    name, equals, value = text.partition("=")
    objective = _known("--limit", name, known)
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not equals or not math.isfinite(number):
        raise ValueError(f"--limit {text!r}: give NAME=NUMBER, as parameters=5e6 or accuracy=70")
    return Limit(objective, number)


def _known(flag: str, name: str, stored: Mapping[str, Objective]) -> Objective:
    found = BY_NAME.get(name) or stored.get(name) or _of_board(flag, name)
    if found is not None:
        return found
    plugins = _plugins()
    if name in plugins.usable:
        return _of_plugin(name, plugins.usable[name].words, plugins.usable[name].higher)
    if failure := plugins.failure(name):
        raise ValueError(f"{flag} {failure}")
    names = ", ".join((*BY_NAME, *plugins.usable))
    raise ValueError(f"{flag} {name!r}: choose one of {names}, or install the plugin that has it")


def _of_board(flag: str, name: str) -> Objective | None:
    """The objective of NAME@BOARD; None for another name. Raises ValueError."""
    base, at, board = name.partition(ON_BOARD)
    if not at:
        return None
    if base not in OF_A_BOARD or not board:
        known = ", ".join(f"{each}{ON_BOARD}BOARD" for each in OF_A_BOARD)
        raise ValueError(f"{flag} {name!r}: of a board there are {known}")
    own = BY_NAME[base]
    what, comma, unit = own.words.partition(",")
    words = f"{what} on {board}{comma}{unit}"
    return Objective(name, measure_on(board, own.measure), words, own.higher, own.found_by)


def _of_plugin(name: str, words: str, higher: bool) -> Objective:
    from evaluators.objectives import MEASURE

    return Objective(name, f"{MEASURE}{name}", words, higher, "scores")


def plugin_objectives(wanted: Goals) -> "dict[str, PredictionObjective]":
    """Return those of the objectives that are of plugins, by name."""
    return {name: _plugins().usable[name] for name in _names_of_plugins(wanted)}


def _names_of_plugins(wanted: Goals) -> list[str]:
    needed = (each for each in wanted.needed if each.board is None)
    return [each.name for each in needed if each.name not in BY_NAME]


def objective_origins(wanted: Goals) -> dict[str, str]:
    """Return package and version of those of the objectives that are of plugins, by name."""
    names = _names_of_plugins(wanted)
    return _plugins().origins(names) if names else {}


def stored_of_plugins(wanted: Goals) -> dict[str, dict[str, Any]]:
    """Return what a study keeps of its objectives of plugins, as plain JSON values."""
    found = plugin_objectives(wanted)
    return {name: {"words": each.words, "higher": each.higher} for name, each in found.items()}


def installed_plugins() -> tuple[Plugin, ...]:
    """Return every plugin found, of all groups, with why one cannot be used."""
    from evaluators.data.plugins import data_set_plugins
    from evaluators.devices.runtimes import runtime_plugins
    from search_space.encoders.plugins import encoder_plugins
    from search_space.operators.registry import operator_plugins

    return (
        *operator_plugins(),
        *encoder_plugins(),
        *data_set_plugins(),
        *_plugins().found,
        *runtime_plugins(),
    )


@cache
def _plugins() -> "Plugins[PredictionObjective]":
    return load_plugins(GROUP, _objective, BY_NAME)


def _objective(found: object) -> "PredictionObjective":
    """Return the objective of a class. Raises NotUsable."""
    from evaluators.objectives import PredictionObjective

    if not (isinstance(found, type) and issubclass(found, PredictionObjective)):
        raise NotUsable(f"{found!r} is not a subclass of fusion_nas.objectives.PredictionObjective")
    words, higher = getattr(found, "words", None), getattr(found, "higher", None)
    if not isinstance(words, str) or not words.strip():
        raise NotUsable(f"{found.__name__}.words is not a text")
    if not isinstance(higher, bool):
        raise NotUsable(f"{found.__name__}.higher is neither True nor False")
    made: PredictionObjective = found()
    return made
