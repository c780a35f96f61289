"""Weights of trunks: as loaded, or fine-tuned alone on the training split and kept."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from evaluators.cached_files import fault_of, is_whole, move_cached, move_whole
from evaluators.shared_store import SharedStore
from search_space.design.encoder import EncoderShape, EncoderSpec
from search_space.encoders.loading import load_trunk
from search_space.encoders.plugins import encoder_origins
from search_space.errors import STORAGE, FusionNasError

TRUNKS = "trunks"
"""Of the records of a shared store, as the folder of a home."""


class WeightsError(FusionNasError):
    """A file of weights is damaged or belongs to another network."""

    exit_code = STORAGE


class TrunkWeights:
    """Where trunks come from: one loading of each encoder, cut to any depth afterwards.

    `seed` draws the weights of encoders that start from random ones. Tuned weights that are not in
    `folder` are looked up in the shared store, where there is one.
    """

    def __init__(
        self,
        shapes: Mapping[str, EncoderShape],
        folder: Path,
        seed: int,
        shared: SharedStore | None = None,
    ) -> None:
        self._shapes, self._shared = shapes, shared
        self._folder = folder
        self._seed = seed
        self._loaded: dict[str, str] = {}
        self._tuned: dict[str, str] = {}

    def use_tuned(self, spec: EncoderSpec, key: str) -> None:
        """From now on this encoder's trunks carry the weights kept under `key`."""
        self._tuned[spec.name] = key

    def tuned_file(self, key: str) -> Path:
        """Where fine-tuned weights of this content key lie, or will."""
        return self._folder / f"{key}.safetensors"

    def has_tuned(self, key: str) -> bool:
        """Whether whole fine-tuned weights are cached under this content key, here by now."""
        file = self.tuned_file(key)
        if is_whole(file, quiet=True) or self._shared is None:
            return is_whole(file, quiet=True)
        return self._shared.fetch(TRUNKS, key, file)

    def keep_tuned(self, key: str, trunk: nn.Module) -> None:
        """Keeps the weights of a whole fine-tuned trunk."""
        save_state(trunk, self.tuned_file(key))
        if self._shared is not None:
            self._shared.send(TRUNKS, key, self.tuned_file(key))

    def identity(self, spec: EncoderSpec) -> str:
        """Changes whenever this encoder's trunks would give other features."""
        if spec.name in self._tuned:
            return tuned_identity(self._tuned[spec.name])
        return self.loaded_identity(spec)

    def loaded_identity(self, spec: EncoderSpec) -> str:
        """The same for the trunks as they are loaded, whether or not tuned ones stand in."""
        if spec.name not in self._loaded:
            digest = hashlib.sha256(json.dumps(architecture(spec), sort_keys=True).encode())
            trunk = load_trunk(spec, self._shapes[spec.name].depth, self._seed)
            for name, tensor in sorted(trunk.state_dict().items()):
                digest.update(name.encode())
                digest.update(tensor.contiguous().numpy().tobytes())
            self._loaded[spec.name] = digest.hexdigest()
        return self._loaded[spec.name]

    def trunk(self, spec: EncoderSpec, depth: int, tuned: bool = True) -> nn.Module:
        """A new trunk of the first `depth` layers, in evaluation mode.

        Its weights are those tuned alone, where there are any, or with `tuned` False as loaded.
        """
        trunk = load_trunk(spec, depth, self._seed)
        if tuned and spec.name in self._tuned:
            load_prefix(trunk, self.tuned_file(self._tuned[spec.name]))
        return trunk


def tuned_identity(key: str) -> str:
    """What `TrunkWeights.identity` says of trunks that carry the weights kept under `key`."""
    return f"tuned {key}"


def architecture(spec: EncoderSpec) -> dict[str, Any]:
    """All that the encoder's graph depends on, wherever its folder lies; weights left out.

    Two encoders may have one name and weights of the same sizes, and differ in source or heads.
    """
    found = replace(spec, weights="random").as_json()
    if spec.library == "plugin":
        return {**found, "source": "", "plugins": encoder_origins([spec])}
    config = Path(spec.source) / "config.json"
    if config.is_file():
        found["source"] = hashlib.sha256(config.read_bytes()).hexdigest()
    return found


def save_state(module: nn.Module, path: Path) -> None:
    """Writes a module's weights whole or not at all, with their checksum. Raises OSError."""
    write_tensors(module.state_dict(), path, move_cached)


def write_tensors(
    tensors: Mapping[str, torch.Tensor],
    path: Path,
    move: Callable[[Path, Path], None] = move_whole,
) -> None:
    """Writes a safetensors file whole or not at all; `move` brings it to its place.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.partial")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        move(temporary, path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, f"cannot be written ({error}): make room", str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def load_prefix(trunk: nn.Module, path: Path) -> None:
    """Loads a trunk's weights from those of a trunk at least as deep.

    Raises WeightsError where the file is damaged, has no checksum, lacks a weight or has it in
    another size; FileNotFoundError where there is none.
    """
    fault = fault_of(path)
    if fault:
        raise WeightsError(f"{path}: {fault}: remove it and run again")
    try:
        whole = load_file(path)
        trunk.load_state_dict({name: whole[name] for name in trunk.state_dict()})
    except SafetensorError as error:
        raise WeightsError(f"{path}: damaged ({error}): remove it and run again") from error
    except (KeyError, RuntimeError) as error:
        said = str(error).splitlines()[-1].strip()
        raise WeightsError(f"{path}: weights of another network ({said}): remove it") from error


def best_copy(module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's weights as they are now, on the host, safe from further training."""
    return {n: tensor.detach().to("cpu", copy=True) for n, tensor in module.state_dict().items()}
