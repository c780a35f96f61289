"""What a run is asked to do: a preset from TOML, overridden by flags."""

import os
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from evaluators.data import BUILT_IN, BUILT_IN_PREFIX, FACES, BuiltIn
from evaluators.devices.registry import LOCAL, Devices, DevicesError
from search_space.design.genotype import PRECISIONS, Precision
from search_space.errors import USAGE, FusionNasError
from studies.ablations.designs import kinds
from studies.infra.locations import default_url
from studies.infra.priority import can_give_way
from studies.results.objectives import Goals, goals
from studies.samplers.registry import AUTO, BLIND, SAMPLERS

if TYPE_CHECKING:
    from studies.config.superfuse import Superfuse

_PRESETS = files("studies") / "presets"
_BOTH = {"title": str, "seed": int, "trunks": str}
_KEYS = {**_BOTH, "trials": int, "sampler": str}
_GRID_KEYS = {**_BOTH, "grid": str, "about": str}
_OPTIONAL = {"beside": str}
"""What a preset of a fixed list of designs says in place of trials and sampler."""
TRUNKS = ("auto", "frozen", "text-tuned", "tuned", "by-stage", "whole")
PROTOCOLS = ("fair", "paper")
WEIGHTS = ("pretrained", "random")
RUNTIMES = {
    "cpu": ("onnxruntime", "CPUExecutionProvider"),
    "cuda": ("onnxruntime", "CUDAExecutionProvider"),
    "tensorrt": ("tensorrt", "GPU"),
}
"""Runtime and provider of the device's agent by what --runtime takes."""
PRECISIONS_OF: dict[str, tuple[Precision, ...]] = {
    "cuda": ("fp32", "fp16"),
    "tensorrt": ("fp32", "fp16", "int8"),
}
"""What the spaces that come with the toolkit, made for a CPU, hold for other runtimes."""
MAX_SEED = 2**32 - 1
"""What samplers can tell apart."""
MAX_SEEDS = 100
MAX_WORKERS = 64
MAX_THREADS = 1024
"""What the device agent takes."""
MAX_PORT = 2**16 - 1
TIMINGS = ("auto", "alone", "shared")
REWRITES = ("all", "none", "own-length")


class UsageError(FusionNasError):
    """A flag or name that cannot be meant; the text names it and what can."""

    exit_code = USAGE


def check_choice(flag: str, value: str, known: tuple[str, ...]) -> None:
    """Raises UsageError for a value that is none of those known."""
    if value not in known:
        raise UsageError(f"{flag} {value!r}: choose one of {', '.join(known)}")


def check_range(flag: str, value: int, low: int, high: int, meaning: str = "") -> None:
    """Raises UsageError for a value out of `low` to `high`; `meaning` is that of `low`."""
    if not low <= value <= high:
        lowest = f"{low} ({meaning})" if meaning else str(low)
        raise UsageError(f"{flag} {value}: give {lowest} to {high}")


def check_threads(threads: int) -> None:
    """Raises UsageError for a number of threads that no device takes."""
    check_range("--threads", threads, 0, MAX_THREADS, "the runtime's choice")


