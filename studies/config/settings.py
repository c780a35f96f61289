"""What a run is asked to do: a preset from TOML, overridden by flags."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from evaluators.devices.registry import LOCAL, DevicesError
from search_space.design.encoder import MAX_SECONDS
from search_space.redaction import redacted_url
from studies.config.boards import with_objectives
from studies.config.home import devices
from studies.config.options import (
    DataOptions,
    DeviceOptions,
    Preset,
    SearchOptions,
    SpaceOptions,
    TrainingOptions,
)
from studies.config.usage import UsageError
from studies.infra.locations import StorageError, default_url
from studies.infra.priority import can_give_way

_PRESETS = files("studies") / "presets"
_BOTH = {"title": str, "seed": int, "trunks": str}
_KEYS = {**_BOTH, "trials": int, "sampler": str}
_GRID_KEYS = {**_BOTH, "grid": str, "about": str}
_OPTIONAL = {"beside": str}
"""What a preset of a fixed list of designs says instead of trials and sampler."""


@dataclass(frozen=True)
class Settings:
    """Everything that a run is asked to do. `storage` is a URL; `name` the study's, if given.

    `configuration` says which options came from a file, in words; empty for none.

    Every part checks itself; what two parts contradict each other in is checked here.
    """

    preset: Preset
    storage: str = ""
    name: str | None = None
    configuration: str = ""
    data: DataOptions = field(default_factory=DataOptions)
    space: SpaceOptions = field(default_factory=SpaceOptions)
    device: DeviceOptions = field(default_factory=DeviceOptions)
    search: SearchOptions = field(default_factory=SearchOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)

    def __post_init__(self) -> None:
        read, alone = self.data.read, "--text-only" if self.data.text_only else "--modality"
        named = {
            "text": self.space.text_encoders,
            "vision": self.space.vision_encoders,
            "audio": self.space.audio_encoders,
        }
        for modality, encoders in named.items():
            if read and modality not in read and encoders:
                raise UsageError(
                    f"{alone} with --{modality}-encoder {encoders[0]}: give one of them"
                )
        if LOCAL in self.device.names and self.search.scheduler is not None:
            raise UsageError(
                f"--scheduler {self.search.scheduler} with --device {LOCAL}: training on the "
                "cluster would disturb timings there; give a board, or leave --scheduler out"
            )
        if LOCAL in self.device.names and self.search.workers > 1:
            self._check_training_beside_timing()
        if self.search.reuse and self.device.rewrites == "own-length":
            raise UsageError(
                f"--reuse {self.search.reuse[0]} with --rewrites own-length: only designs of fixed "
                "shapes are split; give --rewrites all"
            )
        self._check_goals()

    def _check_goals(self) -> None:
        found = self.search.goals
        trained = [
            each for each in found.needed if each.found_by in ("robustness", "use", "scores")
        ]
        if self.training.cv and trained:
            raise UsageError(
                f"--cv with {trained[0].name}: that is evaluated on the validation split alone; "
                "leave one out"
            )
        of_one = [
            each.name for each in trained if each.found_by != "scores" and each.name != "robustness"
        ]
        if len(self.data.read) == 1 and of_one:
            alone = "--text-only" if self.data.text_only else f"--modality {self.data.read[0]}"
            raise UsageError(f"{alone} with {of_one[0]}: there is one modality; leave one out")
        if not found.more:
            return
        if self.search.sampler == "ehvi" and len(found.more) > 1:
            raise UsageError(
                f"--sampler ehvi with --objective {found.more[1].name}: it weighs accuracy, "
                "latency and one objective more; leave one of them out"
            )
        given = {
            "--probe": self.search.probe,
            "--deferred-timing": self.search.deferred_timing,
            "--fine-tune": bool(self.training.fine_tune),
            "--from": self.search.from_study is not None,
        }
        for flag, is_given in given.items():
            if is_given:
                raise UsageError(
                    f"{flag} with --objective {found.more[0].name}: it weighs accuracy and latency "
                    "alone; leave one of them out"
                )

    def _check_training_beside_timing(self) -> None:
        """Training on this machine gives way to timing, but only on processor cores."""
        beside = {
            "--timing alone": self.device.timing == "alone",
            f"--runtime {self.device.runtime}": self.device.runtime != "cpu",
            "this system's priorities": not can_give_way(),
        }
        for what, stands_against in beside.items():
            if stands_against:
                raise UsageError(
                    f"--workers {self.search.workers} with --device {LOCAL} and {what}: training "
                    "would disturb its timings; give a board, or leave --workers out"
                )

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> "Settings":
        """Build from option names and their values, as `to_options` gives them.

        Raises UsageError for a name that is no option, with those that are like it, and for a
        value that is out of its range.
        """
        unknown = [name for name in options if name not in _PLACES]
        if unknown:
            raise UsageError(unknown_option(unknown[0]))
        options = with_objectives(options)
        parts: dict[str, dict[str, Any]] = {name: {} for name in (*_PARTS, "")}
        for name, value in options.items():
            part, own_name = _PLACES[name]
            parts[part][own_name] = value
        own = parts.pop("")
        return cls(**own, **{name: _PARTS[name](**found) for name, found in parts.items()})

    def with_options(self, options: Mapping[str, object]) -> "Settings":
        """Return these settings with other values of some options. Raises UsageError."""
        return Settings.from_options({**self.to_options(), **options})

    @classmethod
    def from_stored(cls, stored: Mapping[str, object]) -> "Settings":
        """Build from what a study stores; an option that is left out has its default.

        Raises StorageError for one that this version does not know.
        """
        found = {**_DEFAULTS_OF_0_1_0, **stored_options(stored)}
        unknown = sorted(set(found) - set(_PLACES))
        if unknown:
            raise StorageError(
                f"the study was made by a version that knows {', '.join(unknown)}",
                "install that version, or give a new --name",
            )
        return cls.from_options(found)

    def to_stored(self) -> dict[str, Any]:
        """Return what a study stores: every option under the name of version 0.1.0.

        The storage is stored without its password: whoever reads the study would read it.
        """
        options = {**self.to_options(), "storage": redacted_url(self.storage)}
        return {
            _STORED_NAMES.get(name, name): value
            for name, value in options.items()
            if name not in _OF_ONE_COMMAND
            and (name not in _DEFAULTS_OF_0_1_0 or value != _DEFAULTS_OF_0_1_0[name])
        }

    def to_options(self) -> dict[str, Any]:
        """Return every option by name."""
        values = {}
        for name, (part, own_name) in _PLACES.items():
            values[name] = getattr(getattr(self, part) if part else self, own_name)
        return values


_PARTS: dict[str, Any] = {
    "preset": Preset,
    "data": DataOptions,
    "space": SpaceOptions,
    "device": DeviceOptions,
    "search": SearchOptions,
    "training": TrainingOptions,
}
_OPTION_NAMES = {
    ("preset", "name"): "preset",
    ("data", "source"): "data",
    ("space", "name"): "space",
    ("device", "names"): "devices",
}
"""Options whose name, to users and in stored studies, is not their field's."""
_PLACES = {
    **{
        _OPTION_NAMES.get((part, f.name), f.name): (part, f.name)
        for part in _PARTS
        for f in fields(_PARTS[part])
    },
    "storage": ("", "storage"),
    "name": ("", "name"),
    "configuration": ("", "configuration"),
}
"""Part and field of every option."""
_STORED_NAMES = {"deferred_timing": "few_readings"}
_STORED_NAMES_READ = {stored: name for name, stored in _STORED_NAMES.items()}
_OF_ONE_COMMAND = (
    "engine",
    "scheduler",
    "store",
    "take_over",
    "final_readings",
    "retime",
    "hours",
    "patience",
    "configuration",
    "from_study",
    "track",
)
"""Not stored: they say nothing of the study."""
_DEFAULTS_OF_0_1_0: Mapping[str, Any] = {
    "modalities": (),
    "image_sizes": (),
    "image_tokens": (),
    "image_merging": (),
    "lora_ranks": (),
    "seconds": MAX_SECONDS,
    "reuse": (),
    "score_classes": 2,
}
"""Options that 0.1.0 did not have, with its behaviour; stored only if they differ from it."""
_NO_LONGER = ("missing",)
"""Stored by earlier versions, without meaning now."""


