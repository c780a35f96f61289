"""All designs of a study as a file for other tools."""

from pathlib import Path

from evaluators.cached_files import write_whole
from studies.results.analysis.columns import as_csv, table
from studies.results.outcome import Outcome


def write_table(outcome: Outcome, path: Path) -> None:
    """Write trials and references as CSV, or as Parquet where the suffix says so.

    Raises OSError, naming the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() != ".parquet":
        write_whole(path, as_csv(outcome).encode())
        return
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    found = pyarrow.table(table([*outcome.rows, *outcome.references]))
    pyarrow.parquet.write_table(found, sink)
    write_whole(path, sink.getvalue().to_pybytes())