@dataclass(frozen=True)
class Settings:
    """Everything that a run is told. `data` names a folder or a built-in set, None stands for
    `built-in:faces`; `space` None for `demo` with a built-in set and for `paper` with any other
    data; no `precisions` for the space's.
    `grid` names a fixed list of designs to run in place of a search, all of it where `trials` is
    None; `about` says what it compares. `objectives` are those beside accuracy and latency,
    `limits` are each NAME=NUMBER, `noise` is the greatest factor that robustness is asked under.
    `beside` are data that the same list runs on too, to be set side by side."""

    preset: str
    title: str
    trials: int | None
    sampler: str
    seed: int
    trunks: str
    data: str | None = None
    accept_faults: bool = False
    text_only: bool = False
    space: str | None = None
    text_encoders: tuple[str, ...] = ()
    vision_encoders: tuple[str, ...] = ()
    audio_encoders: tuple[str, ...] = ()
    weights: str | None = None
    devices: tuple[str, ...] = (LOCAL,)
    threads: int = 0
    timing: str = "auto"
    rewrites: str = "all"
    runtime: str = "cpu"
    precisions: tuple[Precision, ...] = ()
    latency_limit_ms: float | None = None
    storage: str = ""
    name: str | None = None
    seed_paper: bool = False
    protocol: str = "fair"
    compile: bool = False
    cv: bool = False
    probe: bool = False
    deferred_timing: bool = False
    fine_tune: int = 0
    workers: int = 1
    objectives: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    noise: float | None = None
    time_missing: bool = False
    seeds: int = 1
    grid: str | None = None
    about: str = ""
    beside: str | None = None
    superfuse: "Superfuse | None" = None

    def __post_init__(self) -> None:
        checks = (
            ("--sampler", self.sampler, (AUTO, *SAMPLERS)),
            ("--trunks", self.trunks, TRUNKS),
            ("--protocol", self.protocol, PROTOCOLS),
            ("--weights", self.weights or "random", WEIGHTS),
            ("--timing", self.timing, TIMINGS),
            ("--rewrites", self.rewrites, REWRITES),
            ("--runtime", self.runtime, tuple(RUNTIMES)),
            *(("--precision", precision, PRECISIONS) for precision in self.precisions),
        )
        for flag, value, known in checks:
            check_choice(flag, value, known)
        check_threads(self.threads)
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
        if self.grid is not None:
            check_choice("grid", self.grid, kinds())
        if self.trials is not None and self.trials < 1:
            raise UsageError(f"--trials {self.trials}: give 1 or more; it is the study's total")
        if self.latency_limit_ms is not None and not 0 < self.latency_limit_ms < inf:
            raise UsageError(f"--latency-limit {self.latency_limit_ms}: give milliseconds above 0")
        check_range("--seed", self.seed, 0, MAX_SEED)
        check_range("--seeds", self.seeds, 1, MAX_SEEDS)
        check_range("--workers", self.workers, 1, MAX_WORKERS)
        if self.seed + self.seeds - 1 > MAX_SEED:
            raise UsageError(
                f"--seed {self.seed} with --seeds {self.seeds}: the last seed is over {MAX_SEED}; "
                "give a smaller --seed"
            )
        if self.rewrites == "own-length" and self.runtime == "tensorrt":
            raise UsageError(
                "--rewrites own-length with --runtime tensorrt: its engines take texts of one "
                "length; give all"
            )
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
        for modality, named in (("vision", self.vision_encoders), ("audio", self.audio_encoders)):
            if self.text_only and named:
                raise UsageError(
                    f"--text-only with --{modality}-encoder {named[0]}: give one of them"
                )
        self._check_devices()
        self._check_goals()
        self._check_data()

    @property
    def built_in(self) -> BuiltIn | None:
        """The built-in set that the data are; None where they are a folder."""
        return BUILT_IN.get(self.data or FACES)

    def _check_data(self) -> None:
        if self.data is None or self.built_in is not None:
            return
        if self.data.startswith(BUILT_IN_PREFIX):
            check_choice("--data", self.data, tuple(BUILT_IN))
        if not Path(self.data).expanduser().exists():
            raise UsageError(
                f"--data {self.data}: there is no such folder; give one that holds label.csv, or "
                f"one of {', '.join(BUILT_IN)}"
            )

    @property
    def goals(self) -> Goals:
        """What is searched for. Raises UsageError for what cannot be meant."""
        try:
            return goals(self.objectives, self.limits)
        except ValueError as error:
            raise UsageError(str(error)) from error

    def _check_goals(self) -> None:
        found = self.goals
        noisy = [each for each in found.needed if each.found_by == "robustness"]
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
        trained = [each for each in found.needed if each.found_by in ("robustness", "use")]
        if self.cv and trained:
            raise UsageError(
                f"--cv with {trained[0].name}: that is judged on the validation split alone; leave "
                "one out"
            )
        of_one = [each.name for each in trained if each.name != "robustness"]
        if self.text_only and of_one:
            raise UsageError(f"--text-only with {of_one[0]}: there is one modality; leave one out")
        if not found.more:
            return
        given = {
            "--sampler ehvi": self.sampler == "ehvi",
            "--probe": self.probe,
            "--deferred-timing": self.deferred_timing,
            "--fine-tune": bool(self.fine_tune),
        }
        for flag, is_given in given.items():
            if is_given:
                raise UsageError(
                    f"{flag} with --objective {found.more[0].name}: it weighs accuracy and latency "
                    "alone; leave one of them out"
                )

    def _check_devices(self) -> None:
        if len(set(self.devices)) != len(self.devices):
            raise UsageError(f"--device {', '.join(self.devices)}: give each device once")
        if LOCAL in self.devices and self.workers > 1:
            self._check_training_beside_timing()
        if LOCAL in self.devices and len(self.devices) > 1:
            raise UsageError(
                f"--device {', '.join(self.devices)}: {LOCAL!r} cannot share a study with others: "
                "it is no twin of a board"
            )
        if not self.devices:
            raise UsageError(f"--device: give {LOCAL} or the name of a device")

    def _check_training_beside_timing(self) -> None:
        """Here training gives way to what times, but only on processor cores."""
        beside = {
            "--timing alone": self.timing == "alone",
            f"--runtime {self.runtime}": self.runtime != "cpu",
            "this system's priorities": not can_give_way(),
        }
        for what, stands_against in beside.items():
            if stands_against:
                raise UsageError(
                    f"--workers {self.workers} with --device {LOCAL} and {what}: training would "
                    "disturb its timings; give a board, or leave --workers out"
                )


