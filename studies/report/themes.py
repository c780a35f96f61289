"""Plots outside a page: the colours of the page's style sheet put in, its labels as annotations."""

import json
import math
import re
from functools import cache
from importlib.resources import files
from typing import Any

import plotly.graph_objects as go

from search_space.design.genotype import Genotype
from studies.report.designs.drawing import Svg, draw, svg
from studies.report.plotting import Plot, escaped

THEMES = ("light", "dark")


def standalone(plot: Plot, theme: str = "light") -> Any:
    """Return a plotly figure that shows a plot in any notebook or file.

    Raises ValueError for a theme there is not.
    """
    colours = _colours_of(theme)
    text = re.sub(r"var\(--([\w-]+)\)", lambda found: colours[found[1]], plot.figure.to_json())
    figure = go.Figure(json.loads(text))
    log = figure.layout.xaxis.type == "log"
    for label in plot.labels:
        colour = re.sub(r"var\(--([\w-]+)\)", lambda found: colours[found[1]], label.colour)
        place: dict[str, Any] = {"xref": "paper", "x": 0, "xanchor": "left", "showarrow": False}
        if label.x is not None:
            place = {"x": math.log10(label.x) if log else label.x, "arrowcolor": colour, "ax": 28}
        figure.add_annotation(
            y=label.y, yanchor="bottom", text=escaped(label.text), font={"color": colour}, **place
        )
    return figure.update_layout(height=plot.height)


def drawing(genotype: Genotype, theme: str = "light") -> Svg:
    """Return a design as an SVG document that needs no style sheet of a page.

    Raises ValueError for a theme there is not.
    """
    colours = _colours_of(theme)
    rules = re.search(r"/\* drawing \*/(.*)/\* end of drawing \*/", _sheet(), re.DOTALL)
    sheet = rules[1] if rules else ""
    sheet = re.sub(r"var\(--([\w-]+)\)", lambda m: colours.get(m[1], m[0]), sheet)
    sheet = sheet.replace("var(--own, var(--ink))", f"var(--own, {colours['ink']})")
    ground = f"svg {{ background: {colours['surface']}; }}"
    return Svg(svg(draw(genotype), ground + sheet))


def _colours_of(theme: str) -> dict[str, str]:
    if theme not in THEMES:
        raise ValueError(f"theme {theme!r}: choose one of {', '.join(THEMES)}")
    return _colours()[theme]


def _sheet() -> str:
    return (files("studies.report") / "static" / "report.css").read_text(encoding="utf-8")


@cache
def _colours() -> dict[str, dict[str, str]]:
    """Return the colours of the style sheet by theme and name."""
    blocks = re.findall(r":root \{([^}]*)\}", _sheet())
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in blocks[:2])
    return {"light": light, "dark": {**light, **dark}}
