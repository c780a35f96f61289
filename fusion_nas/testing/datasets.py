"""Checks of data sets of plugins."""

import tempfile
from pathlib import Path

from evaluators.data import DataError, DataSet, load
from evaluators.data.plugins import PluginDataSet, folder_of


def check_data_set(data_set: PluginDataSet) -> None:
    """Check that a data set can be studied, and is the same each time.

    Rows are of the declared types and modalities; ids differ; no split is empty, and every class is
    trained on; pictures and sounds can be read; no picture is in two splits; the fingerprint is the
    same when all is made anew, and when the rows come in the same order from kept files. It takes
    as long as reading the data three times.

    Args:
        data_set: an instance of the class that the entry point names.

    Raises:
        AssertionError: the first thing that is wrong, in words.
    """
    name = type(data_set).__name__
    with tempfile.TemporaryDirectory(prefix="fusion-nas-") as folder:
        first, second = (Path(folder) / each for each in "ab")
        data = _loaded(data_set, name, first)
        if "text" in data_set.modalities:
            silent = [sample.id for sample in data.samples if not sample.text.strip()]
            assert not silent, f"{name}: sample {silent[0]} has no text, and text is declared"
        useless = data.uninformative
        assert not useless, f"{name}: {useless[0]} is alike in all training samples"
        for place, what in ((first, "from kept files"), (second, "in another folder")):
            again = _loaded(data_set, name, place)
            assert again.fingerprint == data.fingerprint, (
                f"{name}: its fingerprint is another one when it is made again {what}: rows, files "
                "and their order must be the same each time"
            )


def _loaded(data_set: PluginDataSet, name: str, place: Path) -> DataSet:
    try:
        folder = folder_of(data_set, "checked", place, name)
        return load(folder, cache=place / "cache", modalities=data_set.modalities)
    except DataError as error:
        said = str(error)
        raise AssertionError(said if said.startswith(name) else f"{name}: {said}") from error
