"""Whether a device was slower in one trial than in those before it, by its drift reference."""

from device_agent.wire.request import MeasureResult, TimingProtocol


class BestDriftReferences:
    """The fastest reading of the drift reference of every device, for the life of this object.

    The reference is the same network in every trial, so a slower reading is a slower device: clocks
    that were unpinned, heat. Within a trial that does not show where all of it was slow. Who
    changes a device for good, to be slower than it was, starts the command again.
    """

    def __init__(self) -> None:
        self._best_ms: dict[tuple[str, int | None], float] = {}

    def slower_than_before(
        self, device: str, result: MeasureResult, protocol: TimingProtocol
    ) -> str:
        """Return in words how much slower the device is than it was; empty where it is not.

        The faster of the round's two readings counts, and is kept where the result is stable.
        Where the device does other work too (no `watch_board`) this is not checked.

        Raises:
            ProtocolError: the result is not OK.
        """
        if not protocol.watch_board or not result.stable:
            return ""
        now_ms = min(result.rounds[-1].drift_reference_ms)
        of = (device, result.drift_reference_size)
        best_ms = min(self._best_ms.get(of, now_ms), now_ms)
        self._best_ms[of] = best_ms
        share = now_ms / best_ms - 1.0
        if share <= protocol.reference_tolerance:
            return ""
        allowed = f"{100 * protocol.reference_tolerance:g} % are allowed"
        return (
            f"the drift reference is {100 * share:.1f} % slower than in an earlier trial on "
            f"{device} ({now_ms:.4g} against {best_ms:.4g} ms; {allowed}): "
            "look at its clocks and its heat"
        )
