"""Pages: a template and plots, made into one HTML file that needs no network and no other file."""

import base64
import hashlib
import os
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.offline

from evaluators.cached_files import move_whole, naming
from studies.report.plotting import Plot
from studies.results.text import clean

if TYPE_CHECKING:
    from jinja2 import Environment

_STATIC = files("studies.report") / "static"


def render(template: str, plots: Sequence[Plot], data: str = "", **values: Any) -> str:
    """Return the page that a template makes of `values`, with `plots` for its script to draw.

    data: designs that the script shows, packed; empty for a page without any.
    """
    drawing = _script(plotly.offline.get_plotlyjs()) if plots else ""
    scripts = [_static("designs.js")] if data else []
    scripts += [_static("report.js")] if plots else []
    scripts = [_script(text) for text in scripts]
    return (
        _environment()
        .get_template(template)
        .render(
            values,
            css=_static("report.css"),
            scripts=scripts,
            drawing=drawing,
            policy=_policy(
                [drawing, *scripts] if plots else scripts,
                compiles=any(plot.webgl for plot in plots),
            ),
            plots=[_plain(plot) for plot in plots],
            data=data,
        )
    )


def write_whole(text: str, path: Path) -> None:
    """Write a page whole or not at all; folders on the way are made. Raises OSError, naming it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".page-{os.getpid()}.tmp")
    try:
        with naming(path):
            unfinished.write_text(text, encoding="utf-8", newline="\n")
        move_whole(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@cache
def _environment() -> "Environment":
    """Return the environment of the templates; Jinja is imported by the commands that need it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("studies.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _printable(value: object) -> object:
    """Return text without control characters; what the templates made is markup and stays."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    kept = "\N{NO-BREAK SPACE}"
    return kept.join(map(clean, value.split(kept)))


def _static(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")


def _plain(plot: Plot) -> dict[str, Any]:
    figure = plot.figure.to_plotly_json()
    for trace in figure["data"]:
        if "customdata" in trace:  # the script shows what it has of the design
            del trace["hovertext"]
            trace["hoverinfo"] = "none"
    return {
        "key": f"plot-{plot.key}",
        "data": figure["data"],
        "layout": figure["layout"],
        "height": plot.height,
        "minWidth": plot.min_width,
        "still": plot.still,
        "webgl": plot.webgl,
        "labels": [
            {"text": label.text, "x": label.x, "y": label.y, "color": label.colour}
            | {"line": label.line}
            for label in plot.labels
        ],
    }


def _script(text: str) -> str:
    """Return text as it stands in the page: the policy's hash is over exactly this."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")


def _policy(scripts: Sequence[str], compiles: bool) -> str:
    """Only these scripts, and nothing from elsewhere; plotly's WebGL compiles code of its own."""
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    sources = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    sources += " 'unsafe-eval'" if compiles else ""
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
