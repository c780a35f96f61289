"""Everything a study needs, built from its settings: data, space, evaluators, device."""

import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout

from device_agent.board import sysfs
from device_agent.wire.request import MeasureRequest, MeasureResult
from evaluators.data import BOTH, DRAWN, DataSet, Modality, load, longest_seconds
from evaluators.data.folds import fold
from evaluators.data.score_classes import SEVEN, class_values, seven_classes
from evaluators.devices.client import DeviceClient, open_local_device
from evaluators.devices.pool import DevicePool
from evaluators.devices.recipes import check_runtime
from evaluators.devices.registry import LOCAL
from evaluators.devices.runtimes import for_agent
from evaluators.devices.ssh.link import open_ssh_device
from evaluators.evaluation import Evaluator
from evaluators.features.preprocessing import Preprocessing
from evaluators.latency.evaluator import (
    BOARD_TIMING,
    LOCAL_TIMING,
    LatencyEvaluator,
    Runs,
    TimingDevice,
)
from evaluators.onnx.builder import OnnxBuilder
from evaluators.quality.class_scores import ClassScoresEvaluator
from evaluators.quality.cross_validation import FOLDS, CrossValidatedEvaluator
from evaluators.quality.evaluator import QualityEvaluator
from evaluators.quality.modality_use import ModalityUseEvaluator
from evaluators.quality.robustness import Noise, RobustnessEvaluator
from evaluators.quality.trainer import Compute, Target, new_builder, new_trainer
from evaluators.shared_store import SharedStore
from evaluators.store import EvaluationStore
from evaluators.training.execution import execution_on
from search_space.design.encoder import Weights
from search_space.locks import NamedLock
from search_space.modality import CALLED, MODALITIES
from search_space.network.rewrites import BY_NAME
from search_space.space.named import load_space, names, with_shorter_sounds
from search_space.space.space import SearchSpace
from studies.ablations.designs import Grid, grid_in
from studies.config.home import devices, home
from studies.config.options import DeviceOptions, built_for, precisions_of, runtime_of
from studies.config.settings import Settings
from studies.config.usage import UsageError
from studies.infra.locations import store_url
from studies.infra.priority import at_first_priority, give_way
from studies.results.ablation import TRIMODAL
from studies.results.objectives import BY_NAME as BUILT_IN_OBJECTIVES
from studies.results.objectives import (
    OF_NUMBERS,
    OF_SETS,
    FoundBy,
    objective_origins,
    plugin_objectives,
)
from studies.samplers.registry import chosen
from studies.study.lookup import default_name
from studies.study.training_protocol import chosen_protocol, resumed_protocol

STORE = "store"
"""Folder of a home for what waits for a shared store."""
Step = Callable[[str, int, int], None]
StoredProtocol = Callable[[str], Mapping[str, Any] | None]
"""The training protocol that the study of this name began with; None where there is none yet."""


