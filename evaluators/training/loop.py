"""One trainer for everything: unimodal fine-tuning, fusion on kept features, whole networks."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evaluators.evaluation import NotFiniteError
from evaluators.features.examples import (
    Batch,
    Examples,
    RawInputs,
    by_length,
    shuffled_batches,
)
from evaluators.features.prefetch import Waited, made_ahead
from evaluators.features.trunk_weights import best_copy
from evaluators.training.averaging import WeightMean
from evaluators.training.config import TUNED, Arithmetic, TrainingConfig, TrainingProtocol, Trunks
from evaluators.training.execution import (
    LEAST_PART,
    PLAIN,
    Execution,
    autocast,
    compiled_layers,
    part_size,
)
from evaluators.training.optimisers import make_optimizer, make_schedule
from evaluators.training.targets import is_right, mean_loss

__all__ = [
    "TRAINING_VERSION",
    "TUNED",
    "Arithmetic",
    "Examples",
    "Fit",
    "RawInputs",
    "TrainingConfig",
    "TrainingProtocol",
    "Trunks",
    "fit",
    "predict",
    "score",
    "shuffled_batches",
]

EVALUATION_BATCH = 128
TRAINING_VERSION = 5
"""Part of every quality key: raise it when the same protocol comes to train another network."""

WAY_OUT = "try --trunks frozen or another --seed (with a new --name), or another encoder"
"""What helps where training leads to numbers that are not finite."""


@dataclass(frozen=True)
class Fit:
    """What came of one training.

    waited_s: of `seconds`, those in which the training waited for its next batch. part: samples
    that were trained at once. compiled: how many layers were.
    """

    epochs: int
    best_epoch: int
    seconds: float
    valid_accuracy: float
    valid_loss: float
    waited_s: float = 0.0
    part: int = 0
    compiled: int = 0


Progress = Callable[[int, int, float], None]
"""Called after each epoch with (epoch, epochs at most, validation accuracy 0..1)."""


def fit(
    module: nn.Module,
    train: Examples,
    valid: Examples,
    config: TrainingConfig,
    seed: int,
    progress: Progress | None = None,
    arithmetic: Arithmetic = "fp32",
    execution: Execution = PLAIN,
) -> Fit:
    """Trains a module in place and leaves it with the weights of its best validation epoch.

    The same module, examples, configuration and seed give the same weights on the same machine.
    Raises NotFiniteError after an epoch in which the loss was not a finite number.
    """
    started = time.perf_counter()
    config = config.for_samples(len(train.labels))
    epochs = config.epochs
    part = part_size(module, train, config, arithmetic, execution)
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(train.labels) // config.batch_size)
    trainer = _Trainer(module, train, config, steps, part, arithmetic, execution)
    mean = WeightMean(module, config.average_from)
    best = (-1.0, 0.0)
    best_state, best_epoch, epoch = best_copy(module), 0, 0
    with compiled_layers(module, execution, steps) as compiled:
        for epoch in range(1, epochs + 1):
            loss = trainer.epoch(order)
            if not torch.isfinite(loss):
                raise NotFiniteError(f"training loss is {loss.item()} in epoch {epoch}: {WAY_OUT}")
            mean.add(epoch)
            with mean.in_place():
                reached = score(module, valid, execution)
                if reached > best:
                    best, best_state, best_epoch = reached, best_copy(module), epoch
            if progress:
                progress(epoch, epochs, reached[0])
            if epoch - best_epoch >= config.patience:
                break
    module.load_state_dict(best_state)
    module.eval()
    seconds = time.perf_counter() - started
    waited = trainer.waited.seconds
    return Fit(epoch, best_epoch, seconds, best[0], -best[1], waited, part, compiled)


class _Trainer:
    """The steps of one training."""

    def __init__(
        self,
        module: nn.Module,
        train: Examples,
        config: TrainingConfig,
        steps: int,
        part: int,
        arithmetic: Arithmetic,
        execution: Execution,
    ) -> None:
        self.waited: Waited[_Part] = Waited()
        self._module, self._train, self._config = module, train, config
        self._part, self._arithmetic, self._execution = part, arithmetic, execution
        self._optimizer = make_optimizer(module, config)
        self._schedule = make_schedule(self._optimizer, config, steps)
        kind = torch.device(execution.device).type
        self._scaler = torch.amp.GradScaler(kind, enabled=arithmetic == "fp16")

    def epoch(self, order: torch.Generator) -> Tensor:
        """Trains once on every sample and gives the sum of all losses.

        The loss is looked at once an epoch: a look makes the host wait for the card.
        """
        self._module.train()
        total = torch.zeros((), device=self._execution.device)
        batches = shuffled_batches(self._train, self._config.batch_size, order)
        parts = [each for indices in batches for each in _parts(indices, self._part)]
        fetched = made_ahead(self._fetched, parts, self._execution.batches_ahead)
        for part in self.waited.over(fetched):
            total += self._backward(part)
            if part.last:
                self._step()
        return total

    def _fetched(self, part: tuple[Tensor, float, bool]) -> "_Part":
        indices, share, last = part
        return _Part(self._train.batch(indices), share, last)

    def _backward(self, part: "_Part") -> Tensor:
        with autocast(self._execution.device, self._arithmetic):
            logits = part.batch.logits(self._module)
        loss = part.share * mean_loss(logits.float(), part.batch.labels)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _step(self) -> None:
        if self._config.clip_norm is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._module.parameters(), self._config.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self._schedule.step()


@dataclass(frozen=True)
class _Part:
    """What is trained at once: a batch or a share of one; a step follows its last part."""

    batch: Batch
    share: float
    last: bool


def _parts(indices: Tensor, size: int) -> Iterable[tuple[Tensor, float, bool]]:
    """A batch's indices in equal parts of at most `size`, none of one sample alone."""
    count = min(-(-len(indices) // size), max(1, len(indices) // LEAST_PART))
    parts: Sequence[Tensor] = indices.tensor_split(count)
    for k, part in enumerate(parts, start=1):
        yield part, len(part) / len(indices), k == count


def score(
    module: nn.Module, examples: Examples, execution: Execution = PLAIN
) -> tuple[float, float]:
    """Accuracy (0..1) and negative mean loss of a module: higher is better in both."""
    logits = predict(module, examples, execution).cpu()
    correct = is_right(logits, examples.labels).double().mean()
    loss = mean_loss(logits, examples.labels)
    if not torch.isfinite(loss):
        raise NotFiniteError(f"validation loss is {loss.item()}: {WAY_OUT}")
    return float(correct), -float(loss)


def predict(module: nn.Module, examples: Examples, execution: Execution = PLAIN) -> Tensor:
    """Logits (N, classes) of all samples in their order, in evaluation mode."""
    module.eval()
    order = by_length(examples)
    batches: Sequence[Tensor] = order.split(EVALUATION_BATCH)  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        fetched = made_ahead(examples.batch, batches, execution.batches_ahead)
        logits = torch.cat([batch.logits(module) for batch in fetched])
        return logits[order.argsort().to(logits.device)]
