"""What a run would do, without doing it: `run --dry-run`."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import optuna
from optuna.trial import TrialState

from evaluators.devices.registry import LOCAL
from evaluators.quality.cross_validation import FOLDS
from search_space.space.paper import seeded_designs
from search_space.space.space import SearchSpace
from studies.ablations.designs import grid_in
from studies.config.home import devices, home_path
from studies.config.settings import Settings
from studies.infra.storage import open_storage
from studies.report.terminal import duration
from studies.results.text import counted
from studies.samplers.registry import chosen
from studies.search.trial_index import TrialIndex
from studies.study.carrying_over import EarlierStudy
from studies.study.context import load_space_of
from studies.study.final.final_test import is_sought
from studies.study.identity import other_settings
from studies.study.lookup import default_name, find_study, is_missing, study_names

LEAST_TRIALS = 3
"""Finished trials from which the time of another is estimated."""


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        study: name of the study.
        exists: whether the study is there already.
        total, finished, remaining: trials.
        named: names of the designs that are tried first and are not tried yet.
        sampled: trials that the sampler proposes; 0 for a fixed list.
        trainings: at most so many designs are trained, and so many times each.
        timings: at most so many designs are timed.
        seconds: estimated for the remaining trials; None where nothing is known.
        seconds_from: what the estimate is from, in words.
        weight_bytes: estimated for the weights of the remaining designs; None if not known.
        stored_bytes: of features and weights that are cached now.
        free_bytes: on the disk of the cache.
        refused: conditions of the stored study that these settings change, so that `run` refuses.
        sampler: that would propose designs.
    """

    study: str
    exists: bool
    total: int
    finished: int
    remaining: int
    named: tuple[str, ...]
    sampled: int
    trainings: int
    timings: int
    seconds: float | None
    seconds_from: str
    weight_bytes: int | None
    stored_bytes: int
    free_bytes: int
    refused: tuple[str, ...]
    sampler: str


