"""What lies in a home: by kind, study and age, and what of it may be removed."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from evaluators.cached_files import SUFFIX
from studies.infra.home.leftovers import is_leftover
from studies.infra.home.lock import LOCK
from studies.study.trained_weights import StudyWeights

_KEY = "[0-9a-f]{64}"
KINDS: Mapping[str, re.Pattern[str]] = {
    kind: re.compile(pattern)
    for kind, pattern in {
        "results": r"(evaluations|superfuse)\.jsonl",
        "results for a shared store": r"store/[0-9a-f]{16}/[a-z]+-[0-9a-f]{64}\.json",
        "devices": r"devices\.json",
        "exported networks": r"optuna-artifacts/[0-9a-f-]{36}",
        "trained weights": rf"weights/{_KEY}\.safetensors",
        "tuned encoders": rf"trunks/{_KEY}\.safetensors",
        "features": rf"features/{_KEY}",
        "ONNX subgraphs": rf"parts/{_KEY}\.part",
        "built-in data": r"data/(rendered|shapes)/[^/.][^/]*",
        "frames and sounds": r"data/(frames/middle-\d+|sounds/mono-16k-\d+)/.+"
        r"|data/index/[0-9a-f]{16}\.json",
        "agents of this machine": r"device/(agent-\d+|check)",
        "locks": r"(.+/)?[^/]+\.lock|workers/asking",
    }.items()
}
"""Kinds of files by their paths below the home; the first that matches is a file's."""
LEFTOVER, OTHER = "leftovers of killed runs", "other"
SHOWN_AS = (*KINDS, LEFTOVER, OTHER)
CACHES = (
    "trained weights",
    "tuned encoders",
    "features",
    "ONNX subgraphs",
    "built-in data",
    "frames and sounds",
    "agents of this machine",
)
"""Kinds that are made again where they are needed."""


class Fate(Enum):
    """Whether something of a home may be removed."""

    STAYS = "never"
    CACHE = "when it is old enough"
    UNUSED = "at any time"


@dataclass(frozen=True)
class Content:
    """A file of a home with its checksum and lock, or a folder that is made at once.

    used: when it was last read or written, in seconds since the epoch. of: in words, whose it is.
    """

    path: Path
    kind: str
    of: str
    fate: Fate
    files: int
    bytes: int
    used: float

    def may_go(self, before: float | None) -> bool:
        """Whether it is removed: with a time if last used before, without if nothing needs it."""
        if before is None:
            return self.fate is Fate.UNUSED
        return self.fate is not Fate.STAYS and self.used < before


def contents_of(home: Path, studies: Mapping[str, StudyWeights]) -> list[Content]:
    """Everything in a home; `studies` tell whose weights are whose."""
    files: dict[str, list[os.stat_result]] = {}
    for folder, _, names in os.walk(home):
        for name in names:
            path = Path(folder, name)
            try:
                found = path.lstat()
            except FileNotFoundError:
                continue
            files.setdefault(_unit(path.relative_to(home).as_posix()), []).append(found)
    contents = []
    for unit, stats in files.items():
        kind = _kind(unit)
        of, fate = _whose(unit, kind, studies)
        used = max(max(each.st_mtime, each.st_atime) for each in stats)
        size = sum(each.st_size for each in stats)
        contents.append(Content(home / unit, kind, of, fate, len(stats), size, used))
    return contents


def _unit(name: str) -> str:
    """The path that a file of a home goes with: its folder's, or that of which it is the sum."""
    parts = name.split("/")
    for end in range(1, len(parts) + 1):
        path = "/".join(parts[:end])
        if is_leftover(path):
            return path
        if _kind(path) in ("features", "built-in data", "agents of this machine"):
            return path
    whole = name.removesuffix(SUFFIX).removesuffix(".lock")
    return whole if _kind(whole) in CACHES or _kind(whole) == "exported networks" else name


def _kind(unit: str) -> str:
    if is_leftover(unit):
        return LEFTOVER
    found = (kind for kind, pattern in KINDS.items() if pattern.fullmatch(unit))
    return "locks" if unit == LOCK else next(found, OTHER)


def _whose(unit: str, kind: str, studies: Mapping[str, StudyWeights]) -> tuple[str, Fate]:
    """In words whose something is, and whether it may be removed."""
    if kind == LEFTOVER:
        return "", Fate.UNUSED
    if kind not in CACHES:
        return "", Fate.STAYS
    if kind != "trained weights":
        return "", Fate.CACHE
    key = Path(unit).stem
    own = [name for name, weights in studies.items() if key in weights.stay]
    beaten = [name for name, weights in studies.items() if key in weights.beaten]
    if own:
        return f"{_names(own)}: front and named designs", Fate.STAYS
    if beaten:
        return f"{_names(beaten)}: other designs", Fate.UNUSED
    return "other seeds, references, or another storage", Fate.CACHE


def _names(studies: Sequence[str]) -> str:
    return studies[0] if len(studies) == 1 else f"{studies[0]} and {len(studies) - 1} more"
