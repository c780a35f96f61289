"""What all plots of a study's page share.

Colours are CSS variables, `var(--name)`: the page's script puts in those of its light or dark
look, and places the labels for the width of the window.
"""

from dataclasses import dataclass
from typing import Any

from studies.results.outcome import DesignResult
from studies.results.text import clean


@dataclass(frozen=True)
class Label:
    """Words for a point (or, with `line`, for a horizontal line at y), not yet placed."""

    text: str
    y: float
    x: float | None = None
    colour: str = "var(--ink)"
    line: bool = False


@dataclass(frozen=True)
class Plot:
    """A figure, its height, what to say to those who cannot see it, and its labels.

    `still`: nothing to point at or to zoom. `webgl`: drawn by WebGL, not as SVG.
    """

    key: str
    figure: Any
    height: int
    summary: str
    labels: tuple[Label, ...] = ()
    min_width: int = 0
    still: bool = False
    webgl: bool = False


@dataclass(frozen=True)
class Mark:
    """A line of a legend: the name of a shape in the template, a colour's name, and words."""

    shape: str
    colour: str
    text: str


def escaped(text: str) -> str:
    """Text that plotly shows as it is: plotly reads some HTML in its texts."""
    return clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def both(row: DesignResult) -> bool:
    """Whether accuracy and latency are known."""
    return row.accuracy is not None and row.latency is not None


def ms(row: DesignResult) -> float:
    """The row's latency, where it is known."""
    return row.latency.value if row.latency else 0.0


def axis(title: str = "", **rest: Any) -> dict[str, Any]:
    """An axis in the page's look."""
    return {
        "title": {"text": title, "standoff": 8},
        "gridcolor": "var(--grid)",
        "linecolor": "var(--line)",
        "zeroline": False,
        "ticks": "",
        **rest,
    }


def look() -> dict[str, Any]:
    """The layout that all plots share."""
    return {
        "template": "none",
        "showlegend": False,
        "hovermode": "closest",
        "paper_bgcolor": "var(--surface)",
        "plot_bgcolor": "var(--surface)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "var(--ink)"},
        "hoverlabel": {
            "bgcolor": "var(--surface)",
            "bordercolor": "var(--line)",
            "font": {"color": "var(--ink)"},
            "align": "left",
        },
    }
