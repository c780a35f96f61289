"""Our latencies beside those of ONNX Runtime's own test tool, side by side in one go.

    python benchmarks/latency_truth.py --out benchmarks/results/DATE-latency-truth

Six networks at full size with random weights, each in blocks A B B A. A is one job of the device
agent under the protocol for boards, B is `python -m onnxruntime.tools.onnxruntime_test FILE N`;
each is a process of its own, with the runtime's own choice of threads. The tool draws whole
numbers from 0 to 999 for every input of that type: good token ids of a vocabulary of 30,522, but
no attention mask, so the networks clip their mask to 1, for both alike. The tool prints the mean
of N runs without warm-up, we take the median of a round: runs that were disturbed weigh on the
one and hardly on the other.

What is said of every network, all over its blocks:

- ours, theirs: mean of our medians and of the tool's means; the ratio of the two. Ratio of means:
  the same with the means of our samples, which differ from the median as runs are skewed; what is
  left is the tool's first runs, for it does not warm up.
- repeat: how far the tool's two readings of one A B B A are apart, the largest of all.
- flagged: how many of our readings are marked unstable.
- agrees: in each A B B A where the tool repeats itself within 1 %, ours lies within 2 % of it or
  is flagged.
- our s: wall seconds of a job's process, its start and retries included; our interval: width of
  its 95 % interval, as a share of the median.
- tool s, knowing: wall seconds that the tool needs until the 95 % interval of its mean is as wide
  as ours, were the number of runs known beforehand: start of its process (wall less N times the
  mean) plus n times the mean, n = (2 x 1.96 x deviation / width)^2, with the standard deviation of
  single runs taken from the samples that count of ours, for the tool tells none. This is the
  cheapest it can be.
- tool s, by repeats: the tool tells no spread, so whoever has the tool alone must repeat it:
  k processes of N runs until Student's interval of their mean, from the deviation between the
  processes seen here, is as wide as ours.
- tool s, default: start plus its own default of 1000 runs.

Prints one JSON object; `--out PREFIX` keeps it as PREFIX.json with a table in PREFIX.md, both
written anew after every network.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy
import onnx
from main_job import machine
from onnx import helper, numpy_helper
from scipy.stats import t as student

from device_agent.jobs.child import own_command, run_child
from device_agent.jobs.job import Job
from device_agent.wire.request import MeasureRequest, MeasureResult, TensorSpec
from evaluators.latency.evaluator import BOARD_TIMING
from evaluators.onnx.builder import OnnxBuilder
from search_space.space.named import load_space
from search_space.space.paper import seeded_designs

TOOL = (sys.executable, "-m", "onnxruntime.tools.onnxruntime_test")
IDS_BOUND = 1000
DEADLINE_S = 600.0
DEFAULT_RUNS = 1000
QUIET_LOAD = 0.3
REPEATS_WITHIN, AGREES_WITHIN = 0.01, 0.02


@dataclass(frozen=True)
class Ours:
    """One job of the agent."""

    median_ms: float
    mean_ms: float
    low_ms: float
    high_ms: float
    flagged: bool
    instability_reasons: tuple[str, ...]
    rounds: int
    samples: int
    drift_reference_ms: tuple[float, float]
    anchor_share: float
    wall_s: float
    deviation_ms: float


@dataclass(frozen=True)
class Theirs:
    """One process of the tool."""

    mean_ms: float
    wall_s: float
    start_s: float


def networks(folder: Path, only: str) -> Iterator[tuple[str, Path, tuple[TensorSpec, ...]]]:
    """Build the networks to time, one by one: name, file, inputs like those that the tool draws."""
    space = load_space("paper", weights="random")
    encoders = {spec.name: spec for spec in space.encoders}
    builder = OnnxBuilder(encoders, space.shapes, 2, folder)
    designs = {seeded.name: seeded.genotype for seeded in seeded_designs(space)}
    wanted = (
        ("BERT-12, 32 tokens", "text-only", 32),
        ("BERT-12, 64 tokens", "text-only", 64),
        ("MobileNetV2 1.4", "vision-only-mobilenetv2", 0),
        ("late MobileNetV2, 64 tokens", "late-mobilenetv2", 64),
        ("intermediate MobileNetV2, 64 tokens", "intermediate-mobilenetv2", 64),
        ("early MobileNetV2, 64 tokens", "early-mobilenetv2", 64),
    )
    for name, design, tokens in wanted:
        if only not in name:
            continue
        artifact = builder.build(replace(designs[design], text_tokens=tokens))
        clip_mask(artifact.path)
        yield name, artifact.path, tuple(map(as_the_tool_draws, artifact.inputs))
        artifact.discard()


def clip_mask(file: Path) -> None:
    """Let the attention mask be 1 whatever is given for it."""
    model = onnx.load(str(file))
    name = "attention_mask"
    if name not in [one.name for one in model.graph.input]:
        return
    for node in model.graph.node:
        node.input[:] = ["clipped_mask" if one == name else one for one in node.input]
    one = numpy_helper.from_array(numpy.array(1, "int64"), "clip_to_one")
    model.graph.initializer.append(one)
    model.graph.node.insert(
        0, helper.make_node("Clip", [name, "clip_to_one", "clip_to_one"], ["clipped_mask"])
    )
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


def as_the_tool_draws(spec: TensorSpec) -> TensorSpec:
    """The same input with values like the tool's."""
    high = IDS_BOUND if spec.is_integer else 1.0
    return replace(spec, fill="uniform", low=0, high=high)


