"""The mean of a network's weights over the ends of several epochs (arXiv 1803.05407)."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from evaluators.features.trunk_weights import best_copy


class WeightMean:
    """Running mean of a module's weights and statistics from epoch `start` on; None: of nothing.

    It wanders less than the weights themselves, so a few noisy validation samples choose better.
    """

    def __init__(self, module: nn.Module, start: int | None) -> None:
        self._module, self._start = module, start
        self._mean: dict[str, Tensor] = {}
        self._count = 0

    def add(self, epoch: int) -> None:
        """Takes in the weights as they are at the end of an epoch, counted from 1."""
        if self._start is None or epoch < self._start:
            return
        self._count += 1
        for name, now in best_copy(self._module).items():
            if self._count > 1 and now.is_floating_point():
                self._mean[name] += (now - self._mean[name]) / self._count
            else:
                self._mean[name] = now

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The module carries the mean, where there is one, and afterwards its own weights again."""
        if self._count < 2:
            yield
            return
        own = best_copy(self._module)
        self._module.load_state_dict(self._mean)
        try:
            yield
        finally:
            self._module.load_state_dict(own)
