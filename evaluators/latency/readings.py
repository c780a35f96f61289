"""What timing in turns gives; it loads nothing, so that reports can be made without PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reading:
    """One reading of a design.

    Attributes:
        median_ms, low_ms, high_ms: Median wall time of one inference, and its 95 % interval.
        crowded: In words, which load disturbed it; empty where none did.
        cpu_ms: Processor time of one inference; None where it is not known or not on one thread.
        tail: Of single runs, in ms: `p95`, `p99` and `jitter`.
        device: Name of the device that took it.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    crowded: str = ""
    cpu_ms: float | None = None
    tail: Mapping[str, float] = field(default_factory=dict)
    device: str = ""


Readings = tuple[Reading | None, ...]
"""One a round; None where the device had no stable reading or could not run the design."""
