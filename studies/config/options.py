"""The options of a study, in groups; each checks its own values."""

from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, cast

from evaluators.data import BUILT_IN, BUILT_IN_PREFIX, FACES, BuiltIn
from evaluators.data.plugins import data_set_names, is_data_set, plugin_folder
from evaluators.data.plugins import why_unusable as why_data_unusable
from evaluators.devices.registry import LOCAL
from evaluators.devices.runtimes import plugin_runtime, runtime_names, why_unusable
from evaluators.latency.reuse import Reuse, reuse_of
from evaluators.statistics.ratio import LEAST_ROUNDS
from search_space.design.encoder import MAX_IMAGE_SIZE, MAX_SECONDS, MIN_IMAGE_SIZE
from search_space.design.genotype import IMAGE_TOKENS, PRECISIONS, Precision
from search_space.modality import MODALITIES, Modality
from studies.ablations.designs import kinds
from studies.config.boards import Boards, boards_of
from studies.config.usage import MAX_SEEDS, UsageError, check_choice, check_range, check_threads
from studies.results.objectives import Goals, goals
from studies.samplers.registry import AUTO, BLIND, SAMPLERS

if TYPE_CHECKING:
    from evaluators.onnx.quantisation import For
    from studies.config.superfuse import Superfuse

TRUNKS = ("auto", "frozen", "text-tuned", "tuned", "by-stage", "whole")
PROTOCOLS = ("fair", "paper")
WEIGHTS = ("pretrained", "random")
RUNTIMES: dict[str, tuple[str, str]] = {
    "cpu": ("onnxruntime", "CPUExecutionProvider"),
    "cuda": ("onnxruntime", "CUDAExecutionProvider"),
    "tensorrt": ("tensorrt", "GPU"),
    "openvino": ("openvino", "CPU"),
}
"""Runtime and provider of the device's agent by what --runtime takes, beside those of plugins."""
ON_PROCESSOR = ("cpu", "openvino")
"""Those whose number of threads counts, beside those of plugins that say so."""
PRECISIONS_OF: dict[str, tuple[Precision, ...]] = {
    "cuda": ("fp32", "fp16"),
    "tensorrt": ("fp32", "fp16", "int8"),
    "openvino": ("fp32",),
}
"""What the spaces that come with the toolkit, made for a CPU, hold for other runtimes."""


def runtime_of(name: str) -> tuple[str, str]:
    """Return runtime and provider of the device's agent for what --runtime takes."""
    plugin = plugin_runtime(name)
    return RUNTIMES[name] if plugin is None else (name, plugin.provider)


def built_for(runtime: str) -> "For":
    """Return whose graphs a runtime takes: those of ONNX Runtime, but for TensorRT."""
    return "tensorrt" if runtime == "tensorrt" else "onnxruntime"


def counts_threads(runtime: str) -> bool:
    """Whether a runtime is on the processor, so that its number of threads counts."""
    plugin = plugin_runtime(runtime)
    return runtime in ON_PROCESSOR if plugin is None else plugin.on_processor


def precisions_of(runtime: str) -> tuple[Precision, ...]:
    """Return the precisions that built-in spaces hold for a runtime; empty for their own."""
    plugin = plugin_runtime(runtime)
    own = PRECISIONS_OF.get(runtime, ()) if plugin is None else plugin.precisions
    return cast(tuple[Precision, ...], own)


def _check_runtime(name: str, devices: tuple[str, ...]) -> None:
    """Raise UsageError for a runtime that is not there, or not on these devices."""
    if name in RUNTIMES:
        return
    if failure := why_unusable(name):
        raise UsageError(f"--runtime {failure}")
    if plugin_runtime(name) is None:
        known = ", ".join(runtime_names())
        raise UsageError(
            f"--runtime {name!r}: choose one of {known}, or install the plugin that has it"
        )
    if devices != (LOCAL,):
        raise UsageError(
            f"--runtime {name} with --device {', '.join(devices)}: the runtime of a plugin is for "
            f"{LOCAL} alone; choose one of {', '.join(RUNTIMES)}"
        )