def ours(file: Path, inputs: tuple[TensorSpec, ...], folder: Path) -> Ours:
    """Run one job of the agent, as the agent does."""
    request = MeasureRequest("0" * 64, inputs, timing=BOARD_TIMING, deadline_s=DEADLINE_S)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        job = Path(scratch) / "job.json"
        job.write_text(json.dumps(Job(request, file, Path(scratch), Path(scratch)).as_json()))
        started = time.monotonic()
        ended = run_child(own_command("job", str(job)), DEADLINE_S, None)
        wall_s = time.monotonic() - started
    if ended.problem:
        sys.exit(f"a job ended badly: {ended.problem}")
    result = MeasureResult.from_json(json.loads(ended.answer))
    low, high = result.interval_ms
    anchors_s = (
        sum(sum(one.drift_reference_ms) for one in result.rounds)
        * BOARD_TIMING.reference_runs
        / 1e3
    )
    return Ours(
        result.median_ms,
        mean(result.samples_ms),
        low,
        high,
        not result.stable,
        result.instability_reasons,
        len(result.rounds),
        len(result.samples_ms),
        result.rounds[-1].drift_reference_ms,
        anchors_s / wall_s,
        wall_s,
        stdev(result.samples_ms),
    )


def theirs(file: Path, runs: int) -> Theirs:
    """Run the tool once."""
    started = time.monotonic()
    done = subprocess.run([*TOOL, str(file), str(runs)], check=True, capture_output=True, text=True)
    wall_s = time.monotonic() - started
    said = re.search(r"avg latency: ([0-9.e+-]+) ms", done.stdout)
    if said is None:
        sys.exit(f"the tool told no latency: {done.stdout}{done.stderr}")
    mean_ms = float(said.group(1))
    return Theirs(mean_ms, wall_s, wall_s - runs * mean_ms / 1e3)


def compared(name: str, runs: int, blocks: Sequence[tuple[Ours, Theirs, Theirs, Ours]]) -> Any:
    """What the A B B A blocks of one network come to."""
    a = [one for first, _, _, last in blocks for one in (first, last)]
    b = [one for _, first, last, _ in blocks for one in (first, last)]
    judged = [judge(block) for block in blocks]
    our_ms, their_ms = mean(x.median_ms for x in a), mean(x.mean_ms for x in b)
    width = median((x.high_ms - x.low_ms) / x.median_ms for x in a)
    deviation = median(x.deviation_ms for x in a) / our_ms
    start_s = median(x.start_s for x in b)
    known_runs = math.ceil((2 * 1.96 * deviation / width) ** 2) if width else None
    repeats = processes_for(width, [x.mean_ms for x in b])
    ours_s = median(x.wall_s for x in a)
    tool_s = {
        "knowing": None if known_runs is None else start_s + known_runs * their_ms / 1e3,
        "by_repeats": None if repeats is None else repeats * median(x.wall_s for x in b),
        "default": start_s + DEFAULT_RUNS * their_ms / 1e3,
    }
    return {
        "network": name,
        "our_ms": our_ms,
        "tool_ms": their_ms,
        "ratio": our_ms / their_ms,
        "ratio_of_means": mean(x.mean_ms for x in a) / their_ms,
        "tool_repeats_within": max(one["tool_apart"] for one in judged),
        "blocks": judged,
        "flagged": sum(x.flagged for x in a),
        "of": len(a),
        "our_s": ours_s,
        "our_interval": width,
        "our_anchor_share": median(x.anchor_share for x in a),
        "tool_runs": runs,
        "tool_start_s": start_s,
        "known_runs": known_runs,
        "repeats": repeats,
        "tool_s": tool_s,
        "our_share_of_tool_s": {k: None if v is None else ours_s / v for k, v in tool_s.items()},
        "ours": [asdict(x) for x in a],
        "tool": [asdict(x) for x in b],
    }


