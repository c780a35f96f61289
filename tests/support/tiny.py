"""A study small enough for tests: 64 pictures with texts, two trunks of three layers, a second
a trial. The command is run as users run it, in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import commands
import numpy as np
import optuna
from filelock import FileLock
from PIL import Image

from evaluators.evaluation import Evaluation, Measure, content_key
from evaluators.store import EvaluationStore
from search_space.design.genotype import Genotype
from search_space.errors import DEVICE
from search_space.space.named import load_space
from search_space.space.paper import seeded_designs
from search_space.space.space import SearchSpace
from studies.ablations.designs import GridDesign, grid_in
from studies.infra.storage import open_storage, quiet_optuna
from studies.infra.workers import Workers
from studies.samplers.registry import sampler_maker
from studies.search.early_stopping import EarlyStopping
from studies.search.loop import Search
from studies.search.trial_runner import Evaluators, SearchTargets, TrialRunner

SPLITS = {"train": 40, "valid": 12, "test": 12}
WORDS = {"dark": ("dim", "night", "black"), "light": ("bright", "day", "white")}
COMMAND_S = 240

SPACE = """\
name = "tiny"
text_tokens = [16]
fusion_points = [1, 2]
operators = ["concatenation", "gated", "product", "tensor", "cross-attention"]
widths = [0, 16]
attention_blocks = [0, 4]
attention_over = ["pooled", "tokens"]
text_pooling = ["cls", "mean", "pooler"]
vision_pooling = ["mean", "max", "conv-max", "cls"]
precision = ["fp32"]

[[text_encoder]]
name = "tiny-bert"
library = "transformers"
source = "tiny-bert"
weights = "random"
model_type = "bert"
config = { hidden_size = 16, num_hidden_layers = 3, num_attention_heads = 2, \
intermediate_size = 32, vocab_size = 64, max_position_embeddings = 16 }

