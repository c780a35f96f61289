"""One evaluation of a design's latency from those on the first board and on unlike ones."""

from collections.abc import Mapping
from dataclasses import replace

from evaluators.evaluation import Evaluation
from studies.results.objectives import BY_NAME, OF_A_BOARD, measure_on

BOARDS = "boards"
"""Of a latency's details: by board beside the first one, which device timed the design there, and
which load disturbed the reading."""
OF_EACH = tuple(BY_NAME[name].measure for name in OF_A_BOARD)


def with_boards(latency: Evaluation, others: Mapping[str, Evaluation]) -> Evaluation:
    """The latency on the first board with the figures of the other boards beside it.

    Figures of a board are measures `BOARD:NAME`. It keeps the key of the first board's reading;
    each reading is stored under a key of its own.

    Args:
        latency: on the first board.
        others: on the others, by name; none is infeasible.
    """
    if not others:
        return latency
    measures = [
        replace(measure, name=measure_on(board, measure.name))
        for board, found in others.items()
        for measure in found.measures
        if measure.name in OF_EACH
    ]
    details = {
        board: {
            "device": found.details.get("device", ""),
            "crowded": found.details.get("crowded", ""),
        }
        for board, found in others.items()
    }
    return replace(
        latency,
        measures=(*latency.measures, *measures),
        details={**latency.details, BOARDS: details},
    )