def judge(block: tuple[Ours, Theirs, Theirs, Ours]) -> dict[str, Any]:
    """Hold one A B B A against the goal."""
    first, one, other, last = block
    apart = max(one.mean_ms, other.mean_ms) / min(one.mean_ms, other.mean_ms) - 1
    ratio = (first.median_ms + last.median_ms) / (one.mean_ms + other.mean_ms)
    flagged = first.flagged or last.flagged
    verdict = "agrees" if abs(ratio - 1) <= AGREES_WITHIN else "flagged" if flagged else "differs"
    return {
        "tool_apart": apart,
        "ratio": ratio,
        "flagged": flagged,
        "our_intervals_overlap": max(first.low_ms, last.low_ms) <= min(first.high_ms, last.high_ms),
        "verdict": verdict if apart <= REPEATS_WITHIN else f"tool unsteady, {verdict}",
    }


def processes_for(width: float, means_ms: Sequence[float], most: int = 10_000) -> int | None:
    """How many processes of the tool make Student's interval of their mean as narrow as ours."""
    spread = stdev(means_ms) / mean(means_ms)
    for k in range(2, most):
        if 2 * float(student.ppf(0.975, k - 1)) * spread / math.sqrt(k) <= width:
            return k
    return None


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    about = result["machine"]
    busy = []
    if about["load_before"] > QUIET_LOAD:
        busy = ["", "The machine was busy with other work: this shows what is flagged, no more."]
    lines = [
        "# Our latencies beside those of onnxruntime.tools.onnxruntime_test",
        "",
        f"{about['cpu']}, {about['cores']} cores, Python {about['python']}, onnxruntime "
        f"{about['onnxruntime']}; load average {about['load_before']:.2f} before, "
        f"{about['load_after']:.2f} after. What each column says stands in "
        "`benchmarks/latency_truth.py`.",
        *busy,
        "",
        "| network | ours ms | tool ms | ratio | ratio of means | tool repeats within | flagged "
        "| A B B A | our s | our interval | tool s, knowing | by repeats | default |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["networks"]:
        said = ", ".join(block["verdict"] for block in row["blocks"])
        seconds = ["never" if value is None else f"{value:.1f}" for value in row["tool_s"].values()]
        lines.append(
            f"| {row['network']} | {row['our_ms']:.2f} | {row['tool_ms']:.2f} "
            f"| {row['ratio']:.3f} | {row['ratio_of_means']:.3f} "
            f"| {row['tool_repeats_within']:.1%} "
            f"| {row['flagged']} of {row['of']} | {said} | {row['our_s']:.1f} "
            f"| {row['our_interval']:.2%} | {' | '.join(seconds)} |"
        )
    return "\n".join([*lines, "", *summary(result["networks"])]) + "\n"


def summary(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """How far the goals were met, a sentence each."""
    blocks = [block for row in rows for block in row["blocks"]]
    judged = [block for block in blocks if block["tool_apart"] <= REPEATS_WITHIN]
    met = [block for block in judged if block["verdict"] != "differs"]
    yield (
        f"- Of {len(blocks)} A B B A the tool repeated itself within 1 % in {len(judged)}; of "
        f"these, ours lay within 2 % of it or was flagged in {len(met)}."
    )
    differ = [block for block in blocks if abs(block["ratio"] - 1) > AGREES_WITHIN]
    told = sum(block["flagged"] for block in differ)
    yield f"- Ours was over 2 % from the tool in {len(differ)}, and was flagged in {told} of them."
    for peer, words in (
        ("knowing", "were its number of runs known"),
        ("by_repeats", "from its own repeats"),
        ("default", "by its default of 1000 runs"),
    ):
        shares = [row["our_share_of_tool_s"][peer] for row in rows]
        thirds = sum(share is None or share <= 1 / 3 for share in shares)
        known = [f"{share:.2f}" for share in shares if share is not None]
        yield (
            f"- Our seconds over the tool's, {words}: {', '.join(known) or 'it never gets there'}; "
            f"at most a third in {thirds} of {len(rows)}."
        )


def keep(result: dict[str, Any], prefix: Path | None) -> None:
    """Write what there is so far: a long run that is cut off leaves what it had."""
    if prefix is not None:
        text = json.dumps(result, indent=2)
        prefix.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
        prefix.with_suffix(".md").write_text(table(result), encoding="utf-8")


def main() -> None:
    """Build, time in blocks, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=2, help="A B B A blocks of each network")
    parser.add_argument("--runs", type=int, default=200, help="N of the tool")
    parser.add_argument("--only", default="", help="networks whose name holds this")
    parser.add_argument("--out", type=Path, help="prefix of the files to write")
    args = parser.parse_args()
    about = machine()
    result: dict[str, Any] = {
        "machine": about,
        "protocol": BOARD_TIMING.as_json(),
        "networks": [],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for network, file, inputs in networks(folder, args.only):
            blocks = []
            for _ in range(args.blocks):
                block = (
                    ours(file, inputs, folder),
                    theirs(file, args.runs),
                    theirs(file, args.runs),
                    ours(file, inputs, folder),
                )
                blocks.append(block)
            result["networks"].append(compared(network, args.runs, blocks))
            about["load_after"] = os.getloadavg()[0]
            keep(result, args.out)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
