"""Packages with plugins as pip installs them: a module and its metadata in a folder of the path."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evaluators.data import plugins as data_sets
from evaluators.devices import runtimes
from search_space.encoders import loading, plugins
from search_space.operators import registry
from studies.results import objectives

MAXIMUM = '''\
"""A fusion operator."""

import numpy as np

from fusion_nas.operators import FusionOperator, Signature


class Maximum(FusionOperator):
    """The greater of T and I, feature by feature."""

    signature = Signature(equal_widths=True, most=2)

    def reference(self, weights, padding, inputs):
        return (np.maximum(*inputs),)

    def module(self, width, modalities):
        import torch

        class Greater(torch.nn.Module):
            def forward(self, text, vision):
                return torch.maximum(text, vision)

        return Greater()
'''

BALANCED = '''\
"""An objective."""

import numpy as np

from fusion_nas.objectives import PredictionObjective


class Balanced(PredictionObjective):
    """Mean recall over the classes."""

    words = "balanced accuracy, %"
    higher = True

    def value(self, probabilities, labels):
        right = probabilities.argmax(1) == labels
        return 100 * np.mean([right[labels == each].mean() for each in np.unique(labels)])
'''


def write_package(
    folder: Path, name: str, code: str, entries: str, version: str = "1.0", group: str = ""
) -> None:
    """Install a package of one module, named as it is, with `-` as `_`.

    Args:
        folder: a folder of the path.
        name: of the package.
        code: of its module.
        entries: lines `NAME = MODULE:CLASS`.
        version: of the package.
        group: of the entries; that of operators if left out.
    """
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    metadata = folder / f"{module}-{version}.dist-info"
    metadata.mkdir(parents=True)
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (metadata / "METADATA").write_text(about, encoding="utf-8")
    said = f"[{group or registry.GROUP}]\n{entries}\n"
    (metadata / "entry_points.txt").write_text(said, encoding="utf-8")


@contextmanager
def on_path(*folders: Path) -> Iterator[None]:
    """Look for plugins anew, in these folders too; afterwards they are gone."""
    with pytest.MonkeyPatch.context() as patch:
        for folder in folders:
            patch.syspath_prepend(folder)
        _look_anew()
        try:
            yield
        finally:
            _look_anew()


def _look_anew() -> None:
    registry._plugins.cache_clear()
    objectives._plugins.cache_clear()
    runtimes._plugins.cache_clear()
    plugins._plugins.cache_clear()
    data_sets._plugins.cache_clear()
    loading.describe.cache_clear()
    loading.describe_vocabulary.cache_clear()
