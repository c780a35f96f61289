"""Studies of which files in the home are damaged: no figure changes, nothing breaks.

What may be damaged is not listed here: it is whatever lies in the home of a finished study, by the
kinds that `fusion-nas clean` shows. A new kind of file is part of the matrix from its first day.
"""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from clip_data import film
from damage import DAMAGE
from hearing import HEARING, write_sounds
from tiny import WORDS, Place, write_data, write_space

from evaluators.cached_files import SUFFIX
from evaluators.devices.registry import Devices, parse_device
from evaluators.shared_store import SharedStore
from studies.study.context import STORE
from studies.study.home_contents import KINDS, contents_of

Done = subprocess.CompletedProcess[str]
TRIALS = 2
MORE = 2
SPLIT_OF = ("train",) * 5 + ("valid", "test")
CLIPS = 28
QUICKLY = (
    "--sampler", "random", "--timing", "shared", "--threads", "1", "--seeds", "1",
    "--final-readings", "0",
)  # fmt: skip
OF_A_TRIAL = (
    "state", "design", "fidelity", "folded", "parameters", "macs", "onnx_bytes",
    "valid_accuracy_percent",
)  # fmt: skip
OF_AN_OLD_TRIAL = (
    *OF_A_TRIAL, "params", "duplicate_of", "device", "latency_ms", "test_accuracy_percent",
    "test_accuracy_percent_by_seed",
)  # fmt: skip
"""Of trials that are made after the damage, latencies are new readings, and the front depends on
them: its designs alone are looked at on test."""
UNREAD = "no stable reading"
"""Instead of the figures of a new trial that other work on the machine kept from being timed."""
UNDAMAGED_RUNS = 4
"""How often the commands are run on undamaged copies until every new trial was timed."""
OF_A_REFERENCE = ("design", "valid_accuracy_percent", "test_accuracy_percent", "parameters", "macs")
NAMES = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "*"),
    (re.compile(r"[0-9a-f]{8,}"), "*"),
    (re.compile(r"(?<!\.sha)(?<!\d)\d+"), "*"),
)
"""What of a file's path differs from one file of a form to the next: keys, digests and numbers."""


@dataclass(frozen=True)
class Subject:
    """A finished study, and commands whose figures must not depend on the state of its home.

    Attributes:
        make: a study in the folder of a place, its home made by commands.
        commands: arguments by stage, in order.
        figures: by name, of what the commands printed and wrote.
        kind: of files that are damaged alone; empty for all kinds.
        most: files of one form that are damaged, spread over all; None for all.
    """

    make: Callable[[Place], None]
    commands: Callable[[Place], Mapping[str, list[str]]]
    figures: Callable[[Place, Mapping[str, Done]], dict[str, Any]]
    kind: str = ""
    most: int | None = None


@dataclass(frozen=True)
class Fate:
    """What became of the damaged files of one form.

    Attributes:
        damage: of what kind.
        files: how many were damaged.
        noticed: how many of them a line of the output names.
        as_before: how many have their content again.
        rewritten: how many have another content than before and after the damage.
        as_damaged: how many are still as the damage left them.
        absent: how many are not there.
    """

    damage: str
    files: int
    noticed: int
    as_before: int
    rewritten: int
    as_damaged: int
    absent: int


@dataclass(frozen=True)
class Damaged:
    """What the commands came to after files were damaged.

    Attributes:
        wrong: figures that are not those of the undamaged study, or are missing.
        tracebacks: stages that printed one.
        failed: the last line of stderr by stage, of commands that did not exit with 0.
        fates: by form.
    """

    wrong: list[str]
    tracebacks: list[str]
    failed: dict[str, str]
    fates: dict[str, Fate]

    @property
    def is_clean(self) -> bool:
        """Whether every command did what it does on the undamaged study."""
        return not (self.wrong or self.tracebacks or self.failed)