@dataclass(frozen=True)
class StudyContext:
    """The parts of one study, ready to use; close it when done."""

    settings: Settings
    data: DataSet
    space: SearchSpace
    latency: LatencyEvaluator
    quality: QualityEvaluator
    store: EvaluationStore
    builder: OnnxBuilder
    home: Path
    agent_home: NamedLock | None
    step: Step
    grid: Grid | None = None
    shared: SharedStore | None = None
    boards: Mapping[str, LatencyEvaluator] = field(default_factory=dict)
    """What times designs on the boards beside the first one, by name."""

    @cached_property
    def selection(self) -> QualityEvaluator | CrossValidatedEvaluator:
        """What the search judges designs by: the validation split, or cross-validation.

        Raises DataError where the data cannot be cut into folds.
        """
        if not self.settings.training.cv:
            return self.quality
        return CrossValidatedEvaluator(self.quality, FOLDS, self.step)

    @cached_property
    def fine_tuned(self) -> QualityEvaluator | CrossValidatedEvaluator:
        """What designs are judged by once they are trained whole: as `selection`, a rung higher."""
        whole = self.quality.other(whole=True)
        if not self.settings.training.cv:
            return whole
        return CrossValidatedEvaluator(whole, FOLDS, self.step)

    @cached_property
    def further(self) -> dict[FoundBy, Evaluator]:
        """What tells the objectives that neither timing nor training does, as far as needed."""
        settings, trainer = self.settings, self.quality.trainer
        goals = settings.search.goals
        made: dict[FoundBy, Evaluator] = {
            "use": ModalityUseEvaluator(trainer, "valid"),
            "scores": ClassScoresEvaluator(
                trainer, "valid", plugin_objectives(goals), objective_origins(goals)
            ),
        }
        if settings.search.noise is not None:
            made["robustness"] = RobustnessEvaluator(trainer, Noise(settings.search.noise))
        needed = {objective.found_by for objective in goals.needed}
        return {name: evaluator for name, evaluator in made.items() if name in needed}

    def is_apart(self) -> bool:
        """Whether designs are timed on another machine, so that training disturbs no timing.

        A board that was started with this machine is this machine, under whatever name.
        """
        if self.agent_home is not None:
            return False
        own = sysfs.text(Path("/proc/sys/kernel/random/boot_id"))
        return self.latency.device().board.boot_id not in (None, own)

    def close(self) -> None:
        """End the devices' agents, and upload what waits for the shared store."""
        for latency in (self.latency, *self.boards.values()):
            latency.close()
        if self.shared is not None:
            self.shared.close()
        if self.agent_home is not None:
            self.agent_home.release()


class TimingInTurns:
    """The local device for several workers: each has an agent, one of them times at once.

    Attributes:
        waited_s: seconds that this worker has waited for its turn so far.
    """

    def __init__(self, device: DeviceClient, turn: NamedLock) -> None:
        self._device, self._turn, self.waited_s = device, turn, 0.0
        self.hello, self.forget, self.close = device.hello, device.forget, device.close
        self.name = device.name

    def measure(
        self, artifact: Path, request: MeasureRequest, *, job_id: str | None = None
    ) -> MeasureResult:
        """`DeviceClient.measure`, once no other worker of this home is timing."""
        begun = time.perf_counter()
        with self._turn:
            self.waited_s += time.perf_counter() - begun
            return self._device.measure(artifact, request, job_id=job_id)


