"""What came of one measurement, with its raw samples and the spread of their median."""

import math
from dataclasses import dataclass, fields
from enum import Enum
from statistics import median

from device_agent.board import BoardState
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
DAY_MS = 86_400_000.0


class Status(str, Enum):  # noqa: UP042 -- StrEnum came after the Python of JetPack 6
    """How a measurement ended."""

    OK = "ok"
    """Timed; there are samples."""
    INFEASIBLE = "infeasible"
    """This design can never work on this device: tell the search so, do not try again."""
    ERROR = "error"
    """The link, the board or the request failed, not the design: mend it and try again."""


@dataclass(frozen=True)
class MeasureResult:
    """One measurement.

    Attributes:
        status: how it ended.
        reason: why, in words; empty when OK, never empty otherwise.
        samples_ms: time of every run in the order taken; empty unless OK.
        block_of: for every sample the index of its block, from 0, never falling.
        steady: whether the warm-up became steady before its time was up.
        warmup_runs: runs before the first sample.
        compile_s: from the file to a session that can run.
        peak_memory_mb: highest resident memory of the job's process, runtime included; memory
            of a graphics card that is not the system's own is not in it.
        output_sha256: of the outputs for the seed's inputs; same session, same value.
        board_before: state of the board before compiling.
        board_after: state of the board after the last sample.
        runtime_version: as the runtime says it.
        provider: the execution provider that ran.

    None stands for what the job did not come to, or the board does not tell.
    """

    status: Status
    reason: str = ""
    samples_ms: tuple[float, ...] = ()
    block_of: tuple[int, ...] = ()
    steady: bool | None = None
    warmup_runs: int | None = None
    compile_s: float | None = None
    peak_memory_mb: float | None = None
    output_sha256: str | None = None
    board_before: BoardState | None = None
    board_after: BoardState | None = None
    runtime_version: str | None = None
    provider: str | None = None

    def __post_init__(self) -> None:
        check_type("MeasureResult.status", self.status, Status)
        ok = self.status is Status.OK
        check_text("MeasureResult.reason", self.reason, 0 if ok else MAX_REASON, 0 if ok else 1)
        check_type("MeasureResult.samples_ms", self.samples_ms, tuple)
        check_type("MeasureResult.block_of", self.block_of, tuple)
        low, high = (1, MAX_SAMPLES) if ok else (0, 0)
        check_int("MeasureResult.samples_ms: number of samples", len(self.samples_ms), low, high)
        for sample_ms in self.samples_ms:
            check_real("MeasureResult.samples_ms: one sample", sample_ms, 1e-9, DAY_MS)
        if len(self.block_of) != len(self.samples_ms):
            given = f"{len(self.block_of)} blocks for {len(self.samples_ms)} samples"
            raise ProtocolError(f"MeasureResult.block_of: {given}: give one for every sample")
        last = 0
        for block in self.block_of:
            check_int("MeasureResult.block_of: one block", block, last, last + 1)
            last = block
        if self.block_of and self.block_of[0] != 0:
            raise ProtocolError(f"MeasureResult.block_of starts with {last}: start with 0")
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
        check_known(check_type, "MeasureResult.board_before", self.board_before, BoardState)
        check_known(check_type, "MeasureResult.board_after", self.board_after, BoardState)

    @property
    def median_ms(self) -> float:
        """The median of the samples; raises `ProtocolError` unless OK."""
        return float(median(self._samples()))

    @property
    def mad_ms(self) -> float:
        """The median absolute deviation of the samples; raises `ProtocolError` unless OK."""
        middle = self.median_ms
        return float(median(abs(sample - middle) for sample in self._samples()))

    @property
    def interval_ms(self) -> tuple[float, float]:
        """Bounds of the median with at least 95 % confidence, from order statistics.

        It supposes no distribution, but samples that do not depend on each other; a drift of the
        board is not in it, see `block_medians_ms`. Under six samples no such bounds exist, and
        these are the smallest and the largest. Raises `ProtocolError` unless OK.
        """
        ordered = sorted(self._samples())
        rank = median_rank(len(ordered))
        return ordered[rank], ordered[-1 - rank]

    @property
    def block_medians_ms(self) -> tuple[float, ...]:
        """The median of every block; raises `ProtocolError` unless OK."""
        blocks: dict[int, list[float]] = {}
        for block, sample_ms in zip(self.block_of, self._samples(), strict=True):
            blocks.setdefault(block, []).append(sample_ms)
        return tuple(float(median(samples)) for samples in blocks.values())

    def _samples(self) -> tuple[float, ...]:
        if self.status is not Status.OK:
            why = f"{self.status.value}: {self.reason}"
            raise ProtocolError(f"no samples, the measurement ended as {why}: look at its status")
        return self.samples_ms

    def as_json(self) -> dict[str, object]:
        """Return the JSON object that `from_json` reads."""
        found: dict[str, object] = {field.name: getattr(self, field.name) for field in fields(self)}
        found["status"] = self.status.value
        found["samples_ms"] = list(self.samples_ms)
        found["block_of"] = list(self.block_of)
        for name, board in (("board_before", self.board_before), ("board_after", self.board_after)):
            found[name] = None if board is None else board.as_json()
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
        for name in ("samples_ms", "block_of"):
            found[name] = as_tuple(f"MeasureResult.{name}", found[name])
        for name in ("board_before", "board_after"):
            if found[name] is not None:
                found[name] = BoardState.from_json(found[name])
        return cls(**found)


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
