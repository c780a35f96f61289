"""What came of one measurement, with its raw samples and the spread of their median."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import Enum
from itertools import pairwise
from statistics import fmean, median

from device_agent.board.power import Energy
from device_agent.board.state import BoardState
from device_agent.checks import (
    ProtocolError,
    as_tuple,
    check_int,
    check_known,
    check_real,
    check_sha256,
    check_text,
    check_type,
    take,
)

MAX_SAMPLES = 10_000
MAX_REASON = 8_000
JSON_NAMES = {"drift_reference_ms": "anchor_ms", "instability_reasons": "doubts"}
"""Fields whose name in JSON is another: the one that stored evaluations have."""
MAX_REASONS = 32
DAY_MS = 86_400_000.0


class Status(str, Enum):
    """How a measurement ended."""

    OK = "ok"
    """Timed; there are samples."""
    INFEASIBLE = "infeasible"
    """This design can never work on this device: tell the search so, do not try again."""
    ERROR = "error"
    """The link, the board or the request failed, not the design: mend it and try again."""


@dataclass(frozen=True)
class Round:
    """Samples taken in blocks, between two readings of the drift reference.

    Attributes:
        samples_ms: time of every run in the order taken.
        block_of: for every sample the index of its block, from 0, never falling.
        drift_reference_ms: median of the drift reference's runs before and after.
        others_cores: processors that were busy with something else, on average over the round;
            None where the system does not tell.
        instability_reasons: what speaks against the round, in words with figures; empty when
        nothing does.
        cpu_ms: processor time of one run, on average; None where it is not the work of the network.
    """

    samples_ms: tuple[float, ...]
    block_of: tuple[int, ...]
    drift_reference_ms: tuple[float, float]
    others_cores: float | None = None
    instability_reasons: tuple[str, ...] = ()
    cpu_ms: float | None = None

    def __post_init__(self) -> None:
        check_type("Round.samples_ms", self.samples_ms, tuple)
        check_type("Round.block_of", self.block_of, tuple)
        check_int("Round.samples_ms: number of samples", len(self.samples_ms), 1, MAX_SAMPLES)
        for sample_ms in self.samples_ms:
            check_real("Round.samples_ms: one sample", sample_ms, 1e-9, DAY_MS)
        if len(self.block_of) != len(self.samples_ms):
            given = f"{len(self.block_of)} blocks for {len(self.samples_ms)} samples"
            raise ProtocolError(f"Round.block_of: {given}: give one for every sample")
        last = 0
        for block in self.block_of:
            check_int("Round.block_of: one block", block, last, last + 1)
            last = block
        if self.block_of[0] != 0:
            raise ProtocolError(f"Round.block_of starts with {self.block_of[0]}: start with 0")
        check_type("Round.drift_reference_ms", self.drift_reference_ms, tuple)
        check_int(
            "Round.drift_reference_ms: number of readings", len(self.drift_reference_ms), 2, 2
        )
        for reading_ms in self.drift_reference_ms:
            check_real("Round.drift_reference_ms: one reading", reading_ms, 1e-9, DAY_MS)
        check_known(check_real, "Round.others_cores", self.others_cores, 0.0, 1e6)
        check_known(check_real, "Round.cpu_ms", self.cpu_ms, 0.0, DAY_MS)
        check_type("Round.instability_reasons", self.instability_reasons, tuple)
        check_int(
            "Round.instability_reasons: number of reasons",
            len(self.instability_reasons),
            0,
            MAX_REASONS,
        )
        for reason in self.instability_reasons:
            check_text("Round.instability_reasons: one reason", reason, MAX_REASON)

    @property
    def block_medians_ms(self) -> tuple[float, ...]:
        """The median of every block."""
        blocks: dict[int, list[float]] = {}
        for block, sample_ms in zip(self.block_of, self.samples_ms, strict=True):
            blocks.setdefault(block, []).append(sample_ms)
        return tuple(float(median(samples)) for samples in blocks.values())

    def as_json(self) -> dict[str, object]:
        """Return the JSON object that `from_json` reads."""
        lists = {name: list(getattr(self, name)) for name in self._listed()}
        lists = {JSON_NAMES.get(name, name): value for name, value in lists.items()}
        return {**lists, "others_cores": self.others_cores, "cpu_ms": self.cpu_ms}

    @classmethod
    def from_json(cls, value: object) -> "Round":
        """Build from a JSON object; raises `ProtocolError` naming field and value."""
        names = [field.name for field in fields(cls)]
        found = take("Round", value, [JSON_NAMES.get(name, name) for name in names])
        found = {name: found[JSON_NAMES.get(name, name)] for name in names}
        lists = {name: as_tuple(f"Round.{name}", found[name]) for name in cls._listed()}
        return cls(**{**found, **lists})

    @staticmethod
    def _listed() -> tuple[str, ...]:
        return ("samples_ms", "block_of", "drift_reference_ms", "instability_reasons")


@dataclass(frozen=True)
class MeasureResult:
    """One measurement.

    Attributes:
        status: how it ended.
        reason: why, in words; empty when OK, never empty otherwise.
        rounds: every round of timing in the order taken; the last one counts, the ones before it
            were unstable and taken again. Empty unless OK.
        steady: whether the warm-up became steady before its time was up.
        warmup_runs: runs before the first round.
        compile_s: from the file to a session that can run, when it was compiled.
        peak_memory_mb: highest resident memory of the job's process, runtime included; memory
            of a graphics card that is not the system's own is not in it.
        output_sha256: of the outputs for the seed's inputs; same session, same value.
        board_before: state of the board before compiling.
        board_after: state of the board after the last sample.
        runtime_version: as the runtime says it.
        provider: the execution provider that ran.
        device_ms: median time on the accelerator alone, by its own events; None where the runtime
            has none.
        energy: of one inference, from a pass of its own; None where the board tells no power.
        drift_reference_size: index in `device_agent.timing.drift_reference.SIZES`; readings of two
            sizes cannot be compared.
        waits_by: how the host waits for the accelerator, see `device_agent.runtime.Extras`.

    None stands for what the job did not come to, or the board does not tell.
    """

    status: Status
    reason: str = ""
    rounds: tuple[Round, ...] = ()
    steady: bool | None = None
    warmup_runs: int | None = None
    compile_s: float | None = None
    peak_memory_mb: float | None = None
    output_sha256: str | None = None
    board_before: BoardState | None = None
    board_after: BoardState | None = None
    runtime_version: str | None = None
    provider: str | None = None
    device_ms: float | None = None
    energy: Energy | None = None
    drift_reference_size: int | None = None
    waits_by: str | None = None

    def __post_init__(self) -> None:
        check_type("MeasureResult.status", self.status, Status)
        ok = self.status is Status.OK
        check_text("MeasureResult.reason", self.reason, 0 if ok else MAX_REASON, 0 if ok else 1)
        check_type("MeasureResult.rounds", self.rounds, tuple)
        low, high = (1, MAX_SAMPLES) if ok else (0, 0)
        check_int("MeasureResult.rounds: number of rounds", len(self.rounds), low, high)
        for one in self.rounds:
            check_type("MeasureResult.rounds: one round", one, Round)
        count = sum(len(one.samples_ms) for one in self.rounds)
        check_int("MeasureResult.rounds: number of samples in all", count, low, high)
        self._check_optional(ok)

    def _check_optional(self, ok: bool) -> None:
        needed = ("steady", "warmup_runs", "compile_s", "output_sha256", "runtime_version")
        for name in (*needed, "provider"):
            if ok and getattr(self, name) is None:
                raise ProtocolError(f"MeasureResult.{name} is None: give it when the status is OK")
        check_known(check_type, "MeasureResult.steady", self.steady, bool)
        check_known(check_int, "MeasureResult.warmup_runs", self.warmup_runs, 0, 2**53)
        check_known(check_real, "MeasureResult.compile_s", self.compile_s, 0.0, DAY_MS)
        check_known(check_real, "MeasureResult.peak_memory_mb", self.peak_memory_mb, 0.0, 2.0**40)
        check_known(check_sha256, "MeasureResult.output_sha256", self.output_sha256)
        check_known(check_text, "MeasureResult.runtime_version", self.runtime_version, 256)
        check_known(check_text, "MeasureResult.provider", self.provider, 256)
        check_known(check_real, "MeasureResult.device_ms", self.device_ms, 0.0, DAY_MS)
        check_known(check_type, "MeasureResult.energy", self.energy, Energy)
        size = self.drift_reference_size
        check_known(check_int, "MeasureResult.drift_reference_size", size, 0, 1000)
        check_known(check_text, "MeasureResult.waits_by", self.waits_by, 64)
        check_known(check_type, "MeasureResult.board_before", self.board_before, BoardState)
        check_known(check_type, "MeasureResult.board_after", self.board_after, BoardState)

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """The samples that count, those of the last round; empty unless OK."""
        return self.rounds[-1].samples_ms if self.rounds else ()

    @property
    def instability_reasons(self) -> tuple[str, ...]:
        """What speaks against the timing that counts; raises `ProtocolError` unless OK."""
        unsteady = () if self.steady else ("the warm-up never became steady",)
        return (*self._counting().instability_reasons, *unsteady)

    @property
    def stable(self) -> bool:
        """Whether nothing speaks against the round that counts, nor against the warm-up.

        A result that is not stable says how long runs took, not how long they would take again:
        keep it off a front. Raises `ProtocolError` unless OK.
        """
        return not self.instability_reasons

    @property
    def median_ms(self) -> float:
        """The median of the samples that count; raises `ProtocolError` unless OK."""
        return float(median(self._counting().samples_ms))

    @property
    def mad_ms(self) -> float:
        """The median absolute deviation of these samples; raises `ProtocolError` unless OK."""
        middle = self.median_ms
        return float(median(abs(sample - middle) for sample in self.samples_ms))

    @property
    def percentiles_ms(self) -> dict[str, float]:
        """Percentiles `p50`, `p95` and `p99` of the samples that count, by nearest rank.

        Of fewer than 20 samples p95 is the largest, of fewer than 100 p99 is. Raises
        `ProtocolError` unless OK.
        """
        ordered = sorted(self._counting().samples_ms)
        ranks = {percent: -(-percent * len(ordered) // 100) for percent in (50, 95, 99)}
        return {f"p{percent}": ordered[rank - 1] for percent, rank in ranks.items()}

    @property
    def jitter_ms(self) -> float:
        """Mean absolute difference of successive samples that count, of one block each.

        0 where no block has two. Raises `ProtocolError` unless OK.
        """
        taken = self._counting()
        pairs = pairwise(zip(taken.block_of, taken.samples_ms, strict=True))
        steps = [abs(b - a) for (block, a), (other, b) in pairs if block == other]
        return fmean(steps) if steps else 0.0

    @property
    def interval_ms(self) -> tuple[float, float]:
        """Bounds of the median of the samples that count, see `median_bounds`.

        Under six samples no such bounds exist, and these are the smallest and the largest. Raises
        `ProtocolError` unless OK.
        """
        samples_ms = self._counting().samples_ms
        return median_bounds(samples_ms) or (min(samples_ms), max(samples_ms))

    @property
    def block_medians_ms(self) -> tuple[float, ...]:
        """The median of every block that counts; raises `ProtocolError` unless OK."""
        return self._counting().block_medians_ms

    def _counting(self) -> Round:
        if self.status is not Status.OK:
            why = f"{self.status.value}: {self.reason}"
            raise ProtocolError(f"no samples, the measurement ended as {why}: look at its status")
        return self.rounds[-1]

    def as_json(self) -> dict[str, object]:
        """Return the JSON object that `from_json` reads."""
        found: dict[str, object] = {field.name: getattr(self, field.name) for field in fields(self)}
        found["status"] = self.status.value
        found["rounds"] = [one.as_json() for one in self.rounds]
        for name in ("board_before", "board_after", "energy"):
            found[name] = None if found[name] is None else getattr(self, name).as_json()
        return found

    @classmethod
    def from_json(cls, value: object) -> "MeasureResult":
        """Build from a JSON object; raises `ProtocolError` naming field and value."""
        found = take("MeasureResult", value, [field.name for field in fields(cls)])
        try:
            found["status"] = Status(found["status"])
        except ValueError:
            said = repr(found["status"])[:80]
            known = ", ".join(status.value for status in Status)
            raise ProtocolError(f"MeasureResult.status is {said}: give one of {known}") from None
        rounds = as_tuple("MeasureResult.rounds", found["rounds"])
        found["rounds"] = tuple(Round.from_json(one) for one in rounds)
        for name in ("board_before", "board_after"):
            if found[name] is not None:
                found[name] = BoardState.from_json(found[name])
        if found["energy"] is not None:
            found["energy"] = Energy.from_json(found["energy"])
        return cls(**found)


def half_samples(
    samples_ms: Sequence[float], block_of: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Return the samples of the first half of the blocks and of the second.

    The block in the middle of an odd number is in neither; a single block is in both.
    """
    blocks = block_of[-1] + 1
    half = max(blocks // 2, 1)
    pairs = list(zip(block_of, samples_ms, strict=True))
    first = [sample_ms for block, sample_ms in pairs if block < half]
    second = [sample_ms for block, sample_ms in pairs if block >= blocks - half]
    return first, second


def median_bounds(samples_ms: Sequence[float]) -> tuple[float, float] | None:
    """Return bounds of the median with at least 95 % confidence, from order statistics.

    None for fewer than six samples: no such bounds exist. They suppose no distribution, but
    samples that do not depend on each other. Runs that follow each other do depend: what slows one
    (a clock that sank, another program, a cold cache) slows the next ones too, and then these
    bounds are too narrow. They tell how well this round's median is known, not how well the next
    round, process or boot would agree with it; for that look at the blocks and the reference of
    each round. Stopping as soon as they are narrow makes them a little narrower still than they
    claim.
    """
    rank = median_rank(len(samples_ms))
    if len(samples_ms) < 6:
        return None
    ordered = sorted(samples_ms)
    return ordered[rank], ordered[-1 - rank]


def median_rank(count: int, confidence: float = 0.95) -> int:
    """Return how many of the `count` ordered samples to leave out at each end.

    The samples left span the median of what they were drawn from with at least `confidence`; 0
    when there are too few for that.
    """
    tail = math.floor((1.0 - confidence) / 2.0 * 2**60) * 2**count
    chance, below, rank = 1, 1, 0
    while below * 2**60 <= tail:
        rank += 1
        chance = chance * (count - rank + 1) // rank
        below += chance
    return max(rank - 1, 0)