def _own_agent_home(folder: Path) -> tuple[Path, NamedLock]:
    """The first of the agents' homes that no other process holds, and the lock on it."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in count(1):
        lock = NamedLock(folder / f"agent-{k}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        return folder / f"agent-{k}", lock
    raise AssertionError("unreachable")


def _pool(names: Collection[str], where: Path, step: Step) -> DevicePool:
    """Equal boards, by names or tags, as one. Raises DevicesError or DeviceError."""

    def waiting(text: str) -> None:
        step(text, 0, 1)

    known = devices()
    named = {device.name: device for name in names for device in known.named(name)}
    openers = {n: partial(open_ssh_device, device, waiting) for n, device in named.items()}
    return DevicePool(openers, where / "device" / "locks", waiting)


def _check_apart(settings: Settings) -> None:
    """Raise UsageError for a board that two of the unlike ones stand for."""
    boards, known = settings.device.boards, devices()
    owner: dict[str, str] = {}
    for name in (*boards.first, *(each.name for each in boards.unlike)):
        for device in known.named(name):
            if owner.setdefault(device.name, name) != name:
                raise UsageError(
                    f"--device {', '.join(settings.device.names)}: board {device.name} is in "
                    f"{owner[device.name]} and in {name}; give each board once"
                )


def _check_unlike(settings: Settings, opened: "OpenDevices") -> None:
    """Raise UsageError for boards of which every design would have one latency."""
    if opened.boards is None or not opened.unlike:
        return
    options = (settings.device, *settings.device.unlike)
    names = [settings.device.boards.first[0], *opened.unlike]
    seen: dict[tuple[Any, ...], str] = {}
    for name, each, pool in zip(
        names, options, (opened.boards, *opened.unlike.values()), strict=True
    ):
        told = (pool.hello().fingerprint, each.runtime, each.runtime_threads)
        if told in seen:
            raise UsageError(
                f"--device {settings.device.names[0]}: {seen[told]} and {name} are equal boards "
                f"with one runtime and number of threads; give --device {seen[told]} --device "
                f"{name} to share the work between them"
            )
        seen[told] = name


def load_data(settings: Settings, step: Step, modalities: Collection[Modality] = BOTH) -> DataSet:
    """The data that the settings name, and of them what is asked for. Raises DataError.

    Without `--modality`, texts are read also for spaces that do not use them. The fingerprint of
    the data depends on what was read, and studies of earlier versions have to be found again.
    """
    data = _read(settings, step, modalities)
    return seven_classes(data) if settings.data.score_classes == len(SEVEN) else data


def _read(settings: Settings, step: Step, modalities: Collection[Modality]) -> DataSet:
    cache = home() / "data"
    texts = not settings.data.read
    read = tuple(m for m in MODALITIES if m in modalities or (m == "text" and texts))
    sounds = " and sounds" if "audio" in read else ""
    if settings.data.built_in is not None:
        step("drawing the built-in data", 0, 1)
        return settings.data.built_in.draw(cache, modalities=read)
    return load(
        settings.data.folder(cache),
        cache=cache,
        modalities=read,
        accept_faults=settings.data.accept_faults,
        progress=lambda k, n: step(f"frames{sounds}", k, n),
    )


def load_space_of(settings: Settings) -> SearchSpace:
    """The search space that the settings name. Raises SpaceError or EncoderError."""
    small = "trimodal" if settings.preset.grid == TRIMODAL else "demo"
    default = small if settings.data.built_in is not None else "paper"
    weights: Weights | None = settings.space.weights  # type: ignore[assignment]
    space = load_space(
        settings.space.name or default,
        settings.space.text_encoders,
        settings.space.vision_encoders,
        settings.space.audio_encoders,
        weights,
        settings.data.read,
        settings.space.image_sizes,
        settings.space.image_tokens,
        settings.space.lora_ranks,
        settings.space.image_merging,
    )
    shipped = (settings.space.name or default) in names()
    own = precisions_of(settings.device.runtime) if shipped else ()
    precisions = tuple(dict.fromkeys(settings.space.precisions)) or own
    return replace(space, precisions=precisions) if precisions else space


def data_label(data: DataSet) -> str:
    """The data's name on screen and page; built-in data are named as `--data` names them."""
    return f"built-in:{data.kind}" if data.kind in DRAWN else data.name


def study_name(settings: Settings, data: DataSet, space: SearchSpace) -> str:
    """The name given, or one of preset, data and space. Raises StorageError."""
    return default_name(settings, data.kind if data.kind in DRAWN else data.name, space)


def open_context(
    settings: Settings, step: Step, stored: StoredProtocol | None = None
) -> StudyContext:
    """Loads data and encoders, starts the device, and chooses sampler and how to train.

    Another machine, or a later one, would choose to train otherwise: what of the training protocol
    was chosen for the machine that began the study is taken over from `stored`. Raises DataError,
    SpaceError, EncoderError, DeviceError, SharedStoreError, and what `stored` raises.
    """
    where = home(make=True)
    url = store_url(settings.search.store)
    shared = None if url is None else SharedStore(url, where / STORE)
    opened = open_devices(settings, where, step)
    try:
        return _context_on(opened, settings, step, stored, shared)
    except BaseException:
        opened.close()
        raise


