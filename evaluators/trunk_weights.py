"""Weights of trunks: as loaded, or fine-tuned alone on the training split and kept."""

import hashlib
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import nn

from search_space.encoders import EncoderShape, EncoderSpec
from search_space.trunks import load_trunk

Loaded = tuple[nn.Module, str]


class TrunkWeights:
    """Where trunks come from: one loading of each encoder, cut to any depth afterwards.

    `seed` draws the weights of encoders that start from random ones.
    """

    def __init__(self, shapes: Mapping[str, EncoderShape], folder: Path, seed: int) -> None:
        self._shapes = shapes
        self._folder = folder
        self._seed = seed
        self._identity: dict[str, str] = {}
        self._tuned: dict[str, Path] = {}

    def use_tuned(self, spec: EncoderSpec, key: str) -> None:
        """From now on this encoder's trunks carry the weights kept under `key`."""
        self._tuned[spec.name] = self.tuned_file(key)
        self._identity[spec.name] = f"tuned {key}"

    def tuned_file(self, key: str) -> Path:
        """Where fine-tuned weights of this content key lie, or will."""
        return self._folder / f"{key}.safetensors"

    def keep_tuned(self, key: str, trunk: nn.Module) -> None:
        """Keeps the weights of a whole fine-tuned trunk."""
        save_state(trunk, self.tuned_file(key))

    def identity(self, spec: EncoderSpec) -> str:
        """Changes whenever the weights of this encoder's trunks do."""
        if spec.name not in self._identity:
            digest = hashlib.sha256()
            trunk = load_trunk(spec, self._shapes[spec.name].depth, self._seed)
            for name, tensor in sorted(trunk.state_dict().items()):
                digest.update(name.encode())
                digest.update(tensor.contiguous().numpy().tobytes())
            self._identity[spec.name] = digest.hexdigest()
        return self._identity[spec.name]

    def trunk(self, spec: EncoderSpec, depth: int) -> nn.Module:
        """A new trunk of the first `depth` layers, in evaluation mode."""
        trunk = load_trunk(spec, depth, self._seed)
        if spec.name in self._tuned:
            load_prefix(trunk, self._tuned[spec.name])
        return trunk


def save_state(module: nn.Module, path: Path) -> None:
    """Writes a module's weights whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        temporary = path.with_suffix(".partial")
        save_file({k: v.contiguous() for k, v in module.state_dict().items()}, temporary)
        temporary.replace(path)


def load_prefix(trunk: nn.Module, path: Path) -> None:
    """Loads a trunk's weights from those of a trunk at least as deep."""
    whole = load_file(path)
    trunk.load_state_dict({name: whole[name] for name in trunk.state_dict()})


def best_copy(module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's weights as they are now, safe from further training."""
    return deepcopy(module.state_dict())
