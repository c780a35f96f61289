"""Results of torch compared with what they should be."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from search_space.operators.numpy_layers import Array

RELATIVE, ABSOLUTE = 1e-3, 1e-4
"""By how much results of fp32 may differ."""


def same(found: Sequence[Tensor], expected: Sequence[Array], what: str) -> None:
    """Raise AssertionError where results differ by more than rounding."""
    shapes, wanted = ([tuple(each.shape) for each in side] for side in (found, expected))
    assert shapes == wanted, f"{what}: shapes {shapes} and {wanted}"
    for one, other in zip(found, expected, strict=True):
        values = one.detach().double().numpy()
        difference = np.abs(values - other)
        fits = np.isfinite(values) & (difference <= ABSOLUTE + RELATIVE * np.abs(other))
        assert fits.all(), f"{what}: by {difference[~fits].max():.2g}"