def _context_on(
    opened: "OpenDevices",
    settings: Settings,
    step: Step,
    stored: StoredProtocol | None,
    shared: SharedStore | None,
) -> StudyContext:
    where = home()
    space, grid = load_space_of(settings), None
    data = load_data(settings, step, space.modalities)
    for k in range(FOLDS if settings.training.cv else 0):
        fold(data, k, FOLDS)  # what cannot be cut is told before anything is made
    if "audio" in data.modalities and space.audio_encoders:
        longest = math.ceil(longest_seconds(data.samples))
        space = with_shorter_sounds(space, settings.data.seconds or max(1, longest))
    if settings.preset.grid is not None:
        space, grid = grid_in(settings.preset.grid, space)
    _check_asked(settings, space)
    _check_classes(settings, data)
    pair = not settings.search.goals.more
    sampler = chosen(settings.search.sampler, space, settings.search.deferred_timing, pair)
    settings = settings.with_options({"sampler": sampler})
    encoders = {spec.name: spec for spec in space.encoders}
    compute = "cuda" if torch.cuda.is_available() else "cpu"
    preprocessing = Preprocessing(data, space.shapes)
    protocol = chosen_protocol(settings, preprocessing, space, compute)
    began = None if stored is None else stored(study_name(settings, data, space))
    if began is not None:
        protocol = resumed_protocol(protocol, settings.training.trunks, began)
    trainer = new_trainer(
        preprocessing,
        encoders,
        protocol,
        where,
        step,
        compute=Compute(compute, execution_on(compute, settings.training.compile)),
        target=Target(built_for(settings.device.runtime), BY_NAME[settings.device.rewrites]),
        shared=shared,
    )
    builder, quality = trainer.builder, QualityEvaluator(trainer)
    latency = latency_on(opened, settings, builder)
    boards = {}
    for options in settings.device.unlike:
        (name,) = options.names
        target = Target(built_for(options.runtime), BY_NAME[options.rewrites])
        own = builder
        if target.runtime != builder.runtime:
            own = new_builder(preprocessing, encoders, where, target)
        boards[name] = _on_board(opened.unlike[name], options, own, settings)
    store = EvaluationStore(where / "evaluations.jsonl", shared)
    return StudyContext(
        settings,
        data,
        space,
        latency,
        quality,
        store,
        builder,
        where,
        opened.held,
        step,
        grid,
        shared,
        boards,
    )


def _on_board(
    pool: DevicePool, options: DeviceOptions, builder: OnnxBuilder, settings: Settings
) -> LatencyEvaluator:
    """Times designs on a board beside the first one."""
    timing = BOARD_TIMING if options.alone else LOCAL_TIMING
    runs = Runs(*runtime_of(options.runtime), options.runtime_threads, timing)
    return LatencyEvaluator(builder, lambda: pool, runs, settings.search.reuse_shares)


def _check_asked(settings: Settings, space: SearchSpace) -> None:
    """Raises UsageError for an objective or a limit that some design of the space has not."""
    for modality, share in settings.search.reuse_shares.shares:
        if modality not in space.modalities:
            raise UsageError(
                f"--reuse {CALLED[modality]}={share:g}: no design of search space {space.name} "
                f"reads {modality}; leave it out"
            )
    needed = set(space.needed)
    of_so_many = {"robustness-both": 2, "robustness-all": 3}
    for each in settings.search.goals.needed:
        named = each.found_by != "scores"  # those are of the classes
        of = {m for m in MODALITIES if named and each.name.endswith(f"-{m}")}
        count = of_so_many.get(each.name)
        counted = count is None or len(needed) == len(space.modalities) == count
        fused = each.found_by != "use" or len(needed) > 1
        if not (of <= needed and counted and fused):
            raise UsageError(
                f"{each.name}: not every design of search space {space.name} has it, for all that "
                f"every one reads is {', '.join(space.needed) or 'nothing'}; ask for robustness, "
                "or give a space where no modality is optional"
            )


def _check_classes(settings: Settings, data: DataSet) -> None:
    """Raises UsageError for an objective that these classes do not have."""
    if data.multi_label:
        _check_sets(settings)
        return
    of_sets = [each.name for each in settings.search.goals.needed if each.name in OF_SETS]
    if of_sets:
        raise UsageError(
            f"{of_sets[0]}: each sample of these data has one class, and this objective is for "
            "multi-label data; leave it out, or ask for macro-f1"
        )
    numeric = [each.name for each in settings.search.goals.needed if each.name in OF_NUMBERS]
    if numeric and class_values(data.classes) is None:
        scored = any(sample.score is not None for sample in data.samples)
        raise UsageError(
            f"{numeric[0]}: the classes of these data are no numbers "
            f"({', '.join(data.classes[:3])}); "
            + ("give --score-classes 7" if scored else "leave it out")
        )


