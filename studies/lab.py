"""Everything a study needs, built from its settings: data, space, evaluators, device, storage."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import Any

import optuna
import torch
from filelock import FileLock, Timeout
from optuna.study import StudyDirection

from device_agent.protocol import MeasureRequest, MeasureResult
from evaluators.cross_validation import FOLDS, CrossValidatedEvaluator
from evaluators.data import DataSet, Modality, load, rendered, summary
from evaluators.data.folds import fold, pool
from evaluators.device_client import DeviceClient, open_local_device
from evaluators.device_pool import DevicePool
from evaluators.devices import LOCAL
from evaluators.execution import execution_on
from evaluators.latency import BOARD_TIMING, LOCAL_TIMING, LatencyEvaluator, Runs, TimingDevice
from evaluators.onnx_builder import OnnxBuilder
from evaluators.quality import QualityEvaluator
from evaluators.regimes import named_protocol
from evaluators.ssh_link import open_ssh_device
from evaluators.store import EvaluationStore
from evaluators.training import RECIPE, Trunks
from search_space.encoders import Weights
from search_space.genotype import Genotype
from search_space.named import load_space, names
from search_space.rewrites import BY_NAME
from search_space.space import SearchSpace
from studies.grids import Grid, grid_in
from studies.protocol import chosen_protocol, in_words, resumed_protocol
from studies.records import CONDITIONS, IDENTITY, METRICS, PROTOCOL, SETTINGS, SUBJECT
from studies.samplers import make_sampler
from studies.settings import PRECISIONS_OF, RUNTIMES, Settings, devices, home
from studies.storage import StorageError, open_storage

SAME_RESULTS = ("data", "space", "training protocol or seed")
"""The parts of a study's identity that trained networks depend on."""

DIRECTIONS = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]

Step = Callable[[str, int, int], None]


@dataclass
class Lab:
    """The parts of one study, ready to use; close it when done."""

    settings: Settings
    data: DataSet
    space: SearchSpace
    latency: LatencyEvaluator
    quality: QualityEvaluator
    store: EvaluationStore
    builder: OnnxBuilder
    home: Path
    agent_home: FileLock | None
    step: Step
    grid: Grid | None = None

    @cached_property
    def selection(self) -> QualityEvaluator | CrossValidatedEvaluator:
        """What the search judges designs by: the validation split, or cross-validation.

        Ask for it once the study is open: by then the training protocol is settled. Raises
        DataError where the data cannot be cut into folds.
        """
        if not self.settings.cv:
            return self.quality
        return CrossValidatedEvaluator(self.quality, FOLDS, self.step)

    def close(self) -> None:
        """Ends the device's agent."""
        self.latency.close()
        if self.agent_home is not None:
            self.agent_home.release()


class TimingInTurns:
    """The local device for several workers: each has an agent, one of them times at once."""

    def __init__(self, device: DeviceClient, turn: FileLock) -> None:
        self._device, self._turn = device, turn
        self.hello, self.forget, self.close = device.hello, device.forget, device.close
        self.name = device.name

    def measure(
        self, artifact: Path, request: MeasureRequest, *, job_id: str | None = None
    ) -> MeasureResult:
        """`DeviceClient.measure`, once no other worker of this home is timing."""
        with self._turn:
            return self._device.measure(artifact, request, job_id=job_id)