def forms_in(home: Path) -> dict[str, list[Path]]:
    """All files of a home by kind and form of path, such as `features: features/*/manifest.json`.

    The kinds are those of `fusion-nas clean`.
    """
    kinds = {content.path: content.kind for content in contents_of(home, {})}
    found: dict[str, list[Path]] = {}
    for file in sorted(each for each in home.rglob("*") if each.is_file()):
        whole = file.with_name(file.name.removesuffix(SUFFIX).removesuffix(".lock"))
        of = next(path for path in (file, whole, *file.parents) if path in kinds)
        form = file.relative_to(home).as_posix()
        for pattern, text in NAMES:
            form = pattern.sub(text, form)
        found.setdefault(f"{kinds[of]}: {form}", []).append(file)
    return found


def may_take(files: Iterable[Path], harm: str) -> list[Path]:
    """The files that damage of a kind changes: an empty one has no byte to be flipped."""
    return [file for file in files if file.stat().st_size or harm in ("a directory", "removed")]


class Matrix:
    """One finished study, made once, and what its commands come to undamaged."""

    def __init__(self, folder: Path, subject: Subject) -> None:
        """Make the study below a new folder, and run the commands on a copy."""
        self._subject, self._finished = subject, Place(folder / "finished")
        self._folder = folder
        self._finished.folder.mkdir(parents=True)
        subject.make(self._finished)
        self.forms = {
            form: files if subject.most is None else files[:: -(-len(files) // subject.most)]
            for form, files in forms_in(self._finished.home).items()
            if form.startswith(subject.kind)
        }
        for _ in range(UNDAMAGED_RUNS):
            self.true = self._undamaged()
            found = [*self.true.values()]
            if UNREAD not in found:
                break
        assert found and None not in found and UNREAD not in found, self.true

    def in_turn(self, shift: int, forms: Sequence[str] | None = None) -> dict[str, str]:
        """Damage for forms, each of another kind; over all shifts each form takes every kind.

        Without those that a form cannot take: see `may_take`.
        """
        ways = list(DAMAGE)
        given = {
            form: ways[(k + shift) % len(ways)] for k, form in enumerate(forms or [*self.forms])
        }
        return {form: harm for form, harm in given.items() if may_take(self.forms[form], harm)}

    def case(self, harms: Mapping[str, str]) -> Damaged:
        """Damage all files of some forms in a copy of the study, then run the commands."""
        place = self._copy("damaged")
        try:
            return self._damaged(place, harms)
        finally:
            shutil.rmtree(place.folder)

    def _undamaged(self) -> dict[str, Any]:
        place = self._copy("undamaged")
        try:
            done = _run(self._subject, place)
            failed = {stage: each.stderr for stage, each in done.items() if each.returncode}
            assert not failed, failed
            return self._subject.figures(place, done)
        finally:
            shutil.rmtree(place.folder)

    def _copy(self, name: str) -> Place:
        place = Place(self._folder / name)
        shutil.copytree(self._finished.folder, place.folder, symlinks=True)
        if place.data.exists():  # a study stores where its data are: a copy has the same ones
            shutil.rmtree(place.data)
            place.data.symlink_to(self._finished.data)
        return place

    def _damaged(self, place: Place, harms: Mapping[str, str]) -> Damaged:
        before: dict[str, dict[Path, bytes]] = {}
        after: dict[Path, bytes | None] = {}
        for form, harm in harms.items():
            files = [
                place.home / each.relative_to(self._finished.home) for each in self.forms[form]
            ]
            before[form] = {file: file.read_bytes() for file in may_take(files, harm)}
            for file in before[form]:
                DAMAGE[harm](file)
                after[file] = _content(file)
        done = _run(self._subject, place)
        figures = self._subject.figures(place, done)
        said = "\n".join(each.stdout + each.stderr for each in done.values())
        fates = {}
        for form, contents in before.items():
            now = {file: _content(file) for file in contents}
            again = {file for file, content in contents.items() if now[file] == content}
            absent = {file for file in contents if not file.exists()}
            left = {file for file in contents if now[file] == after[file]} - again - absent
            fates[form] = Fate(
                damage=harms[form],
                files=len(contents),
                noticed=sum(_is_named(file, place.home, said) for file in contents),
                as_before=len(again),
                rewritten=len(contents) - len(again) - len(absent) - len(left),
                as_damaged=len(left),
                absent=len(absent),
            )
        return Damaged(
            wrong=[
                name
                for name, value in self.true.items()
                if figures.get(name) not in (value, UNREAD)
            ],
            tracebacks=[stage for stage, each in done.items() if "Traceback" in each.stderr],
            failed={
                stage: (each.stderr.strip().splitlines() or ["?"])[-1]
                for stage, each in done.items()
                if each.returncode
            },
            fates=fates,
        )


def _run(subject: Subject, place: Place) -> dict[str, Done]:
    return {stage: place.finish(given) for stage, given in subject.commands(place).items()}


def _content(file: Path) -> bytes | None:
    """Of a file; None for a folder and for nothing."""
    return file.read_bytes() if file.is_file() else None


def _is_named(file: Path, home: Path, said: str) -> bool:
    """Whether a line names a file, that of which it is the checksum, or the folder of its set."""
    name = file.relative_to(home).as_posix().removesuffix(SUFFIX)
    own_folder = re.search(r"[0-9a-f]{64}", file.parent.name)
    return name in said or (own_folder is not None and own_folder[0] in said)


def never_found(forms: Iterable[str]) -> set[str]:
    """The kinds of `fusion-nas clean` of which no form was found, but for built-in data.

    Those are thousands of files, of which the subject "built-in data" damages some.
    """
    return set(KINDS) - {"built-in data"} - {form.partition(":")[0] for form in forms}


# -- a study of clips, its text encoder tuned alone


def _make_clips(place: Place) -> None:
    rng = np.random.default_rng(0)
    lines = ["video_id,clip_id,text,label,annotation,mode"]
    for number in range(CLIPS):
        light = number % 2 == 1
        words = " ".join(rng.choice(WORDS["light" if light else "dark"], 3))
        split = SPLIT_OF[number // 2 % len(SPLIT_OF)]
        lines.append(f"v{number},1,a {words} picture,{1.0 if light else -1.0},,{split}")
        clip = place.data / "Raw" / f"v{number}" / "1.mp4"
        film(clip, 19 if light else 5)
    (place.data / "label.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_space(place.folder / "tiny.toml")
    done = place.finish(_run_clips(place, TRIALS))
    assert done.returncode == 0, done.stderr
    Devices(place.home / "devices.json").add(parse_device("board", "ssh://me@board.invalid"))
    _lose_store(place)


def _lose_store(place: Place) -> None:
    """Have something wait in the home for a shared store."""
    folder = _store(place)
    store = SharedStore(str(folder), place.home / STORE)
    shutil.rmtree(folder)
    folder.touch()
    store.put("evaluations", "0" * 64, b"{}")
    folder.unlink()


def _run_clips(place: Place, trials: int) -> list[str]:
    given = ("--data", str(place.data), "--space", str(place.folder / "tiny.toml"))
    own = ("--trunks", "text-tuned", *QUICKLY, "--trials", str(trials))
    return place.command("run", *given, *own)


def _store(place: Place) -> Path:
    """The shared store, at the same path for all copies of a study."""
    return place.folder.parent / "store"


def _commands_of_clips(place: Place) -> Mapping[str, list[str]]:
    """`_commands`, of which one uploads to the store: empty, or it would mend what is damaged."""
    shutil.rmtree(_store(place), ignore_errors=True)
    given = _commands(_run_clips, place)
    last = given["two more trials"]
    return {**given, "two more trials": [*last, "--store", str(_store(place))]}


def _commands(
    run: Callable[[Place, int], list[str]], place: Place, number: int = 0
) -> Mapping[str, list[str]]:
    return {
        "resume": run(place, TRIALS),
        "two more trials": run(place, TRIALS + MORE),
        "report": place.command("report", "--json"),
        "export": place.command("export", str(number), "--out", str(place.folder / "out")),
    }


def _figures(place: Place, done: Mapping[str, Done]) -> dict[str, Any]:
    """Figures of trials and references in the report, and of the exported network."""
    found: dict[str, Any] = {}
    if done["report"].returncode == 0:
        report = json.loads(done["report"].stdout)
        for trial in report["trials"]:
            number = trial["number"]
            unread = number >= TRIALS and trial["state"] == "unstable"
            for name in OF_AN_OLD_TRIAL if number < TRIALS else OF_A_TRIAL:
                value = UNREAD if unread and name != "design" else [trial[name]]
                found[f"trial {number}: {name}"] = value
        for row in report["references"]:
            for name in OF_A_REFERENCE:
                found[f"{row['name']}: {name}"] = [row[name]]
    card = place.folder / "out" / "card.json"
    if card.is_file():
        said = json.loads(card.read_text(encoding="utf-8"))
        for name in ("sha256", "exported_valid_accuracy", "valid", "test", "latency", "example"):
            found[f"export: {name}"] = [said.get(name)]
        network = (card.parent / "network.onnx").read_bytes()
        found["export: network.onnx"] = hashlib.sha256(network).hexdigest()
    return found


# -- a study with sounds


def _make_sounds(place: Place) -> None:
    write_data(place.data)
    write_sounds(place.data)
    write_space(place.folder / "tiny.toml", HEARING)
    done = place.finish(_run_sounds(place, TRIALS))
    assert done.returncode == 0, done.stderr


def _run_sounds(place: Place, trials: int) -> list[str]:
    given = ("--data", str(place.data), "--space", str(place.folder / "tiny.toml"))
    own = ("--trunks", "frozen", *QUICKLY, "--trials", str(trials))
    return place.command("run", *given, *own)


# -- a study of built-in data


def _make_built_in(place: Place) -> None:
    write_space(place.folder / "tiny.toml")
    done = place.finish(_run_built_in(place, TRIALS))
    assert done.returncode == 0, done.stderr


def _run_built_in(place: Place, trials: int) -> list[str]:
    given = ("--data", "built-in:shapes", "--space", str(place.folder / "tiny.toml"))
    return place.command("run", *given, "--trunks", "frozen", *QUICKLY, "--trials", str(trials))


# -- a study of embeddings

SUPERFUSE = """\
title = "A small study"
about = "Tiny sizes."
seed = 0
[superfuse]
smallest = 32
largest = 64
seeds = 3
epochs = 3
activation = "none"
width = 6
"""


def _make_superfuse(place: Place) -> None:
    (place.folder / "small.toml").write_text(SUPERFUSE, encoding="utf-8")
    done = place.finish(place.command("run", "--study", "small.toml"))
    assert done.returncode == 0, done.stderr


def _superfuse_commands(place: Place) -> Mapping[str, list[str]]:
    given = ("run", "--study", "small.toml", "--json")
    return {
        "resume": place.command(*given),
        "one more seed": place.command(*given, "--seeds", "4"),
    }


def _superfuse_figures(_: Place, done: Mapping[str, Done]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for stage, each in done.items():
        if each.returncode == 0:
            for cell in json.loads(each.stdout)["cells"]:
                name = f"{stage}: {cell['task']}, {cell['fusion']}, {cell['size']}"
                found[name] = {key: value for key, value in cell.items() if key[-2:] != "_s"}
    return found


SUBJECTS: Mapping[str, Subject] = {
    "clips": Subject(_make_clips, _commands_of_clips, _figures),
    "superfuse": Subject(_make_superfuse, _superfuse_commands, _superfuse_figures),
    "sounds": Subject(_make_sounds, partial(_commands, _run_sounds), _figures),
    "built-in data": Subject(
        _make_built_in, partial(_commands, _run_built_in), _figures, kind="built-in data", most=5
    ),
}