def _check_sets(settings: Settings) -> None:
    """Raises UsageError for what multi-label data do not have."""
    for each in settings.search.goals.needed:
        if each.name in OF_NUMBERS:
            raise UsageError(
                f"{each.name}: these data are multi-label, and a set of classes is no number; "
                "leave it out, or ask for macro-f1, micro-f1 or mean-average-precision"
            )
        if each.name not in BUILT_IN_OBJECTIVES:
            raise UsageError(
                f"{each.name}: objectives of plugins are given one class a sample, and these data "
                "are multi-label; leave it out"
            )


def check_single_label(data: DataSet, what: str, out: str) -> None:
    """Raise UsageError for multi-label data, of which `what` makes no sense; `out` is to do."""
    if data.multi_label:
        raise UsageError(
            f"{what} needs one class per sample, and {data.name} is multi-label (column labels): "
            f"{out}"
        )


@dataclass(frozen=True)
class OpenDevices:
    """Where designs are timed.

    Attributes:
        open: opens the device, or gives the boards, which are open.
        boards: the boards; None on this machine.
        held: the lock on the local agent's home; None on boards.
        unlike: the boards beside the first one, by name.
    """

    open: Callable[[], TimingDevice]
    boards: DevicePool | None
    held: NamedLock | None
    unlike: Mapping[str, DevicePool] = field(default_factory=dict)

    def close(self) -> None:
        """End the agents, and let go of the lock."""
        for pool in (self.boards, *self.unlike.values()):
            if pool is not None:
                pool.close()
        if self.held is not None:
            self.held.release()


def open_devices(settings: Settings, where: Path, step: Step) -> OpenDevices:
    """Open the devices and see that they have the runtime, before anything is made for them.

    Raises DeviceError, RuntimeMissing for a device without the runtime.
    """
    runtime, provider = runtime_of(settings.device.runtime)
    if settings.device.names != (LOCAL,):
        return _open_boards(settings, where, step)
    device, held = local_device(where, settings.device.runtime)
    opened = OpenDevices(device, None, held)
    if settings.device.runtime != "cpu":  # without onnxruntime nothing is built here
        try:
            client = device()
            try:
                check_runtime(client.hello(), runtime, provider, LOCAL)
            finally:
                client.close()
        except BaseException:
            opened.close()
            raise
    return opened


def _open_boards(settings: Settings, where: Path, step: Step) -> OpenDevices:
    """The boards of the settings, each with its runtime.

    Raises UsageError, DevicesError, DeviceError, RuntimeMissing.
    """
    _check_apart(settings)
    pools: list[DevicePool] = []
    try:
        for options in (settings.device, *settings.device.unlike):
            pools.append(_pool(options.boards.first, where, step))
            check_runtime(pools[-1].hello(), *runtime_of(options.runtime), pools[-1].name)
        first, *others = pools
        names = (board.name for board in settings.device.boards.unlike)
        opened = OpenDevices(lambda: first, first, None, dict(zip(names, others, strict=True)))
        _check_unlike(settings, opened)
    except BaseException:
        for pool in pools:
            pool.close()
        raise
    return opened


def latency_on(opened: OpenDevices, settings: Settings, builder: OnnxBuilder) -> LatencyEvaluator:
    """Times designs on open devices."""
    timing = BOARD_TIMING if settings.device.alone else LOCAL_TIMING
    runs = Runs(*runtime_of(settings.device.runtime), settings.device.runtime_threads, timing)
    device = opened.open
    if opened.boards is None and settings.search.workers > 1:
        device = at_first_priority(device)
        give_way()
    return LatencyEvaluator(builder, device, runs, settings.search.reuse_shares)


def local_device(where: Path, runtime: str) -> tuple[Callable[[], TimingDevice], NamedLock]:
    """Opens this machine as a device that takes turns, and the lock on its agent's home.

    Whoever times here has to: two networks timed at once would both be kept as slow. `runtime` is
    what --runtime takes.
    """
    plugin = for_agent(runtime)
    agent_home, held = _own_agent_home(where / "device")
    turn = NamedLock(where / "device" / "timing.lock")
    return lambda: TimingInTurns(open_local_device(agent_home, plugin=plugin), turn), held