[[vision_encoder]]
name = "tiny-vit"
library = "transformers"
source = "tiny-vit"
weights = "random"
model_type = "vit"
config = { hidden_size = 16, num_hidden_layers = 3, num_attention_heads = 2, \
intermediate_size = 32, image_size = 32, patch_size = 16 }
"""


SMALL = {
    "fusion_points = [1, 2]": "fusion_points = [1, 1]",
    '["concatenation", "gated", "product", "tensor", "cross-attention"]': '["concatenation"]',
    "attention_blocks = [0, 4]": "attention_blocks = [0, 0]",
    '["cls", "mean", "pooler"]': '["cls", "pooler"]',
    '["mean", "max", "conv-max", "cls"]': '["mean"]',
}


def small_text() -> str:
    """The tiny space with few designs, most of them spelt by several vectors."""
    text = SPACE
    for wide, narrow in SMALL.items():
        assert wide in text, wide
        text = text.replace(wide, narrow)
    return text


def write_data(folder: Path) -> Path:
    """An image+text folder of two classes that pictures and texts both tell, with some noise."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    lines = ["id,text,label,mode"]
    for split, count in SPLITS.items():
        for k in range(count):
            label = sorted(WORDS)[k % 2]
            name = f"{split}{k:02}"
            words = " ".join(rng.choice(WORDS[label], 3))
            pixels = rng.normal(70 if label == "dark" else 180, 60, (32, 32, 3)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{name}.png")
            lines.append(f"{name},a {words} picture,{label},{split}")
    (folder / "label.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_space(file: Path, text: str = SPACE) -> Path:
    """The tiny search space as a user's TOML file; workers that start together may all write it."""
    own = file.with_name(f"{file.name}.{os.getpid()}")
    own.write_text(text, encoding="utf-8")
    return own.replace(file)


@dataclass(frozen=True)
class Place:
    """A folder that a user works in: data, a space, a home, and the command run there."""

    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """The image+text folder."""
        return self.folder / "data"

    @property
    def home(self) -> Path:
        """What FUSION_NAS_HOME names."""
        return self.folder / "home"

    @property
    def url(self) -> str:
        """The storage that a command without --storage uses, as seen from anywhere."""
        return f"sqlite:///{self.folder / 'runs' / 'fusion-nas.db'}"

    def environment(self) -> dict[str, str]:
        """What every command runs with: this place's home, one thread, no hub, short readings."""
        ours = {
            "FUSION_NAS_HOME": str(self.home),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "100",
            commands.TIMING: "brief",
        }
        return {**os.environ, **ours, **self.env}

    def command(self, *arguments: str) -> list[str]:
        """`fusion-nas` with these arguments."""
        program = "import sys; from studies.cli.app import main; sys.exit(main())"
        return [sys.executable, "-c", program, *arguments]

    def run(self, *arguments: str) -> list[str]:
        """`fusion-nas run` on the tiny data and space."""
        return self.command("run", *self.flags(), *arguments)

    def flags(self) -> tuple[str, ...]:
        """What `run` is given: the tiny data and space, frozen trunks, one thread.

        One training and no readings at the end: what those add is for tests of their own.
        """
        given = ("--data", str(self.data), "--space", str(self.folder / "tiny.toml"))
        once = ("--seeds", "1", "--final-readings", "0")
        return (*given, "--trunks", "frozen", "--threads", "1", *once)

    def finish(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        return commands.finish(command, self.folder, self.environment(), COMMAND_S)

    def finish_stable(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """As `finish`, again where other work on this machine made readings unstable."""
        for _ in range(5):
            done = self.finish(command)
            if done.returncode != DEVICE or "no stable reading" not in done.stderr:
                break
        return done

    def start(self, command: Sequence[str]) -> commands.Started:
        """Starts a command in a process group of its own."""
        return commands.start(command[3:], self.folder, self.environment())

    def kept(self) -> list[dict[str, Any]]:
        """Every evaluation that the home's store holds, in the order they were kept."""
        file = self.home / "evaluations.jsonl"
        if not file.is_file():
            return []
        lines = file.read_text(encoding="utf-8").splitlines()
        return [json.loads(json.loads(line)["evaluation"]) for line in lines if line.strip()]


def new_place(folder: Path, data: Path | None = None, **env: str) -> Place:
    """A place of its own in `folder`; `data` is linked where it is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Place(folder, env)
    if data is None:
        write_data(place.data)
    else:
        place.data.symlink_to(data)
    write_space(folder / "tiny.toml")
    return place


def finished_place(base: Path) -> Place:
    """A place with one finished study of five trials, the seeded ones first.

    The study is run once for all workers of a test run, by the first who asks, and copied for each
    worker. `base` is `tmp_path_factory.getbasetemp()`.
    """
    whole_run = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    original, made = Place(whole_run / "finished-original"), whole_run / "finished-original.made"
    with FileLock(whole_run / "finished-original.lock"):
        if not made.exists():
            new_place(original.folder)
            done = original.finish(original.run("--trials", "5", "--seed-paper"))
            assert done.returncode == 0, done.stderr
            made.touch()
    place = Place(base / "finished-study")
    if not place.folder.exists():
        shutil.copytree(original.folder, place.folder, symlinks=True)
    return place


def tiny_space(folder: Path, text: str = SPACE) -> SearchSpace:
    """The tiny search space, loaded."""
    return load_space(str(write_space(folder / "tiny-space.toml", text)))


class FakeLatency:
    """A device that answers from the design alone; the callables say what becomes of one."""

    def __init__(self) -> None:
        self.timed: list[str] = []
        self.infeasible: Callable[[Genotype], bool] = lambda genotype: False
        self.unstable: Callable[[Genotype], str] = lambda genotype: ""
        self.fails: Callable[[], Exception | None] = lambda: None
        self.ms: Callable[[Genotype], float] = lambda genotype: (
            1.0 + genotype.deepest_tap("text") + genotype.deepest_tap("vision")
        )

    def key(self, genotype: Genotype) -> str:
        return content_key("latency", {"genotype": genotype.key})

    def evaluate(self, genotype: Genotype) -> Evaluation:
        self.timed.append(genotype.key)
        if (error := self.fails()) is not None:
            raise error
        if self.infeasible(genotype):
            return Evaluation(self.key(genotype), "latency", infeasible="no kernel for it")
        ms = self.ms(genotype)
        measure = Measure("latency_ms", ms, "ms", "lower", 0.99 * ms, 1.01 * ms)
        unstable = self.unstable(genotype)
        return Evaluation(self.key(genotype), "latency", (measure,), unstable=unstable)


class FakeQuality:
    """Training that takes no time."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.percent: Callable[[Genotype], float] = lambda genotype: (
            50.0 + int(genotype.key[:4], 16) % 40
        )
        self.check: Callable[[Genotype], Mapping[str, Any]] = lambda genotype: {}
        """What training finds wrong with itself: see `evaluators.training.check`."""

    def key(self, genotype: Genotype) -> str:
        return content_key("quality", {"genotype": genotype.key})

    def evaluate(self, genotype: Genotype) -> Evaluation:
        self.trained.append(genotype.key)
        measure = Measure("accuracy", self.percent(genotype), "%", "higher")
        return Evaluation(
            self.key(genotype),
            "quality",
            (measure,),
            {"fidelity": "fake", **self.check(genotype)},
        )


class Quiet:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def trial(self, done: int, total: int, text: str) -> None:
        self.lines.append(f"[{done}/{total}] {text}")

    def step(self, what: str, done: int, total: int) -> None:
        """Nothing is kept of steps."""

    def line(self, text: str) -> None:
        self.lines.append(text)


class Bench:
    """A search over the tiny space with a fake device and fake training, on a real storage."""

    def __init__(
        self,
        folder: Path,
        url: str = "",
        limit_ms: float | None = None,
        grid: str = "",
        space: str = SPACE,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        quiet_optuna()
        self.home, self.limit_ms = folder, limit_ms
        self.url = url or f"sqlite:///{folder / 'studies.db'}"
        self.space = tiny_space(folder, space)
        self.listed: tuple[GridDesign, ...] = ()
        if grid:
            self.space, found = grid_in(grid, self.space)
            self.listed = found.designs
        self.latency, self.quality, self.told = FakeLatency(), FakeQuality(), Quiet()
        self.store = EvaluationStore(folder / "evaluations.jsonl")
        self.storage: Any = open_storage(self.url)
        self.study = optuna.create_study(
            storage=self.storage,
            study_name="bench",
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )
        self.seeded = [s for s in seeded_designs(self.space) if s.genotype.text_encoder]
        self.seeded = [s for s in self.seeded if s.genotype.vision_encoder]
        self.workers = Workers(folder / "workers")
        self.search = self.new_search(self.workers)

    def new_search(
        self, workers: Workers, sampler: str = "random", early: EarlyStopping | None = None
    ) -> Search:
        """The search as a new process would make it."""
        evaluators = Evaluators(self.latency, self.quality, self.store)  # type: ignore[arg-type]
        targets = SearchTargets(latency_limit_ms=self.limit_ms)
        runner = TrialRunner(self.study, self.space, evaluators, targets, early, self.seeded)
        draw = sampler_maker(sampler, 0, self.space)
        return Search(runner, workers, self.told, draw, fixed=bool(self.listed))

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """All trials of the study."""
        return self.study.get_trials(deepcopy=False)


def main_work() -> None:
    """One worker of a bench: folder, storage URL, total. The folder's `go` starts them together."""
    folder, url, total = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    bench = Bench(folder, url)
    (folder / f"ready-{os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    bench.search.seed(bench.seeded)
    bench.search.run(total)
    bench.workers.close()