MAX_SEED = 2**32 - 1
"""What samplers can tell apart."""
MAX_WORKERS = 64
ENGINES = ("local", "dask")
MAX_FINAL_READINGS = 100
MAX_PORT = 2**16 - 1
TIMINGS = ("auto", "alone", "shared")
REWRITES = ("all", "none", "own-length")


@dataclass(frozen=True)
class DataOptions:
    """What designs are trained on.

    Attributes:
        source: a folder, a built-in set or one of a plugin by name; None stands for
            `built-in:faces`.
        accept_faults: use data that fail the check as they are.
        text_only: read texts alone, as `modalities` of text.
        modalities: what is read of the data, where not all that the space has encoders for.
        seconds: of sound that are read, at most what the encoder states; None for those of the
            longest sound of the data.
        score_classes: classes that scores from -3 to 3 become, as CMU-MOSI has them: 2 for negative
            and non-negative, 7 for scores rounded to whole numbers.
        beside: other data that a fixed list of designs runs on too, to be set side by side.
    """

    source: str | None = None
    accept_faults: bool = False
    text_only: bool = False
    beside: str | None = None
    modalities: tuple[Modality, ...] = ()
    seconds: int | None = None
    score_classes: int = 2

    def __post_init__(self) -> None:
        if self.score_classes not in (2, 7):
            raise UsageError(f"--score-classes {self.score_classes}: give 2 or 7")
        for modality in self.modalities:
            check_choice("--modality", modality, MODALITIES)
        if self.text_only and self.modalities:
            raise UsageError("--text-only with --modality: give one of them")
        if self.seconds is not None:
            check_range("--seconds", self.seconds, 1, MAX_SECONDS)
        if self.source is None or self.built_in is not None:
            return
        if not self.source.strip():
            raise UsageError(f"--data {self.source!r}: give a folder, or leave --data out")
        if self.source.startswith(BUILT_IN_PREFIX):
            check_choice("--data", self.source, tuple(BUILT_IN))
        if Path(self.source).expanduser().exists() or self.plugin is not None:
            return
        if failure := why_data_unusable(self.source):
            raise UsageError(f"--data {failure}")
        raise UsageError(
            f"--data {self.source}: there is no such folder; give one that holds label.csv, "
            f"or one of {', '.join((*BUILT_IN, *data_set_names()))}, or install the plugin that "
            "has it"
        )

    @property
    def read(self) -> tuple[Modality, ...]:
        """The modalities that are asked for; empty for all that the space has encoders for."""
        return ("text",) if self.text_only else self.modalities

    @property
    def built_in(self) -> BuiltIn | None:
        """The built-in set that the data are; None where they are a folder."""
        return BUILT_IN.get(FACES if self.source is None else self.source)

    @property
    def plugin(self) -> str | None:
        """The plugin's data set that the data are, by name; a folder of that name comes first."""
        if self.source is None or self.built_in or Path(self.source).expanduser().exists():
            return None
        return self.source if is_data_set(self.source) else None

    def folder(self, cache: Path) -> Path:
        """The folder that the data are read from; one of a plugin is written there if need be.

        Raises DataError for a plugin that cannot give its data.
        """
        if self.plugin is not None:
            return plugin_folder(self.plugin, cache)
        return Path(self.source or "").expanduser()