def _own_agent_home(folder: Path) -> tuple[Path, FileLock]:
    """The first of the agents' homes that no other process holds, and the lock on it."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in count(1):
        lock = FileLock(folder / f"agent-{k}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        return folder / f"agent-{k}", lock
    raise AssertionError("unreachable")


def _boards(settings: Settings, where: Path, step: Step) -> DevicePool:
    """The boards of the settings as one. Raises DevicesError or DeviceError."""

    def waiting(text: str) -> None:
        step(text, 0, 1)

    named = [devices().get(name) for name in settings.devices]
    openers = {device.name: partial(open_ssh_device, device, waiting) for device in named}
    return DevicePool(openers, where / "device" / "locks", waiting)


def load_data(settings: Settings, step: Step, vision: bool = True) -> DataSet:
    """The data that the settings name, without pictures unless for `vision`. Raises DataError."""
    cache = home() / "data"
    if settings.data is None:
        step("drawing the rendered data", 0, 1)
        return rendered(cache)
    modalities: tuple[Modality, ...] = ("text", "vision") if vision else ("text",)
    return load(
        Path(settings.data).expanduser(),
        cache=cache,
        modalities=modalities,
        accept_faults=settings.accept_faults,
        progress=lambda k, n: step("frames", k, n),
    )


def load_space_of(settings: Settings) -> SearchSpace:
    """The search space that the settings name. Raises SpaceError or EncoderError."""
    default = "demo" if settings.data is None else "paper"
    weights: Weights | None = settings.weights  # type: ignore[assignment]
    space = load_space(
        settings.space or default,
        settings.text_encoders,
        settings.vision_encoders,
        weights,
        settings.text_only,
    )
    shipped = (settings.space or default) in names()
    own = PRECISIONS_OF.get(settings.runtime, ()) if shipped else ()
    precisions = tuple(dict.fromkeys(settings.precisions)) or own
    return replace(space, precisions=precisions) if precisions else space


def open_lab(settings: Settings, step: Step) -> Lab:
    """Loads data and encoders, starts the device, and chooses how to train.

    Raises DataError, SpaceError, EncoderError, DeviceError.
    """
    where = home()
    space, grid = load_space_of(settings), None
    data = load_data(settings, step, vision=bool(space.vision_encoders))
    for k in range(FOLDS if settings.cv else 0):
        fold(data, k, FOLDS)  # what cannot be cut is told before anything is made
    if settings.grid is not None:
        space, grid = grid_in(settings.grid, space)
    encoders = {spec.name: spec for spec in space.encoders}
    compute = "cuda" if torch.cuda.is_available() else "cpu"
    name: Any = settings.protocol
    protocol = named_protocol(name, settings.seed)
    runtime: Any = RUNTIMES[settings.runtime][0]
    rewrites = BY_NAME[settings.rewrites]
    execution = execution_on(compute, settings.compile)
    quality = QualityEvaluator(
        data, encoders, space.shapes, protocol, where, step, compute, runtime, rewrites, execution
    )
    quality.protocol = chosen_protocol(settings, quality, space, compute)
    latency, held = open_latency(settings, quality.builder, where, step)
    store = EvaluationStore(where / "evaluations.jsonl")
    return Lab(
        settings, data, space, latency, quality, store, quality.builder, where, held, step, grid
    )


def open_latency(
    settings: Settings, builder: OnnxBuilder, where: Path, step: Step
) -> tuple[LatencyEvaluator, FileLock | None]:
    """Where designs are timed, and the lock on the local agent's home where that is here."""
    local = settings.devices == (LOCAL,)
    alone = settings.timing == "alone" or (settings.timing == "auto" and not local)
    timing = BOARD_TIMING if alone else LOCAL_TIMING
    runs = Runs(*RUNTIMES[settings.runtime], settings.threads, timing)
    if not local:
        boards = _boards(settings, where, step)
        return LatencyEvaluator(builder, lambda: boards, runs), None
    device, held = local_device(where)
    return LatencyEvaluator(builder, device, runs), held


def local_device(where: Path) -> tuple[Callable[[], TimingDevice], FileLock]:
    """Opens this machine as a device that takes turns, and the lock on its agent's home.

    Whoever times here has to: two networks timed at once would both be kept as slow.
    """
    agent_home, held = _own_agent_home(where / "device")
    turn = FileLock(where / "device" / "timing.lock")
    return lambda: TimingInTurns(open_local_device(agent_home), turn), held


def data_label(data: DataSet) -> str:
    """The data's name as studies and pages call it."""
    return "rendered" if data.kind == "rendered" else data.name


def study_name(settings: Settings, data: DataSet, space: SearchSpace) -> str:
    """The name given, or one of preset, data and space."""
    return settings.name or f"{settings.preset}-{data_label(data)}-{space.name}"