def option_names() -> tuple[str, ...]:
    """Return the names of all options that a run takes beside its preset."""
    fixed = {name for name, (part, _) in _PLACES.items() if part == "preset"} | {"configuration"}
    return tuple(name for name in _PLACES if name not in fixed)


def stored_options(stored: Mapping[str, object]) -> dict[str, Any]:
    """Return what a study stores, by the names that options have now."""
    return {
        _STORED_NAMES_READ.get(name, name): tuple(value) if isinstance(value, list) else value
        for name, value in stored.items()
        if name not in _NO_LONGER
    }


def unknown_option(name: str) -> str:
    """Return what to say of an option that there is not: its name, and those like it."""
    near = get_close_matches(name, option_names(), n=3, cutoff=0.7)
    return f"{name}: there is no such option" + (
        f"; did you mean {' or '.join(near)}?" if near else ""
    )


def preset_names() -> tuple[str, ...]:
    """The studies that come with the toolkit."""
    return tuple(sorted(f.name.removesuffix(".toml") for f in _PRESETS.iterdir()))


def load_settings(preset: str, options: Mapping[str, object] | None = None) -> Settings:
    """Load a preset by name or from a TOML file, with the options that are not None on top.

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
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"study {preset}: not TOML ({error})") from error
    from studies.config import superfuse

    of_superfuse = "superfuse" in found
    of_grid = _GRID_KEYS | _OPTIONAL
    keys = superfuse.KEYS if of_superfuse else of_grid if "grid" in found else _KEYS
    wrong = [f"{key} is not a setting" for key in found.keys() - keys.keys()]
    wrong += [f"{key} is missing" for key in keys.keys() - found.keys() - _OPTIONAL.keys()]
    wrong += [
        f"{key} = {value!r} is not {keys[key].__name__}"
        for key, value in found.items()
        if key in keys and type(value) is not keys[key]
    ]
    if wrong:
        raise UsageError(f"study {preset}: " + "; ".join(sorted(wrong)))
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in (options or {}).items()
        if value not in (None, [], ())
    }
    if of_superfuse:
        found["superfuse"], given = superfuse.superfuse_of(preset, found["superfuse"], given)
        found |= {"trials": None, "sampler": "random", "trunks": "frozen"}
    else:
        given = superfuse.refuse_own_flags(preset, given)
    if "grid" in found:
        _check_no_search(preset, given)
        # Such lists compare designs as they are written.
        found |= {"trials": None, "sampler": "random", "rewrites": "none"}
    settings = Settings.from_options(
        {"preset": Path(preset).stem, "storage": default_url(), **found, **given}
    )
    _check_boards(settings, of_superfuse or "grid" in found)
    return settings


def _check_boards(settings: Settings, is_list: bool) -> None:
    """Raise UsageError for boards that are not known, and for objectives on others than these."""
    boards = settings.device.boards
    for name in (*boards.first, *(board.name for board in boards.unlike)):
        if name != LOCAL:
            _check_known(name)
    if is_list and boards.unlike:
        raise UsageError(
            f"--device {settings.device.names[0]}: study {settings.preset.name} is timed on one "
            "board; make a study for each, and compare them"
        )
    for objective in settings.search.goals.needed:
        board = objective.board
        if board is None or board in [each.name for each in boards.unlike]:
            continue
        way_out = f"give --device with {board} after a comma"
        if board in boards.first:
            base = objective.name.partition("@")[0]
            way_out = f"{board} is the first board, whose {base} has no @: "
            way_out += "give --latency-limit" if base == "latency" else f"give {base}"
        raise UsageError(f"{objective.name}: {way_out}")


def _check_no_search(preset: str, given: dict[str, Any]) -> None:
    """Raises UsageError for flags of a search that a fixed list of designs has no use for."""
    names = {"objectives": "objective", "limits": "limit", "from_study": "from"}
    searched = (
        "hours",
        "patience",
        "sampler",
        "seed_paper",
        "cv",
        "probe",
        "deferred_timing",
        "fine_tune",
    )
    for flag in (*searched, *names):
        if given.get(flag):
            said = names.get(flag, flag).replace("_", "-")
            raise UsageError(
                f"--{said}: study {preset} tries a fixed list of designs; leave this flag out"
            )


def _check_known(name: str) -> None:
    try:
        devices().named(name)
    except DevicesError as error:
        raise UsageError(f"--device {name!r}: {error}") from error