@dataclass(frozen=True)
class SpaceOptions:
    """Which designs there are.

    Attributes:
        name: a space by name, or a TOML file; None for `demo` with a built-in set and `paper`
            with any other data.
        text_encoders, vision_encoders, audio_encoders: instead of the space's own, where given.
        weights: of all encoders; None for what the space says.
        precisions, image_sizes, image_tokens, image_merging, lora_ranks: instead of the space's
            own, where given.
    """

    name: str | None = None
    text_encoders: tuple[str, ...] = ()
    vision_encoders: tuple[str, ...] = ()
    audio_encoders: tuple[str, ...] = ()
    weights: str | None = None
    precisions: tuple[Precision, ...] = ()
    image_sizes: tuple[int, ...] = ()
    image_tokens: tuple[int, ...] = ()
    image_merging: tuple[int, ...] = ()
    lora_ranks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_choice("--weights", self.weights or "random", WEIGHTS)
        for precision in self.precisions:
            check_choice("--precision", precision, PRECISIONS)
        for size in self.image_sizes:
            check_range("--image-size", size, MIN_IMAGE_SIZE, MAX_IMAGE_SIZE)
        if len(set(self.image_sizes)) < len(self.image_sizes):
            raise UsageError("--image-size: a size is given twice; leave one out")
        for count in self.image_tokens:
            if count not in IMAGE_TOKENS:
                known = ", ".join(map(str, IMAGE_TOKENS))
                raise UsageError(f"--image-tokens {count}: choose one of {known} (0 for all)")
        if len(set(self.image_tokens)) < len(self.image_tokens):
            raise UsageError("--image-tokens: a number is given twice; leave one out")
        for pairs in self.image_merging:
            if pairs < 0:
                raise UsageError(f"--image-merging {pairs}: give 0 (no merging) or more")
        if len(set(self.image_merging)) < len(self.image_merging):
            raise UsageError("--image-merging: a number is given twice; leave one out")
        for rank in self.lora_ranks:
            if rank < 0:
                raise UsageError(f"--lora-rank {rank}: give 0 (no adapters) or more")
        if len(set(self.lora_ranks)) < len(self.lora_ranks):
            raise UsageError("--lora-rank: a rank is given twice; leave one out")


@dataclass(frozen=True)
class DeviceOptions:
    """Where and how designs are timed.

    Attributes:
        names: `local`, the names or tags of boards of one kind, or one text of unlike boards,
            separated by commas (`studies.config.boards`).
        threads: of one operator; 0 for the runtime's choice; None for 1 on `local`, else 0.
        timing: a key of TIMINGS; `auto` is `shared` on `local`, else `alone`.
        rewrites: exact rewrites before timing, a key of REWRITES.
        runtime: a key of RUNTIMES, or the runtime of a plugin.
        final_readings: times that the front and named designs are timed again at the end, in turns;
            0 for not at all; None for 12 short readings on a device that does other work, else 4.
        retime: time designs again then that were timed under load.
    """

    names: tuple[str, ...] = (LOCAL,)
    threads: int | None = None
    timing: str = "auto"
    rewrites: str = "all"
    runtime: str = "cpu"
    final_readings: int | None = None
    retime: bool = False

    @property
    def boards(self) -> Boards:
        """The boards that are named. Raises UsageError."""
        return boards_of(self.names)

    @property
    def unlike(self) -> tuple["DeviceOptions", ...]:
        """How each unlike board beside the first times designs; each has one name."""
        return tuple(
            replace(
                self,
                names=(board.name,),
                runtime=board.runtime or self.runtime,
                threads=self.threads if board.threads is None else board.threads,
            )
            for board in self.boards.unlike
        )

    @property
    def runtime_threads(self) -> int:
        """Threads of one operator; 0 for the runtime's choice.

        One on `local` unless another number is given: a workstation does other work, and a design
        of 1.6 ms was read as 31 ms with all threads while it did, but steadily with one.
        """
        if self.threads is not None:
            return self.threads
        return 1 if self.names == (LOCAL,) else 0

    @property
    def alone(self) -> bool:
        """Whether timing takes the device to do nothing else."""
        return self.timing == "alone" or (self.timing == "auto" and self.names != (LOCAL,))

    @property
    def rounds(self) -> int:
        """Final readings of each design.

        Where other work shares the device there are more, and each is short: see
        `evaluators.latency.evaluator.brief`.
        """
        if self.final_readings is not None:
            return self.final_readings
        return 4 if self.alone else 12

    def __post_init__(self) -> None:
        check_choice("--timing", self.timing, TIMINGS)
        for board in self.boards.unlike:
            if board.runtime is not None:
                _check_runtime(board.runtime, self.names)
        check_choice("--rewrites", self.rewrites, REWRITES)
        _check_runtime(self.runtime, self.names)
        if self.threads is not None:
            check_threads(self.threads)
        if self.final_readings:
            check_range(
                "--final-readings",
                self.final_readings,
                LEAST_ROUNDS,
                MAX_FINAL_READINGS,
                "intervals are over readings; 0 leaves them out",
            )
        elif self.retime and self.final_readings == 0:
            raise UsageError(
                "--retime with --final-readings 0: nothing is timed again; leave one out"
            )
        if not self.names:
            raise UsageError(f"--device: give {LOCAL} or the name of a device")
        named = ", ".join(self.names)
        if len(set(self.names)) != len(self.names):
            raise UsageError(f"--device {named}: give each device once")
        if LOCAL in self.names and len(self.names) > 1:
            raise UsageError(
                f"--device {named}: {LOCAL!r} cannot share a study with others: it is no twin of a "
                "board"
            )
        if self.rewrites == "own-length" and any(
            board.runtime == "tensorrt" for board in self.boards.unlike
        ):
            raise UsageError(
                f"--rewrites own-length with --device {named}: engines of TensorRT take texts of "
                "one length; give all"
            )
        if self.rewrites == "own-length" and self.runtime == "tensorrt":
            raise UsageError(
                "--rewrites own-length with --runtime tensorrt: its engines take texts of one "
                "length; give all"
            )