def open_study(lab: Lab) -> optuna.Study:
    """The study of this lab, made or resumed.

    Raises StorageError where the storage cannot be opened or holds a study of this name that was
    made under other conditions.
    """
    settings = lab.settings
    storage = open_storage(settings.storage)
    name = study_name(settings, lab.data, lab.space)
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=DIRECTIONS,
        load_if_exists=True,
        sampler=make_sampler(settings.sampler, settings.seed, 0),
    )
    known = study.user_attrs.get(IDENTITY)
    if known is None:
        # Empty, and nobody's: a trial, a direction or a note of others must not become ours.
        if study.get_trials(deepcopy=False) or study.directions != DIRECTIONS:
            raise StorageError(
                f"study {name!r} in {settings.storage} was not made by fusion-nas: "
                "give another --storage or --name"
            )
        study.set_metric_names(METRICS)
        study.set_user_attr(CONDITIONS, conditions(lab))
        study.set_user_attr(SUBJECT, _subject(lab))
        study.set_user_attr(SETTINGS, asdict(_from_anywhere(settings)))
        study.set_user_attr(PROTOCOL, asdict(lab.quality.protocol))
        study.set_user_attr(IDENTITY, _identity(lab))  # last: without it the study is made anew
        return study
    check_identity(lab, study)
    said = dict(study.user_attrs[CONDITIONS])
    if lab.grid is None and settings.sampler not in said["sampler"].replace(",", "").split():
        said["sampler"] += f", then {settings.sampler}"
        study.set_user_attr(CONDITIONS, said)
    return study


def check_identity(lab: Lab, study: optuna.Study, parts: Sequence[str] | None = None) -> None:
    """Raises StorageError where a study was made under other conditions, in `parts` or at all.

    What of the training protocol was chosen for the machine that began the study is taken over.
    """
    lab.quality.protocol = resumed_protocol(
        lab.quality.protocol, lab.settings.trunks, study.user_attrs[PROTOCOL]
    )
    known, identity = study.user_attrs[IDENTITY], _identity(lab)
    other = sorted(key for key in parts or identity if identity[key] != known.get(key))
    if other:
        raise StorageError(
            f"study {study.study_name!r} in {lab.settings.storage} was made with another "
            f"{', '.join(other)}: repeat its command to go on with it, or give a new --name or "
            "--storage"
        )


def _from_anywhere(settings: Settings) -> Settings:
    """The settings with local files and folders named so that every folder finds them."""

    def absolute(source: str) -> str:
        path = Path(source).expanduser()
        return str(path.resolve()) if path.exists() else source

    return replace(
        settings,
        data=settings.data and absolute(settings.data),
        space=settings.space
        and (settings.space if settings.space in names() else absolute(settings.space)),
        text_encoders=tuple(map(absolute, settings.text_encoders)),
        vision_encoders=tuple(map(absolute, settings.vision_encoders)),
    )


