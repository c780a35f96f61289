"""What is known of one design, as terms and values in words."""

from collections.abc import Iterator, Mapping

from studies.results import text as result_text
from studies.results.outcome import DesignResult, Outcome, Value

Facts = list[tuple[str, str]]


def facts(row: DesignResult, outcome: Outcome, certain: Mapping[int, float]) -> Facts:
    """Everything that the study knows of a design, what matters most first.

    `certain`: the probability of not being dominated, by trial number.
    """
    return [(term, value) for term, value in _facts(row, outcome, certain) if value]


def probability(row: DesignResult, certain: Mapping[int, float]) -> str:
    """`0.93`; empty where it is not known. Never 0 or 1: it is counted over draws."""
    share = None if row.number is None else certain.get(row.number)
    if share is None:
        return ""
    return "< 0.01" if share < 0.01 else "> 0.99" if share > 0.99 else f"{share:.2f}"


def latency_tail(row: DesignResult) -> str:
    """`p95 0.71, p99 0.80, jitter 0.02 ms`; empty where it was not recorded."""
    said = ", ".join(f"{n} {result_text.ms(ms)}" for n, ms in row.tail.items())
    return said and f"{said} ms"


def _facts(
    row: DesignResult, outcome: Outcome, certain: Mapping[int, float]
) -> Iterator[tuple[str, str]]:
    if row.state != "complete":
        yield "State", row.state + (f": {row.reason}" if row.reason else "")
    accuracy = "Cross-validated accuracy" if outcome.cv else "Validation accuracy"
    yield accuracy, _with_unit(result_text.percent(row.accuracy), "%")
    yield "Test accuracy", _with_unit(result_text.percent(row.test_accuracy), "%")
    tail = latency_tail(row)
    tail = tail and f", {tail} of single runs"
    searched = _with_unit(result_text.milliseconds(row.latency_in_search), "ms")
    latency = _with_unit(result_text.milliseconds(row.latency), "ms")
    yield "Latency", latency and latency + tail
    yield "Latency in the search", searched
    yield "Latency by part, estimated", _by_part(row)
    yield "Probability not dominated", probability(row, certain)
    yield "Against the front", _standing(row, outcome)
    for objective in outcome.goals.more:
        value = row.figure(objective)
        yield objective.words, "" if value is None else f"{value.value:.4g}"
    if row.use is not None:
        for name, value in row.use.shapley.items():
            yield f"Uses of {name}", _points(value)
            yield f"Without {name}", _without(row, name)
    yield "Size", _size(row)
    yield "Compiled in", "" if row.compile_s is None else f"{row.compile_s:.3g} s"
    yield "Training", "; ".join(filter(None, (row.fidelity, row.shortened, row.did_not_train)))
    yield "Timing", "; ".join(filter(None, (row.folded, result_text.load(row))))
    predicted = result_text.milliseconds(row.predicted_latency)
    yield "Predicted latency", _with_unit(predicted, "ms")
    yield "Published", result_text.published(row)
    yield "Origin", row.adapted
    if row.times is not None:
        yield "Trial took", f"{row.times.took_s:.3g} s"
    yield "In words", result_text.arrows(row.design)


def _by_part(row: DesignResult) -> str:
    """What the latency model says of the parts; the sum is a prediction, not the reading."""
    words = {"fusion": "fusion and head", "network": "fixed"}
    said = [f"{words.get(o, o)} {result_text.ms(each)}" for o, each in row.parts.items()]
    return f"{', '.join(said)} ms; sum {result_text.ms(sum(row.parts.values()))} ms" if said else ""


def _standing(row: DesignResult, outcome: Outcome) -> str:
    return result_text.standing_of(row, outcome) if row.state == "complete" else ""


def _without(row: DesignResult, modality: str) -> str:
    """What is left without a modality, and the time of its part where both graphs are timed."""
    use = row.use
    if use is None or modality not in use.without:
        return ""
    said, taken = f"{use.without[modality]:.1f} %", use.latency_without.get(modality)
    if taken is None:
        return said
    said += f" in {result_text.ms(taken.value)} ms"
    if row.latency is None:
        return said
    return f"{said}: its part takes {result_text.ms(max(0.0, row.latency.value - taken.value))} ms"


def _size(row: DesignResult) -> str:
    parts = [
        _with_unit(result_text.count(row.parameters), "parameters"),
        _with_unit(result_text.count(row.macs), "MACs"),
        _with_unit(result_text.size(row.onnx_bytes), "of ONNX"),
    ]
    return ", ".join(part for part in parts if part)


def _points(value: Value) -> str:
    bounds = "" if value.low is None else f" ({value.low:+.1f} to {value.high:+.1f})"
    return f"{value.value:+.1f} points{bounds}"


def _with_unit(text: str, unit: str) -> str:
    return f"{text} {unit}" if text else ""