def preset_names() -> tuple[str, ...]:
    """The studies that come with the toolkit."""
    return tuple(sorted(f.name.removesuffix(".toml") for f in _PRESETS.iterdir()))


def load_settings(preset: str, **flags: Any) -> Settings:
    """The preset of this name, or in this TOML file, with the flags that are not None on top.

    Raises UsageError for a preset that is unknown or malformed, a flag out of its range, or a
    device that there is not.
    """
    if preset in preset_names():
        text = (_PRESETS / f"{preset}.toml").read_text(encoding="utf-8")
    elif Path(preset).is_file():
        text = Path(preset).read_text(encoding="utf-8", errors="replace")
    else:
        raise UsageError(
            f"no study {preset!r}: choose {' or '.join(preset_names())}, or give a TOML file"
        )
    try:
        fields = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"study {preset}: not TOML ({error})") from error
    from studies.config import superfuse

    of_superfuse = "superfuse" in fields
    of_grid = _GRID_KEYS | _OPTIONAL
    keys = superfuse.KEYS if of_superfuse else of_grid if "grid" in fields else _KEYS
    wrong = [f"{key} is not a setting" for key in fields.keys() - keys.keys()]
    wrong += [f"{key} is missing" for key in keys.keys() - fields.keys() - _OPTIONAL.keys()]
    wrong += [
        f"{key} = {value!r} is not {keys[key].__name__}"
        for key, value in fields.items()
        if key in keys and type(value) is not keys[key]
    ]
    if wrong:
        raise UsageError(f"study {preset}: " + "; ".join(sorted(wrong)))
    given = {key: value for key, value in flags.items() if value is not None}
    if of_superfuse:
        fields["superfuse"], given = superfuse.superfuse_of(preset, fields["superfuse"], given)
        fields |= {"trials": None, "sampler": "random", "trunks": "frozen"}
    else:
        given = superfuse.refuse_own_flags(preset, given)
    if "grid" in fields:
        _check_no_search(preset, given)
        # Such lists compare designs as they are written.
        fields |= {"trials": None, "sampler": "random", "rewrites": "none"}
    settings = Settings(
        **{"preset": Path(preset).stem, "storage": default_url(), **fields, **given}
    )
    for name in settings.devices:
        if name != LOCAL:
            _check_known(name)
    return settings


def _check_no_search(preset: str, given: dict[str, Any]) -> None:
    """Raises UsageError for flags of a search that a fixed list of designs has no use for."""
    names = {"objectives": "objective", "limits": "limit"}
    searched = ("sampler", "seed_paper", "cv", "probe", "deferred_timing", "fine_tune")
    for flag in (*searched, *names):
        if given.get(flag):
            said = names.get(flag, flag).replace("_", "-")
            raise UsageError(
                f"--{said}: study {preset} tries a fixed list of designs; leave this flag out"
            )


def _check_known(name: str) -> None:
    try:
        devices().get(name)
    except DevicesError as error:
        raise UsageError(f"--device {name!r}: {error}") from error


def devices() -> Devices:
    """The devices of this home."""
    return Devices(home() / "devices.json")


def home() -> Path:
    """Where evaluations, features and weights are kept: FUSION_NAS_HOME, or the user's data."""
    given = os.environ.get("FUSION_NAS_HOME")
    return Path(given).expanduser() if given else platformdirs.user_data_path("fusion-nas")