def _identity(lab: Lab) -> dict[str, Any]:
    """What must be the same for results to stand in one study."""
    space = {
        "decisions": [[d.name, d.kind, list(d.choices)] for d in lab.space.decisions],
        "encoders": [replace(spec, source="").as_json() for spec in lab.space.encoders],
    }
    return {
        "data": lab.data.fingerprint,
        "space": _digest(space),
        "training protocol or seed": _digest([RECIPE, asdict(lab.quality.protocol)]),
        "device": lab.latency.device().fingerprint,
        "threads": lab.settings.threads,
        "runtime": lab.settings.runtime,
        "timing": lab.latency.timing(),
        "rewrites": lab.settings.rewrites,
        "latency limit": lab.settings.latency_limit_ms,
        "selection (--cv or not)": f"{FOLDS}-fold" if lab.settings.cv else "valid",
        "list of designs": lab.grid
        and _digest([[d.name, d.genotype.key] for d in lab.grid.designs]),
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def conditions(lab: Lab) -> dict[str, str]:
    """Everything that a reader needs to repeat the study, in words."""
    info, protocol, data = lab.latency.device(), lab.quality.protocol, lab.data
    runtime, provider = RUNTIMES[lab.settings.runtime]
    version = next((r.version for r in info.runtimes if r.name == runtime), None)
    board = ", ".join(
        str(part)
        for part in (info.board.model, info.board.machine, f"{info.board.cores} cores")
        if part
    )
    split = ", ".join(f"{len(data.split(s))} {s}" for s in ("train", "valid", "test"))
    found = {
        "data": f"{data_label(data)}: {split}; classes {', '.join(data.classes)}",
        "search space": f"{lab.space.name}: {lab.space.size:.3g} vectors "
        f"of {len(lab.space.decisions)} choices",
        "encoders": ", ".join(f"{s.name} ({s.weights} weights)" for s in lab.space.encoders),
        "training": in_words(protocol),
        "selection": (
            f"by {FOLDS}-fold cross-validation over the {len(pool(data))} samples of train and "
            "valid, grouped by video (where there is none, by identical text)"
            if lab.settings.cv
            else "on the validation split"
        )
        + "; test is looked at once, at the end",
        "device": f"{', '.join(lab.settings.devices)}: {board}",
        "runtime": f"{runtime} {version or '?'}, {provider}, batch 1"
        + (f", {lab.settings.threads or 'all'} threads" if lab.settings.runtime == "cpu" else ""),
        "timing": lab.latency.timing(),
        "rewrites before timing": _rewrites(lab),
        "sampler": f"{lab.settings.sampler}, seed {lab.settings.seed}",
    }
    if lab.grid is not None:
        del found["sampler"]
        found["designs"] = f"a fixed list of {len(lab.grid.designs)}, none sampled"
        found["selection"] = "none among designs; test is looked at once, at the end, for them all"
    if data.faults:
        found["data check"] = (
            f"failed, and accepted: {summary(data.faults)}; first, {data.faults[0].text}"
        )
    if data.dropped:
        found["left out"] = (
            f"{len(data.dropped)} rows, {data.dropped[0].id} first: {data.dropped[0].why}"
        )
    return found


def _rewrites(lab: Lab) -> str:
    """Which exact rewrites designs go through, and what the data mean for them, in words."""
    rewrites = lab.settings.rewrites
    if rewrites == "none":
        return "none: designs are timed as written"
    lengths = []
    for name in lab.space.text_encoders:
        found = lab.quality.preprocessing.text_lengths(lab.space.encoder(name))
        lengths.append(f"{name} {sum(found) / len(found):.1f}, {max(found)}")
    padding = {
        "all": "padding cut to the longest text",
        "own-length": "each text at its own length, timed at their mean (where a fusion reads "
        "tokens: padded to the longest)",
    }
    return (
        f"{rewrites}: attention over one key folded, {padding[rewrites]} "
        f"(tokens of all texts, mean and longest: {'; '.join(lengths)})"
    )


def _subject(lab: Lab) -> dict[str, Any]:
    data = lab.data
    cautions = []
    if data.faults:
        cautions.append(
            "The data failed the check and were used all the same (--accept-faults): "
            f"{summary(data.faults)}. First: {data.faults[0].text}."
        )
    stays: dict[Trunks, str] = {
        "frozen": "Trunks stay as they were loaded",
        "text-tuned": "Text trunks are fine-tuned alone, vision trunks stay as they were loaded",
    }
    if lab.settings.trunks == "auto" and lab.quality.protocol.trunks in stays:
        cautions.append(
            f"{stays[lab.quality.protocol.trunks]}: training designs whole would take too long on "
            "this CPU. --trunks by-stage does it all the same."
        )
    if lab.quality.protocol.by_stage is not None:
        cautions.append(
            "Designs are trained as published, each stage by settings of its own: differences "
            "between stages are differences of training too. --protocol fair trains all alike."
        )
    bound = lab.quality.protocol.fusion_regime().max_macs
    if bound is not None:
        cautions.append(
            f"On a CPU the training of one design's fusion is bounded at {bound:.0e} "
            "multiply-accumulates, so designs with a dear fusion (attention over many tokens) get "
            "fewer epochs, at least one."
        )
    return {
        "title": lab.settings.title,
        "data_name": data_label(data),
        "data_note": data.note,
        "cv": lab.settings.cv,
        "majority": [100 * _majority(data, lab.settings.cv), None],
        "ceilings": {k: 100 * v for k, v in (data.ceilings or {}).items()},
        "latency_limit_ms": lab.settings.latency_limit_ms,
        "cautions": cautions,
        **({} if lab.grid is None else {"grid": _grid(lab.grid, lab.settings)}),
    }


def _grid(grid: Grid, settings: Settings) -> dict[str, Any]:
    """What a report needs of a fixed list, as plain JSON values."""
    points = [asdict(point) for point in grid.points]
    about = " ".join(settings.about.split())
    return {"kind": grid.kind, "about": about, "points": points, "notes": list(grid.notes)}


def _majority(data: DataSet, cv: bool) -> float:
    """Share of the most frequent class among the samples that the search chooses by."""
    if not cv:
        return data.majority("valid")[1]
    labels = [sample.label for sample in pool(data)]
    return max(map(labels.count, set(labels))) / len(labels)


def genotype_of(record: dict[str, Any]) -> Genotype:
    """The design that a trial's record holds."""
    return Genotype.from_json(record["genotype"])