def plan_of(settings: Settings) -> Plan:
    """What `run` would do with these settings; nothing is made, read of the data, or started.

    Raises UsageError, SpaceError, EncoderError or StorageError as `run` does.
    """
    space = load_space_of(settings)
    names: list[str] = []
    if settings.search.from_study is not None:
        earlier = EarlierStudy(settings.storage, settings.search.from_study)
        names += [design.name for design in earlier.designs]
    if settings.preset.grid is not None:
        space, grid = grid_in(settings.preset.grid, space)
        names += [design.name for design in grid.designs]
    elif settings.search.seed_paper:
        names += [s.name for s in seeded_designs(space) if is_sought(space, s.genotype)]
    name = _study_name(settings, space)
    study = _stored(settings.storage, name)
    trials = [] if study is None else study.get_trials(deepcopy=False)
    index = TrialIndex()
    index.update(trials)
    left = tuple(each for each in dict.fromkeys(names) if each not in index.names)
    fixed = settings.preset.grid is not None
    finished = len(index.names) if fixed else index.finished
    total = settings.search.trials or len(names)
    remaining = max(0, total - finished)
    each_s, source = _seconds(settings.storage, study)
    weights = [file.stat().st_size for file in (home_path() / "weights").glob("*.safetensors")]
    repeats = FOLDS if settings.training.cv else 1
    return Plan(
        study=name,
        exists=study is not None,
        total=total,
        finished=finished,
        remaining=remaining,
        named=left[:remaining],
        sampled=0 if fixed else max(0, remaining - len(left)),
        trainings=remaining * repeats,
        timings=remaining,
        seconds=None if each_s is None else remaining * each_s,
        seconds_from=source,
        weight_bytes=int(median(weights) * remaining) if weights else None,
        stored_bytes=sum(_bytes(home_path() / part) for part in ("features", "weights", "trunks")),
        free_bytes=_free(home_path()),
        refused=() if study is None else tuple(other_settings(study, settings)),
        sampler=chosen(
            settings.search.sampler,
            space,
            settings.search.deferred_timing,
            not settings.search.goals.more,
        ),
    )


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain JSON values."""
    return json.loads(json.dumps(asdict(plan)))  # type: ignore[no-any-return]


def in_words(plan: Plan, settings: Settings) -> Iterator[str]:
    """Yield a plan in lines."""
    state = "resumed" if plan.exists else "new"
    yield f"study {plan.study}: {state}, {plan.finished} of {plan.total} trials"
    if plan.refused:
        yield (
            f"run refuses this: the study was made with another {', '.join(plan.refused)}; give a "
            "new --name"
        )
    if not plan.remaining:
        yield "no trial is left: only the test split and the page are made again"
    if plan.named:
        yield f"first, {counted(len(plan.named), 'named design')}: {', '.join(plan.named)}"
    if plan.sampled:
        then = "then " if plan.named else ""
        yield f"{then}{counted(plan.sampled, 'design')} proposed by sampler {plan.sampler}"
    boards = settings.device.boards
    names = settings.device.names if boards.unlike else map(_with_boards, boards.first)
    on = ", ".join(names)
    each = " each" if boards.unlike else ""
    timings = f"{counted(plan.timings, 'timing')}{each}"
    yield f"at most {timings} on {on} ({settings.device.runtime})"
    if said := settings.search.reuse_shares.words():
        yield f"latency: {said}; the parts of each design are timed one by one"
    limit = settings.search.latency_limit_ms
    over = "" if limit is None else f"; designs over {limit:g} ms are not trained"
    repeats = f" ({FOLDS} folds each)" if settings.training.cv else ""
    yield f"at most {counted(plan.trainings, 'training')}{repeats}{over}"
    if settings.training.seeds > 1:
        yield f"{settings.training.seeds} trainings of each design of the front for the test figure"
    if settings.training.fine_tune:
        yield f"{counted(settings.training.fine_tune, 'design')} fine-tuned whole at the end"
    if plan.seconds is None:
        yield f"time: not known; {plan.seconds_from}"
    else:
        yield f"time: about {duration(plan.seconds)} for the trials, from {plan.seconds_from}"
    if settings.search.hours is not None:
        yield f"the search stops after {settings.search.hours:g} hours"
    if settings.search.patience is not None:
        yield f"the search stops after {settings.search.patience} trials without a gain"
    more = "new weights of a size not known"
    if plan.weight_bytes is not None:
        more = f"about {_megabytes(plan.weight_bytes)} of new weights"
    yield (
        f"disk: {more}; {_megabytes(plan.stored_bytes)} are cached in {home_path()}, "
        f"{_megabytes(plan.free_bytes)} are free"
    )
    yield "nothing was started"


def _study_name(settings: Settings, space: SearchSpace) -> str:
    """The name that the study has or will have."""
    if settings.data.built_in is not None:
        label: str = settings.data.built_in.kind
    else:
        path = Path(settings.data.source or "").expanduser().resolve()
        label = path.parent.name if path.is_file() else path.name
    return default_name(settings, label, space)


def _stored(storage: str, name: str) -> optuna.Study | None:
    return find_study(storage, name) if name in study_names(storage) else None


def _seconds(storage: str, study: optuna.Study | None) -> tuple[float | None, str]:
    """Seconds of a trial, and where that is from: this study, or all of the storage."""
    if study is not None:
        found = _durations(study)
        if len(found) >= LEAST_TRIALS:
            return sum(found) / len(found), f"{counted(len(found), 'trial')} of this study"
    others: list[float] = []
    if not is_missing(storage):
        opened = open_storage(storage)
        for name in optuna.study.get_all_study_names(opened):
            others += _durations(optuna.load_study(study_name=name, storage=opened))
    if len(others) >= LEAST_TRIALS:
        return (
            sum(others) / len(others),
            f"{counted(len(others), 'trial')} of other studies in this storage, which may be of "
            "other data",
        )
    return None, f"under {LEAST_TRIALS} trials are finished in this storage"


def _durations(study: optuna.Study) -> list[float]:
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    spans = [trial.duration for trial in study.get_trials(deepcopy=False, states=states)]
    return [span.total_seconds() for span in spans if span is not None]


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _megabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _with_boards(name: str) -> str:
    """A device by its name, a tag with the devices that have it. Raises DevicesError."""
    if name == LOCAL:
        return name
    found = [device.name for device in devices().named(name)]
    return name if found == [name] else f"{name} ({', '.join(found)})"
