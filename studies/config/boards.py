"""What `--device` names: one board or equal ones, and unlike boards beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluators.devices.registry import LOCAL, DevicesError, check_name
from studies.config.usage import UsageError, check_threads
from studies.results.objectives import latency_on

SHAPE = "give NAME, NAME:RUNTIME or NAME:RUNTIME:THREADS"


@dataclass(frozen=True)
class UnlikeBoard:
    """A board beside the first one, with a latency of its own.

    Attributes:
        name: of a board, or the tag of equal boards.
        runtime: what --runtime takes; None for that of the study.
        threads: of one operator; None for those of the study.
    """

    name: str
    runtime: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Boards:
    """The boards of a study.

    Attributes:
        first: names or tags of the boards that `latency` is of; they are equal.
        unlike: the boards beside them, each with a latency of its own.
    """

    first: tuple[str, ...]
    unlike: tuple[UnlikeBoard, ...] = ()


def boards_of(given: Sequence[str]) -> Boards:
    """What the values of `--device` name.

    Several values are equal boards, of which a design is timed on one. A comma separates unlike
    boards: a design is timed on each.

    Raises:
        UsageError: A value cannot be meant.
    """
    with_commas = [each for each in given if "," in each]
    if not with_commas:
        for each in given:
            _check_plain(each)
        return Boards(tuple(given))
    if len(given) > 1:
        raise UsageError(
            f"--device {' --device '.join(given)}: a comma separates unlike boards, several "
            "--device are equal ones; give one --device, with the tag of equal boards as a name"
        )
    first, *others = (each.strip() for each in given[0].split(","))
    _check_plain(first)
    unlike = tuple(_unlike(each, given[0]) for each in others)
    names = [first, *(each.name for each in unlike)]
    for name in names:
        if name == LOCAL:
            raise UsageError(
                f"--device {given[0]}: {LOCAL!r} cannot share a study with others; name boards, or "
                "make a study for each and compare them"
            )
        if names.count(name) > 1:
            raise UsageError(
                f"--device {given[0]}: {name} is given twice; to time a board with two runtimes, "
                "add it under a second name"
            )
        try:
            check_name(name)
        except DevicesError as error:
            raise UsageError(f"--device {given[0]}: {error}") from error
    return Boards((first,), unlike)


def _check_plain(name: str) -> None:
    if ":" in name:
        raise UsageError(
            f"--device {name}: runtime and threads follow the name of a board that stands after a "
            "comma; those of the first are --runtime and --threads"
        )


def _unlike(text: str, whole: str) -> UnlikeBoard:
    name, *rest = text.split(":")
    if len(rest) > 2 or not all((name, *rest)):
        raise UsageError(f"--device {whole}: {text!r}: {SHAPE}")
    runtime = rest[0] if rest else None
    if len(rest) < 2:
        return UnlikeBoard(name, runtime)
    try:
        threads = int(rest[1])
    except ValueError:
        raise UsageError(
            f"--device {whole}: {rest[1]!r} is no number of threads; {SHAPE}"
        ) from None
    check_threads(threads)
    return UnlikeBoard(name, runtime, threads)


def with_objectives(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with the latency on each unlike board as an objective.

    One that is an objective already, or limited, stays as it is: a limit alone makes it a
    constraint.

    Raises:
        UsageError: A value of `--device` cannot be meant.
    """
    unlike = boards_of(options.get("devices", ())).unlike
    objectives = tuple(options.get("objectives", ()))
    limited = [limit.partition("=")[0] for limit in options.get("limits", ())]
    wanted = [latency_on(board.name) for board in unlike]
    new = tuple(each for each in wanted if each not in (*objectives, *limited))
    return {**options, "objectives": (*objectives, *new)} if new else dict(options)
