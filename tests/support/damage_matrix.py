"""A study of which every kind of cached file is damaged: no figure changes, nothing breaks."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from clip_data import Row, film
from damage import DAMAGE
from tiny import WORDS, Place, write_space

KINDS: Mapping[str, str] = {
    "trained weights": "weights/*.safetensors",
    "checksum of weights": "weights/*.safetensors.sha256",
    "tuned encoder": "trunks/*.safetensors",
    "checksum of a tuned encoder": "trunks/*.safetensors.sha256",
    "features": "features/*/*.safetensors",
    "manifest of features": "features/*/manifest.json",
    "ONNX subgraph": "parts/*.part",
    "frame of a clip": "data/frames/*/*.jpg",
    "checksum of a frame": "data/frames/*/*.jpg.sha256",
    "index of files": "data/index/*.json",
    "evaluations": "evaluations.jsonl",
    "network for the dashboard": "optuna-artifacts/*-*[0-9a-f]",
}
"""Every kind of file that a study of clips with tuned encoders caches, as a pattern of its home."""
STAGES = ("resume", "two more trials", "report", "export")
TRIALS = 4
SPLIT_OF = ("train",) * 5 + ("valid", "test")


@dataclass(frozen=True)
class Damaged:
    """What the four commands came to after all files of a kind were damaged.

    Attributes:
        files: how many were damaged.
        failed: the last line of stderr by stage, of commands that did not exit with 0.
        tracebacks: stages that printed one.
        wrong: figures that differ from those of the undamaged study.
        noticed: lines on stderr about files that are not as they were written.
        whole_again: how many of the damaged files have their content again.
    """

    files: int
    failed: Mapping[str, str]
    tracebacks: Sequence[str]
    wrong: Sequence[str]
    noticed: int
    whole_again: int


def clip_place(folder: Path) -> Place:
    """A finished study of clips with tuned encoders: every kind of cached file is in its home."""
    folder.mkdir(parents=True)
    place = Place(folder)
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    lines = ["video_id,clip_id,text,label,annotation,mode"]
    for number in range(70):
        light = number % 2 == 1
        words = " ".join(rng.choice(WORDS["light" if light else "dark"], 3))
        split = SPLIT_OF[number // 2 % len(SPLIT_OF)]
        rows.append((f"v{number}", 1, 1.0 if light else -1.0, split))
        lines.append(f"v{number},1,a {words} picture,{rows[-1][2]},,{split}")
        film(place.data / "Raw" / f"v{number}" / "1.mp4", 19 if light else 5)
    (place.data / "label.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_space(folder / "tiny.toml")
    done = place.finish(run(place, TRIALS))
    assert done.returncode == 0, done.stderr
    return place


def run(place: Place, trials: int) -> list[str]:
    """The command of `clip_place`, with a total of trials."""
    given = ("--data", str(place.data), "--space", str(place.folder / "tiny.toml"))
    own = ("--trunks", "tuned", "--threads", "1", "--seed-paper", "--trials", str(trials))
    return place.command("run", *given, *own)


def commands_of(place: Place, exported: int) -> Mapping[str, list[str]]:
    """The command of each stage."""
    out = str(place.folder / "out")
    return {
        "resume": run(place, TRIALS),
        "two more trials": run(place, TRIALS + 2),
        "report": place.command("report", "--json"),
        "export": place.command("export", str(exported), "--out", out),
    }


def figures_after(place: Place, exported: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the four commands come to: figures by name, and stderr with the exit code by stage."""
    said: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    for stage, command in commands_of(place, exported).items():
        done = place.finish(command)
        said[stage] = (done.returncode, done.stderr)
        if stage == "report" and done.returncode == 0:
            for trial in json.loads(done.stdout)["trials"]:
                # The readings of trials made now are new ones, and what the sampler does with them.
                old = trial["number"] < TRIALS
                design = json.dumps(trial["design"])
                who = f"trial {trial['number']}" if old else f"design {design}"
                for name in COMPARED[: None if old else 2]:
                    figures[f"{who}: {name}"] = trial.get(name)
    card = place.folder / "out" / "card.json"
    if card.is_file():
        said_of = json.loads(card.read_text(encoding="utf-8"))
        for name in ("sha256", "exported_valid_accuracy"):
            figures[f"export: {name}"] = said_of[name]
    return figures, said


COMPARED = ("valid_accuracy_percent", "state", "latency_ms", "test_accuracy_percent", "design")
"""Keys of a trial in `report --json`; of trials made after the damage, the first two."""


def damaged(finished: Place, kind: str, harm: str, folder: Path, true: Mapping[str, Any],
            exported: int) -> Damaged:  # fmt: skip
    """Damage all files of a kind in a copy of the finished study, then run the four commands."""
    shutil.copytree(finished.folder, folder, symlinks=True)
    place = moved(finished, folder)
    files = sorted(place.home.glob(KINDS[kind]))
    assert files, f"no file is of kind {kind}"
    before = {file: file.read_bytes() for file in files}
    for file in files:
        DAMAGE[harm](file)
    found, said = figures_after(place, exported)
    errors = {stage: error for stage, (_, error) in said.items()}
    last = {stage: (error.strip().splitlines() or ["?"])[-1] for stage, error in errors.items()}
    again = sum(file.is_file() and file.read_bytes() == old for file, old in before.items())
    return Damaged(
        len(files),
        {stage: last[stage] for stage, (code, _) in said.items() if code},
        [stage for stage, error in errors.items() if "Traceback" in error],
        [name for name, value in found.items() if name in true and true[name] != value],
        len({line for error in errors.values() for line in error.splitlines() if noticed(line)}),
        again,
    )


def noticed(line: str) -> bool:
    """Whether a line of stderr says that a file is not as it was written."""
    return any(words in line for words in ("made again", "not whole", "renamed to", "damaged line"))


def moved(finished: Place, folder: Path) -> Place:
    """A copy of a finished study where it lies now: the study stores where its data are."""
    return Place(folder, finished.env)
