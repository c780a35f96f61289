"""A study on a local agent that is killed again and again, and what the agent compiled for it.

Arguments of `main`: FOLDER PYTHON TRIALS LAYERS MOMENT ...

Each moment is where a worker kills itself (one of MOMENTS), or when it is killed from outside, in
parts of the time that a worker takes for its first trial; after the last one a worker goes on to
the end. PYTHON is a `FaultyRuntime`'s.
"""

import os
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import commands
from faulty import QUICK, FaultyRuntime
from optuna.trial import TrialState
from tiny import SPACE, Bench

from evaluators.devices.client import open_local_device
from evaluators.devices.pool import DevicePool
from evaluators.evaluation import Evaluation
from evaluators.latency.evaluator import LatencyEvaluator, Runs
from evaluators.onnx.builder import OUTPUT, OnnxBuilder
from search_space.network.rewrites import ALL
from studies.results.trial_record import TrialRecord

LONGEST_TEXT = 6
CHOICES = {
    "text_tokens": "[16, 24, 32]",
    "fusion_points": "[1, 1]",
    "operators": '["concatenation"]',
    "widths": "[16]",
    "attention_blocks": "[0, 0]",
    "attention_over": '["pooled"]',
    "text_pooling": '["mean"]',
    "vision_pooling": '["mean"]',
}
MOMENTS = ("timed", "kept", "told")
"""The device has answered; its answer is kept; the trial has ended."""


@dataclass(frozen=True)
class Compiled:
    """What a study had, and what its agent did.

    Attributes:
        trials, designs, graphs: of the study, without trials that were given up because their
            worker was killed too often. Designs whose latency has one key have one graph.
        given_up: those trials.
        files: different networks that the agent was given to compile.
        compiled: how often it compiled one.
        cut: compilations whose job did not end, because whoever asked for it was killed.
        kills: how many workers were killed.
    """

    trials: int
    designs: int
    graphs: int
    given_up: int
    files: int
    compiled: int
    cut: int
    kills: int


def space_of(layers: int) -> str:
    """A space of `layers` squared graphs, of three designs each.

    The three lengths of text that they differ by are all over that of the longest text.
    """
    space = SPACE.replace("max_position_embeddings = 16", "max_position_embeddings = 32")
    space = space.replace("num_hidden_layers = 3", f"num_hidden_layers = {layers}")
    for name, choices in CHOICES.items():
        space = re.sub(rf"(?m)^{name} =.*", f"{name} = {choices}", space)
    return space


def run_killed(
    folder: Path, trials: int, layers: int, moments: Sequence[str | float], **slow: float
) -> Compiled:
    """Run a study whose workers are killed at these moments; `slow` as `FaultyRuntime.breaks`."""
    runtime = FaultyRuntime(folder / "python", mark=OUTPUT)
    runtime.breaks(**slow)
    given = map(str, [folder / "bench", runtime.python, trials, layers, *moments])
    running = commands.start([*given], folder, os.environ, call="killed:main")
    said, errors = running.communicate()
    assert running.returncode == 0, errors
    trials_made = Bench(folder / "bench", space=space_of(layers)).trials
    results = [TrialRecord.of(t).result for t in trials_made if t.state is not TrialState.FAIL]
    compiled, ended = (Counter(runtime.events(event)) for event in ("compile", "done"))
    return Compiled(
        trials=len(results),
        designs=len({result.key for result in results}),
        graphs=len({result.evaluations[0].key for result in results}),
        given_up=len(trials_made) - len(results),
        files=len(compiled),
        compiled=compiled.total(),
        cut=(compiled - ended).total(),
        kills=said.count("killed at"),
    )


def bench_on_agent(folder: Path, python: str, layers: int) -> Bench:
    """A bench whose designs are built, and timed by an agent on this machine."""
    bench = Bench(folder, space=space_of(layers))
    builder = OnnxBuilder(
        {encoder.name: encoder for encoder in bench.space.encoders},
        bench.space.shapes,
        2,
        folder / "artifacts",
        rewrites=ALL,
        text_lengths=lambda name: [LONGEST_TEXT, 3],
        parts=folder / "parts",
    )
    openers = {"local": partial(open_local_device, folder / "device", python)}
    pool = DevicePool(openers, folder / "locks", lambda text: None)
    bench.latency = LatencyEvaluator(builder, lambda: pool, Runs(timing=QUICK))  # type: ignore[assignment]
    bench.search = bench.new_search(bench.workers)
    return bench


def die_at(bench: Bench, moment: str) -> None:
    """Has this process killed when it first comes to a moment."""

    def die(*_given: Any, **_named: Any) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    put = bench.store.put

    def put_or_die(evaluation: Evaluation) -> None:
        if evaluation.kind == "latency" and moment == "timed":
            die()
        put(evaluation)

    bench.store.put = put_or_die  # type: ignore[method-assign]
    if moment == "kept":
        bench.quality.evaluate = die  # type: ignore[method-assign]
    if moment == "told":
        bench.told.trial = die  # type: ignore[method-assign]


def work(folder: Path, python: str, trials: int, layers: int, moment: str) -> None:
    """One worker, from its start to its end or its death."""
    bench = bench_on_agent(folder, python, layers)
    die_at(bench, moment)
    bench.search.run(trials)
    bench.latency.close()  # type: ignore[attr-defined]
    bench.workers.close()


def fork(folder: Path, python: str, trials: int, layers: int, moment: str = "") -> int:
    """A worker in a process of its own: to load everything anew takes long. Returns its id."""
    worker = os.fork()
    if worker:
        return worker
    try:
        work(folder, python, trials, layers, moment)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def usual_s(folder: Path, python: str, layers: int) -> float:
    """How long a worker takes that starts and ends one trial; it is the study's second."""
    for trials in (1, 2):
        start_s = time.monotonic()
        _, status = os.waitpid(fork(folder, python, trials, layers), 0)
        if status:
            sys.exit("a worker that nobody killed failed")
    return time.monotonic() - start_s


def main() -> None:
    """Workers, one after the other; a line for each that was killed."""
    arguments = sys.argv[1:]
    folder, python, (trials, layers) = Path(arguments[0]), arguments[1], map(int, arguments[2:4])
    moments = arguments[4:]
    usual = usual_s(folder, python, layers) if set(moments) - set(MOMENTS) else 0.0
    for moment in (*moments, ""):
        worker = fork(folder, python, trials, layers, moment)
        if moment and moment not in MOMENTS:
            time.sleep(float(moment) * usual)
            os.kill(worker, signal.SIGKILL)
        _, status = os.waitpid(worker, 0)
        ended = os.waitstatus_to_exitcode(status)
        if ended == -signal.SIGKILL:
            print(f"killed at {moment}")
        elif ended or moment in MOMENTS:
            sys.exit(f"the worker to be killed at {moment or 'no moment'!r} ended with {ended}")