@dataclass(frozen=True)
class SearchOptions:
    """What is searched for, and how.

    Attributes:
        trials: finished trials in all; None for every design of a fixed list.
        sampler: a key of SAMPLERS, or `auto`.
        seed_paper: try the designs of arXiv 2511.21889 first.
        latency_limit_ms: slower designs are infeasible and not trained.
        objectives: those beside accuracy and latency.
        limits: each NAME=NUMBER on an objective.
        noise: the greatest factor that robustness is asked under.
        probe: stop designs whose features promise little before they are trained.
        deferred_timing: train first, and time at the end what may stand on the front.
        time_missing: time each design of the front without each modality too.
        reuse: shares of inputs that are not encoded again, each as image=0.8; the latency is then
            the expected one.
        workers: processes that search side by side.
        engine: what places them, one of ENGINES.
        scheduler: address of Dask's scheduler; None for a cluster of its own on this machine.
        store: URL of a store that hosts share; None for what FUSION_NAS_STORE says, if anything.
        take_over: take over trials whose workers never showed a sign of life.
        from_study: another study, as NAME or NAME@FILE.db, whose front is timed first.
        track: trackers that finished trials are logged to, each KIND or KIND=WHERE.
        hours: stop after so many hours of this run.
        patience: stop after so many trials in a row that add no hypervolume.
    """

    trials: int | None = None
    sampler: str = AUTO
    seed_paper: bool = False
    latency_limit_ms: float | None = None
    objectives: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    noise: float | None = None
    probe: bool = False
    deferred_timing: bool = False
    time_missing: bool = False
    reuse: tuple[str, ...] = ()
    workers: int = 1
    engine: str = "local"
    scheduler: str | None = None
    store: str | None = None
    take_over: bool = False
    from_study: str | None = None
    track: tuple[str, ...] = ()
    hours: float | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        check_choice("--sampler", self.sampler, (AUTO, *SAMPLERS))
        if self.trials is not None and self.trials < 1:
            raise UsageError(f"--trials {self.trials}: give 1 or more; it is the study's total")
        if self.latency_limit_ms is not None and not 0 < self.latency_limit_ms < inf:
            raise UsageError(f"--latency-limit {self.latency_limit_ms}: give milliseconds above 0")
        if self.hours is not None and not 0 < self.hours < inf:
            raise UsageError(f"--hours {self.hours:g}: give hours above 0, as 0.5")
        if self.patience is not None and self.patience < 1:
            raise UsageError(f"--patience {self.patience}: give 1 trial or more")
        check_range("--workers", self.workers, 1, MAX_WORKERS)
        check_choice("--engine", self.engine, ENGINES)
        if self.scheduler is not None and self.engine != "dask":
            raise UsageError(f"--scheduler {self.scheduler} without --engine dask: give both")
        if self.deferred_timing and self.sampler in BLIND:
            raise UsageError(
                f"--sampler {self.sampler} with --deferred-timing: it learns nothing from designs "
                "that are not timed yet; leave --sampler out, or give ehvi"
            )
        if self.probe and self.sampler == "gp":
            raise UsageError(
                "--sampler gp with --probe: it would propose the designs that the probe stopped "
                "again; leave --sampler out, or give ehvi or tpe"
            )
        self._check_noise()
        self._check_reuse()

    @property
    def reuse_shares(self) -> Reuse:
        """The shares of inputs that are not encoded again. Raises UsageError."""
        try:
            return reuse_of(self.reuse)
        except ValueError as error:
            raise UsageError(str(error)) from error

    def _check_reuse(self) -> None:
        if not self.reuse_shares.shares:
            return
        of_the_whole = {
            "--deferred-timing": (self.deferred_timing, "its model predicts whole designs"),
            "--time-missing": (self.time_missing, "designs without a modality are timed whole"),
            "--objective memory": (
                "memory" in [each.name for each in self.goals.needed],
                "peak memory is that of one graph",
            ),
        }
        for flag, (is_given, why) in of_the_whole.items():
            if is_given:
                raise UsageError(
                    f"--reuse {self.reuse[0]} with {flag}: {why}; leave one of them out"
                )

    @property
    def goals(self) -> Goals:
        """What is searched for. Raises UsageError for objectives or limits there are not."""
        try:
            return goals(self.objectives, self.limits)
        except ValueError as error:
            raise UsageError(str(error)) from error

    def _check_noise(self) -> None:
        noisy = [each for each in self.goals.needed if each.found_by == "robustness"]
        if noisy and self.noise is None:
            raise UsageError(
                f"--objective {noisy[0].name} without noise: say up to which factor with --noise, "
                "as --noise 0.95"
            )
        if self.noise is not None and not 0 < self.noise < inf:
            raise UsageError(f"--noise {self.noise:g}: give a number above 0, as 0.95")
        if self.noise is not None and not noisy:
            raise UsageError(
                f"--noise {self.noise:g}: nothing is asked under noise; give --objective "
                "robustness too, or leave it out"
            )


