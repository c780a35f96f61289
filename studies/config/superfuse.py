"""What the study `superfuse` is told: a table in its preset, and flags of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from evaluators.superfuse.names import ACTIVATIONS
from studies.config.usage import MAX_SEEDS, UsageError, check_choice, check_range

KEYS = {"title": str, "about": str, "seed": int, "superfuse": dict}
"""What a preset of this kind says."""
TAKEN = (
    "data",
    "accept_faults",
    "space",
    "text_encoders",
    "vision_encoders",
    "weights",
    "seed",
)
"""Settings of a search that this study takes too; all but the last come with --data."""
FLAGS = {
    "latency_limit_ms": "latency-limit",
    "from_study": "from",
    "precisions": "precision",
    "image_sizes": "image-size",
    "lora_ranks": "lora-rank",
    "devices": "device",
    "text_encoders": "text-encoder",
    "vision_encoders": "vision-encoder",
    "audio_encoders": "audio-encoder",
}
"""What the others are called on the command line."""
OWN = ("embeddings", "width", "center", "sizes")
MAX_SIZE, MAX_EPOCHS, MAX_WIDTH = 2**24, 10_000, 4096


@dataclass(frozen=True)
class Superfuse:
    """Sizes in training pairs, which `--sizes` replaces; `width` of drawn embeddings.

    `embeddings` names a file; `project_to` a width that both modalities are projected to; `center`
    takes each modality's training mean off.
    """

    smallest: int
    largest: int
    seeds: int
    epochs: int
    activation: str
    width: int
    embeddings: Path | None = None
    project_to: int | None = None
    center: bool = False

    def __post_init__(self) -> None:
        check_range("smallest =", self.smallest, 2, MAX_SIZE)
        check_range("largest =", self.largest, self.smallest, MAX_SIZE)
        check_range("--seeds", self.seeds, 2, MAX_SEEDS, "intervals are over seeds")
        check_range("epochs =", self.epochs, 1, MAX_EPOCHS)
        check_range("--width", self.width, 2, MAX_WIDTH)
        check_choice("activation =", self.activation, ACTIVATIONS)


def refuse_own_flags(preset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given less the flags of this study. Raises UsageError where one was given."""
    for flag in OWN:
        if given.get(flag):
            raise UsageError(
                f"--{flag}: study {preset} does not take it; leave it out, or give --study "
                "superfuse"
            )
    return {key: value for key, value in given.items() if key not in OWN}


def superfuse_of(
    preset: str, table: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[Superfuse, dict[str, Any]]:
    """The study's own settings, and what is left for `Settings`.

    Raises UsageError for a malformed table, a flag that means nothing here or without another.
    """
    kinds = {field.name: field.type for field in fields(Superfuse)[:6]}
    wrong = [f"{key} is not a setting" for key in table.keys() - kinds.keys()]
    wrong += [f"{key} is missing" for key in kinds.keys() - table.keys()]
    wrong += [
        f"{key} = {value!r} is not {kinds[key].__name__}"  # type: ignore[union-attr]
        for key, value in table.items()
        if key in kinds and type(value) is not kinds[key]
    ]
    if wrong:
        raise UsageError(f"study {preset}, [superfuse]: " + "; ".join(sorted(wrong)))
    left = {key: value for key, value in given.items() if key in TAKEN}
    _check_flags(preset, given)
    made = Superfuse(**table)
    made = replace(made, seeds=given.get("seeds", made.seeds), center=bool(given.get("center")))
    if (width := given.get("width")) is not None:
        made = replace(made, width=width, project_to=width)
    if (sizes := given.get("sizes")) is not None:
        smallest, largest = _sizes(sizes)
        made = replace(made, smallest=smallest, largest=largest)
    if (file := given.get("embeddings")) is not None:
        made = replace(made, embeddings=Path(file).expanduser())
        if not made.embeddings.is_file():  # type: ignore[union-attr]
            raise UsageError(
                f"--embeddings {file}: there is no such file; give a .npz file of text, vision and "
                "labels, or leave it out for drawn embeddings"
            )
    return made, left


def _sizes(text: str) -> tuple[int, int]:
    """Read `FROM:TO`. Raises UsageError."""
    ends = text.split(":")
    if len(ends) != 2 or not all(end.isascii() and end.isdigit() for end in ends):
        raise UsageError(f"--sizes {text}: give the smallest and the largest as 32:65536")
    smallest, largest = map(int, ends)
    check_range("--sizes, the smallest", smallest, 2, MAX_SIZE)
    check_range("--sizes, the largest", largest, smallest, MAX_SIZE)
    return smallest, largest


def _check_flags(preset: str, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if value is False or value == () or name in (*TAKEN, *OWN, "seeds", "configuration"):
            continue
        raise UsageError(
            f"--{FLAGS.get(name, name).replace('_', '-')}: study {preset} trains on "
            "embeddings and neither searches nor times designs; leave this flag out"
        )
    if given.get("data") is not None and given.get("embeddings") is not None:
        raise UsageError(f"--data with --embeddings {given['embeddings']}: give one of them")
    for name in TAKEN[1:-1]:
        if given.get(name) and given.get("data") is None:
            flag = FLAGS.get(name, name).replace("_", "-")
            raise UsageError(f"--{flag} without --data: nothing is encoded; give --data too")
    if given.get("center") and given.get("data") is None and given.get("embeddings") is None:
        raise UsageError(
            "--center: drawn embeddings have a mean of 0; leave it out, or give --embeddings or "
            "--data"
        )
