"""What a run is asked to do: a preset from TOML, overridden by flags."""

import os
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from math import inf
from pathlib import Path
from typing import Any

import platformdirs

from studies.samplers import SAMPLERS
from studies.storage import default_url

_PRESETS = files("studies") / "presets"
_KEYS = {"title": str, "trials": int, "sampler": str, "seed": int, "trunks": str}
TRUNKS = ("auto", "frozen", "text-tuned", "tuned", "by-stage")
MISSING = ("few", "drop", "error")
WEIGHTS = ("pretrained", "random")


class UsageError(Exception):
    """A flag or name that cannot be meant; the text names it and what can."""


def check_choice(flag: str, value: str, known: tuple[str, ...]) -> None:
    """Raises UsageError for a value that is none of those known."""
    if value not in known:
        raise UsageError(f"{flag} {value!r}: choose one of {', '.join(known)}")


@dataclass(frozen=True)
class Settings:
    """Everything that a run is told. `space` None stands for `demo` with the rendered data and
    `paper` with any other; `data` None for the rendered data."""

    preset: str
    title: str
    trials: int
    sampler: str
    seed: int
    trunks: str
    data: str | None = None
    missing: str = "few"
    space: str | None = None
    text_encoders: tuple[str, ...] = ()
    vision_encoders: tuple[str, ...] = ()
    weights: str | None = None
    device: str = "local"
    threads: int = 0
    latency_limit_ms: float | None = None
    storage: str = ""
    name: str | None = None
    seed_paper: bool = False

    def __post_init__(self) -> None:
        checks = (
            ("--sampler", self.sampler, tuple(SAMPLERS)),
            ("--trunks", self.trunks, TRUNKS),
            ("--missing", self.missing, MISSING),
            ("--weights", self.weights or "random", WEIGHTS),
        )
        for flag, value, known in checks:
            check_choice(flag, value, known)
        if self.threads < 0:
            raise UsageError(f"--threads {self.threads}: give 0 (the runtime's choice) or more")
        if self.trials < 1:
            raise UsageError(f"--trials {self.trials}: give 1 or more; it is the study's total")
        if self.latency_limit_ms is not None and not 0 < self.latency_limit_ms < inf:
            raise UsageError(f"--latency-limit {self.latency_limit_ms}: give milliseconds above 0")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: give 0 or more")
        if self.device != "local":
            raise UsageError(f"--device {self.device!r}: the only device known here is 'local'")
        if self.data is not None and not Path(self.data).expanduser().exists():
            raise UsageError(
                f"--data {self.data}: there is no such folder; give one that holds label.csv, or "
                "leave it out for the rendered data"
            )


def preset_names() -> tuple[str, ...]:
    """The studies that come with the toolkit."""
    return tuple(sorted(f.name.removesuffix(".toml") for f in _PRESETS.iterdir()))


def load_settings(preset: str, **flags: Any) -> Settings:
    """The preset of this name, or in this TOML file, with the flags that are not None on top.

    Raises UsageError for a preset that is unknown or malformed, or a flag out of its range.
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
    wrong = [f"{key} is not a setting" for key in fields.keys() - _KEYS.keys()]
    wrong += [f"{key} is missing" for key in _KEYS.keys() - fields.keys()]
    wrong += [
        f"{key} = {value!r} is not {_KEYS[key].__name__}"
        for key, value in fields.items()
        if key in _KEYS and type(value) is not _KEYS[key]
    ]
    if wrong:
        raise UsageError(f"study {preset}: " + "; ".join(sorted(wrong)))
    given = {key: value for key, value in flags.items() if value is not None}
    return Settings(**{"preset": Path(preset).stem, "storage": default_url(), **fields, **given})


def home() -> Path:
    """Where evaluations, features and weights are kept: FUSION_NAS_HOME, or the user's data."""
    given = os.environ.get("FUSION_NAS_HOME")
    return Path(given).expanduser() if given else platformdirs.user_data_path("fusion-nas")
