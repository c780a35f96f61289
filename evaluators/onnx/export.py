"""`torch.onnx.export` as it is used here."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.onnx import symbolic_helper

from evaluators.onnx.passes.simplify import simplify
from evaluators.onnx.versions import OPSET
from search_space.design.encoder import EncoderError
from search_space.encoders.configs import first_line


def export(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    file: Path,
    input_names: Sequence[str],
    output_names: Sequence[str],
    open_axes: Mapping[str, Mapping[int, str]],
    of: str = "a network",
) -> None:
    """Writes a network as ONNX, traced with these inputs, of fixed shapes but for `open_axes`.

    What no output depends on is left out, see `evaluators.onnx.passes.simplify`. Raises
    EncoderError, which names what the network is `of`, where it has no form in ONNX.
    """
    try:
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
    except (OSError, MemoryError):
        raise
    except Exception as error:  # exporters of operators raise whatever they like
        raise EncoderError(
            f"{of}: it cannot be written as ONNX ({first_line(error)[:200].strip()}); "
            "choose another encoder"
        ) from error
    simplify(file)


@contextmanager
def _quiet() -> Iterator[None]:
    """Export without the fused attention that has no ONNX form, and without tracer's remarks.

    Nor is the whole graph printed where an operator has no ONNX form.
    """
    fastpath, disabled = torch.backends.mha.get_fastpath_enabled(), logging.root.manager.disable
    torch.backends.mha.set_fastpath_enabled(False)
    # torch 2.13 takes its log for switched on whatever it was switched to.
    log = torch._C._jit_onnx_log
    torch._C._jit_onnx_log = lambda *_: None
    logging.disable(max(disabled, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        torch._C._jit_onnx_log = log
        torch.backends.mha.set_fastpath_enabled(fastpath)


_known: Any = symbolic_helper


def _rms_norm(g: Any, x: Any, shape: Any, weight: Any, eps: Any) -> Any:
    """Root mean square normalisation (`aten::rms_norm`), which the exporter does not know."""
    count = len(_known._get_const(shape, "is", "shape"))
    given = None if _known._is_none(eps) else _known._get_const(eps, "f", "eps")
    least = torch.finfo(torch.float32).eps if given is None else float(given)
    axes = g.op("Constant", value_t=torch.arange(-count, 0))
    mean = g.op("ReduceMean", g.op("Mul", x, x), axes, keepdims_i=1)
    added = g.op("Add", mean, g.op("Constant", value_t=torch.tensor(least)))
    normal = g.op("Div", x, g.op("Sqrt", added))
    return normal if _known._is_none(weight) else g.op("Mul", normal, weight)


cast(Any, torch.onnx).register_custom_op_symbolic("aten::rms_norm", _rms_norm, OPSET)
