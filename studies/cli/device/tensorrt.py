"""What `fusion-nas space NAME --check tensorrt` does."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer
from rich.table import Table

from search_space.errors import NUMBERS
from studies.config.usage import check_choice
from studies.report import terminal
from studies.results.text import counted

CHECKS = ("tensorrt",)


def check_compiler(
    check: str,
    name: str,
    encoders: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]],
    weights: Any,
    build: bool,
) -> None:
    """Print which operators, poolings and encoders of a space NVIDIA's compiler takes.

    Ends with exit code 7 where one is refused. Raises SpaceError, EncoderError, RuntimeMissing,
    UsageError.
    """
    from evaluators.latency.tensorrt_check import PRECISIONS, Checked, check_space, facets
    from search_space.space.named import load_space

    check_choice("--check", check, CHECKS)
    space = load_space(name, *encoders, weights=weights or "random")
    with (
        TemporaryDirectory(prefix="fusion-nas-") as folder,
        terminal.progress(terminal.open_console(stderr=True)) as reporter,
    ):
        found = check_space(
            space,
            Path(folder),
            build,
            progress=lambda done, of: reporter.step("compiling designs", done, of),
        )

    def said(facet: tuple[str, str], precision: str) -> str:
        own = [c for c in found if facet in facets(c.genotype)]
        own = [each for each in own if each.genotype.precision == precision]
        return "taken" if any(each.accepted for each in own) else "REFUSED"

    console = terminal.open_console()
    done = "parsed and built" if build else "parsed"
    version = next((each.taken.version for each in found if each.taken.version), "?")
    console.print(
        f"{space.name}: {counted(len(found), 'network')} {done} by TensorRT-RTX {version}"
    )
    table = Table("of the space", "", *PRECISIONS)
    for facet in sorted(set().union(*(facets(each.genotype) for each in found))):
        table.add_row(*facet, *(said(facet, precision) for precision in PRECISIONS))
    console.print(table)
    if build:
        console.print(_built(found))
    refused: list[Checked] = [each for each in found if not each.accepted]
    for each in refused:
        console.print(f"refused: {each.genotype.describe()}: {each.taken.refused}")
    if refused:
        raise typer.Exit(NUMBERS)


def _built(found: list[Any]) -> Any:
    table = Table("design", "nodes", "layers", "fused attention", "s to build")
    for each in found:
        taken = each.taken
        seconds = taken.build_s and round(taken.build_s, 1)
        figures = (each.nodes, taken.layers, taken.attention, seconds)
        table.add_row(each.genotype.describe(), *("-" if f is None else str(f) for f in figures))
    return table
