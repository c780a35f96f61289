"""`torch.onnx.export` as it is used here."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from evaluators.onnx.passes.simplify import simplify
from evaluators.onnx.versions import OPSET


def export(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    file: Path,
    input_names: Sequence[str],
    output_names: Sequence[str],
    open_axes: Mapping[str, Mapping[int, str]],
) -> None:
    """Writes a network as ONNX, traced with these inputs, of fixed shapes but for `open_axes`.

    What no output depends on is left out, see `evaluators.onnx.passes.simplify`.
    """
    with _quiet():
        torch.onnx.export(
            network,
            inputs,
            str(file),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_axes={name: dict(axes) for name, axes in open_axes.items()},
        )
    simplify(file)


@contextmanager
def _quiet() -> Iterator[None]:
    """Export without the fused attention that has no ONNX form, and without tracer's remarks."""
    fastpath, disabled = torch.backends.mha.get_fastpath_enabled(), logging.root.manager.disable
    torch.backends.mha.set_fastpath_enabled(False)
    logging.disable(max(disabled, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        torch.backends.mha.set_fastpath_enabled(fastpath)