@dataclass(frozen=True)
class TrainingOptions:
    """How designs are trained and judged.

    Attributes:
        protocol: `fair` (all alike) or `paper` (as published).
        trunks: which trunks are trained, a key of TRUNKS.
        compile: compile transformer layers on a GPU.
        cv: judge designs by cross-validation instead of the validation split.
        fine_tune: designs that are trained whole at the end.
        seed, seeds: the first seed, and how many trainings of a design the final test averages.
    """

    protocol: str = "fair"
    trunks: str = "auto"
    compile: bool = False
    cv: bool = False
    fine_tune: int = 0
    seed: int = 0
    seeds: int = 3

    def __post_init__(self) -> None:
        check_choice("--trunks", self.trunks, TRUNKS)
        check_choice("--protocol", self.protocol, PROTOCOLS)
        if self.protocol == "paper" and self.trunks not in ("auto", "by-stage"):
            raise UsageError(
                f"--trunks {self.trunks}: --protocol paper says itself which trunks are trained; "
                "leave --trunks out"
            )
        if self.fine_tune < 0:
            raise UsageError(
                f"--fine-tune {self.fine_tune}: give 1 or more designs, or leave it out"
            )
        if self.fine_tune and (self.protocol == "paper" or self.trunks in ("by-stage", "whole")):
            flag = "--protocol paper" if self.protocol == "paper" else f"--trunks {self.trunks}"
            raise UsageError(
                f"--fine-tune with {flag}: that trains designs whole as it is; leave one out"
            )
        check_range("--seed", self.seed, 0, MAX_SEED)
        check_range("--seeds", self.seeds, 1, MAX_SEEDS)
        if self.seed + self.seeds - 1 > MAX_SEED:
            raise UsageError(
                f"--seed {self.seed} with --seeds {self.seeds}: the last seed is over {MAX_SEED}; "
                "give a smaller --seed"
            )


@dataclass(frozen=True)
class Preset:
    """What a study's file says beside options.

    Attributes:
        name: the preset's.
        title: a line for people.
        grid: a fixed list of designs to run instead of a search.
        about: what that list compares.
        superfuse: the settings of a study of embeddings.
    """

    name: str
    title: str = ""
    grid: str | None = None
    about: str = ""
    superfuse: "Superfuse | None" = None

    def __post_init__(self) -> None:
        if self.grid is not None:
            check_choice("grid", self.grid, kinds())
