"""Outcomes as studies leave them, made from a seed: what reports are tested and seen with."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from search_space.design.genotype import FusionPoint, Genotype
from studies.results.outcome import (
    DesignResult,
    GridOutcome,
    GridPoint,
    ModalityUse,
    Outcome,
    Standing,
    TrialTimes,
    Value,
)

NOTE = (
    "Synthetic data: the clips are made by a program, so these accuracies are not CMU-MOSI's and "
    "say nothing about it."
)
SEEDED = (
    "late-small-mobilenet",
    "late-small-vit",
    "intermediate-small-mobilenet",
    "intermediate-small-vit",
    "early-small-mobilenet",
    "early-small-vit",
)
TEXT = ("all-MiniLM-L6-v2@953f9c0d", "small-bert")
VISION = ("small-mobilenet", "mobilenet_v2_1.4_224@66e1abc0")
OPERATORS = ("concatenation", "product", "tensor", "gated", "cross-attention")
LIMIT_MS = 24.0
REFERENCE_POINT = (50.0, 24.0)


def sample(*, test: bool = True, ceilings: bool = True, trials: int = 24, seed: int = 7) -> Outcome:
    """A study of some trials with seeded designs, duplicates, infeasible and failed ones."""
    rng = random.Random(seed)
    rows = [_trial(k, rng, test) for k in range(trials)]
    if trials > 12:
        rows[12] = replace(rows[12], state="infeasible", accuracy=None, test_accuracy=None)
        rows[12] = replace(
            rows[12],
            latency=Value(61.3, 60.8, 62.0),
            reason="61.3 ms is over the latency limit of 24 ms",
        )
        rows[9] = replace(
            rows[9],
            state="infeasible",
            accuracy=None,
            test_accuracy=None,
            latency=Value(33.9, 33.5, 34.4),
            reason="33.9 ms is over the latency limit of 24 ms",
        )
        rows[10] = replace(
            rows[10],
            state="infeasible",
            accuracy=None,
            test_accuracy=None,
            latency=None,
            reason="tensor fusion of 64 x 64 features is over 4096: choose a smaller width",
        )
        rows[11] = replace(
            rows[11],
            state="failed",
            accuracy=None,
            test_accuracy=None,
            latency=None,
            reason="the link to the device was lost after 3 tries",
        )
        rows[14] = replace(
            rows[14],
            state="unstable",
            accuracy=None,
            test_accuracy=None,
            latency=Value(2.1, 2.0, 2.9),
            reason="none of 4 rounds of timing can be trusted; in the last, the first and "
            "the second half of the blocks are 38.1 % apart (2.1, 2.9 ms; 25 % are allowed)",
        )
        rows[15] = replace(rows[13], number=15, duplicate_of=13)
    rows = [
        replace(row, use=_use(rng)) if row.state == "complete" and row.test_accuracy else row
        for row in rows
    ]
    complete = [r for r in rows if r.state == "complete"]
    front = _front(complete)
    return Outcome(
        study="pareto",
        title="Fusion designs on built-in:faces, ONNX Runtime on 2 CPU cores",
        data_name="built-in:faces: 600 train, 229 valid, 300 test",
        data_note=NOTE,
        majority=(52.4, 51.7),
        ceilings={"text alone": 75.0, "text and vision": 91.0} if ceilings else {},
        rows=tuple(rows),
        references=_references(test),
        front=tuple(front),
        standings=tuple(_standing(r, front) for r in complete if r.name),
        hypervolume=_hypervolume(complete),
        reference_point=REFERENCE_POINT,
        importances={
            "accuracy": {"text_tap_1": 0.41, "operator_1": 0.22, "text_encoder": 0.17,
                         "vision_tap_1": 0.11, "width_1": 0.05, "precision": 0.04},
            "latency": {"text_encoder": 0.52, "text_tap_1": 0.25, "text_tokens": 0.12,
                        "precision": 0.08, "fusion_points": 0.03},
        },
        conditions={
            "Device": "this host, x86_64, 2 CPU cores",
            "Runtime": "ONNX Runtime 1.23.0, CPU, 2 threads",
            "Timing protocol": "20 warm-up, blocks A B B A of 50, median",
            "Sampler": "TPE, multi-objective, seed 0",
            "Search space": "demo (6.1e9 vectors)",
            "Fidelity": "cached taps, 30 epochs; front and seeded designs retrained as a whole",
        },
        latency_limit_ms=LIMIT_MS,
        cautions=(
            "2 of 24 trials share their design with an earlier one and were not evaluated again.",
            "The clock of the board was not locked: latencies may drift by some percent.",
        ),
    )  # fmt: skip


def empty() -> Outcome:
    """A study that has not begun."""
    return replace(
        sample(trials=0), references=(), hypervolume=(), reference_point=None, importances={},
        ceilings={}, cautions=(), conditions={}, latency_limit_ms=None, standings=(),
    )  # fmt: skip


def single() -> Outcome:
    """One complete trial without a name, and nothing else."""
    return replace(empty(), rows=(row := _trial(6, random.Random(1), False),), front=(row,))


def only_infeasible() -> Outcome:
    """Three trials that were all rejected, two of them before anything was measured."""
    rows = tuple(
        replace(
            _trial(k, random.Random(k), False),
            state="infeasible",
            accuracy=None,
            latency=Value(40.0 + k) if k == 0 else None,
            reason="over the latency limit of 24 ms" if k == 0 else "no such tap",
        )
        for k in range(3)
    )
    return replace(empty(), rows=rows, latency_limit_ms=LIMIT_MS)


def hostile(text: str) -> Outcome:
    """The sample with `text` in every place that can hold words from outside."""
    base = sample()

    def marked(row: DesignResult) -> DesignResult:
        return replace(
            row,
            design=f"{text}; {row.design}",
            name=row.name and f"{row.name} {text}",
            reason=row.reason and text,
            adapted=row.adapted and text,
            fidelity=text,
            params={**row.params, "text_encoder": f"{text}{row.params.get('text_encoder', '')}"},
            genotype=row.genotype and replace(row.genotype, text_encoder=text),
        )

    return replace(
        base,
        study=text,
        title=text,
        data_name=text,
        data_note=text,
        ceilings={text: 88.0},
        rows=tuple(map(marked, base.rows)),
        references=tuple(map(marked, base.references)),
        front=tuple(map(marked, base.front)),
        standings=tuple(
            replace(s, row=marked(s.row), dominated_by=s.dominated_by and marked(s.dominated_by))
            for s in base.standings
        ),
        importances={text: {text: 0.7, "width_1": 0.3}},
        conditions={text: text},
        cautions=(text,),
    )


def hostile_list(text: str) -> Outcome:
    """The same as a fixed list of designs."""
    base = hostile(text)
    names = [row.name for row in base.rows if row.name]
    points = tuple(GridPoint(f"{text}{k % 2}", k, n, names[0]) for k, n in enumerate(names))
    return replace(base, grid=GridOutcome("stages", text, points, notes=(text,)))


def _use(rng: random.Random) -> ModalityUse:
    """What a design may use: mostly text, timed without either."""
    text, vision = rng.uniform(8, 22), rng.uniform(-1, 6)
    return ModalityUse(
        {"text": Value(text, text - 4, text + 4), "vision": Value(vision, vision - 3, vision + 3)},
        {"text": Value(text, text - 3, text + 3), "vision": Value(vision, vision - 2, vision + 2)},
        {"text": 55.0, "vision": 70.2},
        50.1,
        rng.uniform(0, 0.2),
        {"text": Value(0.15, 0.149, 0.152), "vision": Value(1.31, 1.3, 1.33)},
    )


def _trial(number: int, rng: random.Random, test: bool) -> DesignResult:
    params: dict[str, str | int] = {
        "text_encoder": rng.choice(TEXT),
        "vision_encoder": rng.choice(VISION),
        "text_tokens": rng.choice((16, 24, 32)),
        "fusion_points": rng.randint(1, 3),
    }
    for k in range(1, int(params["fusion_points"]) + 1):
        params[f"text_tap_{k}"] = rng.randint(1, 6)
        params[f"vision_tap_{k}"] = rng.randint(1, 16)
        params[f"operator_{k}"] = rng.choice(OPERATORS)
        params[f"width_{k}"] = rng.choice((16, 32, 64))
    params["attention_blocks"] = rng.randint(0, 4)
    if params["attention_blocks"]:
        params["attention_over"] = rng.choice(("pooled", "tokens"))
    params["text_pooling"] = rng.choice(("cls", "mean"))
    params["vision_pooling"] = rng.choice(("mean", "max", "conv-max"))
    params["precision"] = rng.choice(("fp32", "int8-dynamic"))
    depth = int(params["text_tap_1"])
    latency = (1.1 + 1.9 * depth * (3.0 if params["text_encoder"] == TEXT[0] else 0.8)) * (
        0.6 if params["precision"] == "int8-dynamic" else 1.0
    )
    right = 52 + 3.6 * depth + 2 * math.log2(latency) + rng.gauss(0, 4)
    latency = min(latency * rng.uniform(0.9, 1.2), 23.5)
    named = SEEDED[number] if number < len(SEEDED) else ""
    return DesignResult(
        number=number,
        state="complete",
        design=_words(params),
        params=params,
        name=named,
        adapted=(
            f"{named} of arXiv 2511.21889 scaled in proportion: taps 12x16 became 6x16, "
            "512 tokens became 32"
        )
        if named
        else "",
        accuracy=_share(right, 229),
        test_accuracy=_share(right - 1.3, 300) if test and (named or rng.random() < 0.3) else None,
        latency=Value(latency, latency * 0.985, latency * 1.02),
        parameters=round(latency * 61_000),
        macs=round(latency * 4.1e6),
        onnx_bytes=round(latency * 244_000),
        fidelity="cached taps, 30 epochs" if number % 3 else "whole network, 12 epochs",
        published_accuracy=84.25 if number == 0 else 67.89 if number == 4 else None,
        published_latency_ms=21.6 if number == 0 else 11.4 if number == 4 else None,
        genotype=_genotype(params),
        tail={"p95": latency * 1.1, "p99": latency * 1.3},
        compile_s=0.2,
        times=TrialTimes(20.0 * (number + 1), 20.0, {"timing": 2.0, "training": 15.0}),
    )


def _genotype(params: dict[str, str | int]) -> Genotype:
    points = tuple(
        FusionPoint(
            *(params[f"{name}_{k}"] for name in ("text_tap", "vision_tap", "operator", "width"))
        )  # type: ignore[arg-type]
        for k in range(1, int(params["fusion_points"]) + 1)
    )
    own = {name: value for name, value in params.items() if name in Genotype.__annotations__}
    return Genotype(points=points, **own)  # type: ignore[arg-type]


def _words(params: dict[str, str | int]) -> str:
    points = ", ".join(
        f"{params[f'text_tap_{k}']}x{params[f'vision_tap_{k}']} {params[f'operator_{k}']}"
        f"->{params[f'width_{k}']}"
        for k in range(1, int(params["fusion_points"]) + 1)
    )
    return (
        f"{params['text_encoder']} + {params['vision_encoder']}; {points}; "
        f"{params['text_tokens']} tokens ({params['text_pooling']}); "
        f"vision {params['vision_pooling']}; {params['precision']}"
    )


def _references(test: bool) -> tuple[DesignResult, ...]:
    return tuple(
        DesignResult(
            number=None,
            state="complete",
            design=f"{encoder}; fp32",
            name=name,
            accuracy=_share(right, 229),
            accuracy_nonzero=_share(right + 1, 214),
            test_accuracy=_share(right - 1, 300) if test else None,
            test_accuracy_nonzero=_share(right, 280) if test else None,
            latency=Value(latency, latency * 0.98, latency * 1.02),
            parameters=round(latency * 90_000),
            macs=round(latency * 3e6),
            onnx_bytes=round(latency * 360_000),
            fidelity="whole network, 12 epochs",
            published_accuracy=published,
        )
        for name, encoder, right, latency, published in (
            ("text-only", "small-bert", 74.5, 6.4, 80.2),
            ("vision-only-small-mobilenet", "small-mobilenet", 60.3, 2.2, 43.22),
        )
    )


def _share(percent: float, count: int) -> Value:
    reach = 1.96 * math.sqrt(percent * (100 - percent) / count)
    return Value(percent, percent - reach, min(100.0, percent + reach))


def _at(row: DesignResult) -> tuple[float, float]:
    assert row.accuracy and row.latency
    return row.accuracy.value, row.latency.value


def _front(rows: Sequence[DesignResult]) -> list[DesignResult]:
    best, found = -1.0, []
    for row in sorted(rows, key=lambda r: _at(r)[1]):
        if row.duplicate_of is None and _at(row)[0] > best:
            best = _at(row)[0]
            found.append(row)
    return found


def _standing(row: DesignResult, front: Sequence[DesignResult]) -> Standing:
    if row in front:
        return Standing(row, on_front=True)
    accuracy, latency = _at(row)
    better = [r for r in front if _at(r)[0] >= accuracy and _at(r)[1] <= latency]
    best = max(better, key=lambda r: _at(r)[0])
    return Standing(row, False, best, _at(best)[0] - accuracy, latency / _at(best)[1])


def _hypervolume(rows: Sequence[DesignResult]) -> tuple[tuple[int, float], ...]:
    found = []
    for k, row in enumerate(rows):
        area, floor = 0.0, REFERENCE_POINT[0]
        for accuracy, latency in map(_at, _front(rows[: k + 1])):
            area += max(0.0, accuracy - floor) * max(0.0, REFERENCE_POINT[1] - latency)
            floor = max(floor, accuracy)
        if k and row.number is not None:
            found.append((row.number, area))
    return tuple(found)
