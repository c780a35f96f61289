"""What the study of fusion operators varies, by name; imports nothing that takes long."""

from typing import Literal, get_args

Fusion = Literal["concatenation", "product", "tensor"]
Activation = Literal["none", "relu"]
Noised = Literal["text", "image", "both"]
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
NOISED: tuple[Noised, ...] = get_args(Noised)
FACTORS = tuple(round(0.05 * k, 2) for k in range(20))
"""Noise factors, 0 to 0.95."""
