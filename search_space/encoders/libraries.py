"""torch, transformers and timm, imported so that they work side by side.

Everything that needs transformers or timm imports it through this module.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

import torch

from search_space.design.encoder import EncoderError

_kept: list[Any] = []
"""Operator schemas live as long as the library object that defined them."""


def _import_torchvision() -> None:
    """Makes `import torchvision` work beside a torch that has none of its compiled operators.

    A torchvision built for CUDA registers fake versions of operators that a CPU-only torch has
    never heard of, and fails; timm and transformers fail with it. Their schemas are all it needs.
    """
    try:
        importlib.import_module("torchvision")
        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
        del sys.modules[name]
    make_library: Any = torch.library.Library
    library = make_library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
    importlib.import_module("torchvision")


def import_timm() -> ModuleType:
    """The timm package."""
    _import_torchvision()
    return importlib.import_module("timm")


def from_pretrained(kind: str, source: str, **options: Any) -> Any:
    """Load what an auto class of transformers (`kind`) finds at `source`, and run none of its code.

    Raises EncoderError where the folder asks for code of its own to be run, and whatever the
    library raises for files that are missing or unusable.
    """
    loader = getattr(import_transformers(), kind)
    try:
        return loader.from_pretrained(
            source, local_files_only=True, trust_remote_code=False, **options
        )
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise EncoderError(
            f"encoder {source}: its configuration names Python code of its own (auto_map), which "
            "is never run; choose an encoder that transformers has built in"
        ) from error


def import_transformers() -> ModuleType:
    """The transformers package, told to keep its progress bars and advice to itself."""
    _import_torchvision()
    transformers = importlib.import_module("transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers
