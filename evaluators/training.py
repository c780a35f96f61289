"""One trainer for everything: unimodal fine-tuning, fusion on kept features, whole networks."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluators.costs import count_macs
from evaluators.evaluation import NotFiniteError
from evaluators.preprocessing import Pixels
from evaluators.trunk_weights import best_copy
from search_space.features import Feature

Trunks = Literal["frozen", "by-stage"]
EVALUATION_BATCH = 128
MIN_EPOCHS = 1
RECIPE = 1
"""Part of every quality key: raise it when the same protocol comes to train another network."""


@dataclass(frozen=True)
class Regime:
    """How one module is trained: AdamW, warm-up over a tenth of the steps, then cosine to zero.

    The state of the best validation epoch is kept (accuracy, then loss); training stops once
    `patience` epochs brought no better one. Learning rates are for new layers and for trunks.
    `max_macs` bounds the multiply-accumulates of one training: a module that is dear to train gets
    fewer epochs, at least one. It depends on shapes alone, so the bound is the same everywhere.
    """

    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    trunk_learning_rate: float
    weight_decay: float = 0.1
    max_macs: float | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(
                f"{self.epochs} epochs of batches of {self.batch_size}: give at least 1 epoch and, "
                "for BatchNorm, batches of at least 2"
            )


@dataclass(frozen=True)
class TrainingProtocol:
    """The one protocol by which all designs of a study are trained.

    trunks: "frozen" trains fusion and head on features of the trunks as they were loaded.
    "by-stage" fine-tunes each trunk alone first, and every design trains fusion and head on those
    trunks while they are frozen; a design whose taps all stand at the last layer ends there, every
    other design is then trained whole.
    """

    trunks: Trunks = "by-stage"
    seed: int = 0
    alone: Regime = field(default_factory=lambda: Regime(9, 3, 32, 1e-3, 1e-3))
    fusion: Regime = field(default_factory=lambda: Regime(24, 4, 32, 5e-4, 0.0))
    whole: Regime = field(default_factory=lambda: Regime(2, 2, 64, 5e-4, 5e-4))


class Examples(Protocol):
    """Labelled samples of one split, and how a module turns some of them into logits."""

    labels: Tensor

    def logits(self, module: nn.Module, indices: Tensor) -> Tensor:
        """Logits (B, classes) of the samples at `indices` (B,)."""
        ...


class KeptFeatures:
    """Samples as features of frozen trunks, for a `Fusion`."""

    def __init__(
        self, features: Mapping[Feature, Tensor], mask: Tensor | None, labels: Tensor, device: str
    ) -> None:
        self.labels = labels.to(device)
        self._features, self._mask, self._device = features, mask, device

    def logits(self, module: nn.Module, indices: Tensor) -> Tensor:
        """Logits (B, classes) of the samples at `indices` (B,)."""
        at = indices.cpu()
        mask, longest = None, None
        if self._mask is not None:
            mask = _trimmed(self._mask[at])
            longest = mask.shape[1]
            mask = mask.to(self._device)
        features = {}
        for feature, kept in self._features.items():
            over_text = feature.modality == "text" and feature.form == "tokens"
            part = kept[at, :longest] if over_text else kept[at]
            features[feature] = part.to(self._device, torch.float32)
        logits: Tensor = module(features, mask)
        return logits


class RawInputs:
    """Samples as token ids, mask and pixels, for a `FusionNetwork`."""

    def __init__(
        self, text: tuple[Tensor, Tensor] | None, pixels: Pixels | None, labels: Tensor, device: str
    ) -> None:
        self.labels = labels.to(device)
        self._text, self._pixels, self._device = text, pixels, device

    def logits(self, module: nn.Module, indices: Tensor) -> Tensor:
        """Logits (B, classes) of the samples at `indices` (B,)."""
        at = indices.cpu()
        inputs: list[Tensor] = []
        if self._text is not None:
            ids, mask = self._text[0][at], _trimmed(self._text[1][at])
            inputs = [ids[:, : mask.shape[1]], mask]
        if self._pixels is not None:
            inputs.append(self._pixels.batch(at))
        logits: Tensor = module(*(part.to(self._device) for part in inputs))
        return logits


def _trimmed(mask: Tensor) -> Tensor:
    """A mask (B, L) cut to the longest text of the batch: padding changes no logit."""
    return mask[:, : max(1, int(mask.sum(1).max()))]


@dataclass(frozen=True)
class Fit:
    """What came of one training."""

    epochs: int
    epochs_allowed: int
    best_epoch: int
    seconds: float
    valid_accuracy: float
    valid_loss: float


Progress = Callable[[int, int, float], None]
"""Called after each epoch with (epoch, epochs at most, validation accuracy 0..1)."""


def fit(
    module: nn.Module,
    train: Examples,
    valid: Examples,
    regime: Regime,
    seed: int,
    progress: Progress | None = None,
) -> Fit:
    """Trains a module in place and leaves it with the weights of its best validation epoch.

    The same module, examples, regime and seed give the same weights on the same machine.
    Raises NotFiniteError as soon as the loss is not a finite number.
    """
    started = time.perf_counter()
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    count, epochs = len(train.labels), affordable_epochs(module, train, regime)
    total = epochs * -(-count // regime.batch_size)
    optimizer = torch.optim.AdamW(
        _groups(module, regime), weight_decay=regime.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total,
        pct_start=0.2 if total == 10 else 0.1,  # OneCycleLR divides by a warm-up of one step less 1
        cycle_momentum=False,
    )
    best = (-1.0, 0.0)
    best_state, best_epoch, epoch = best_copy(module), 0, 0
    for epoch in range(1, epochs + 1):
        module.train()
        for indices in torch.randperm(count, generator=order).split(regime.batch_size):  # type: ignore[no-untyped-call]
            if len(indices) == 1 and count > 1:
                continue  # BatchNorm cannot take the statistics of one sample
            loss = F.cross_entropy(train.logits(module, indices), train.labels[indices])
            if not torch.isfinite(loss):
                raise NotFiniteError(
                    f"training loss is {loss.item()} in epoch {epoch}: lower the learning rate"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        reached = score(module, valid)
        if progress:
            progress(epoch, epochs, reached[0])
        if reached > best:
            best, best_state, best_epoch = reached, best_copy(module), epoch
        elif epoch - best_epoch >= regime.patience:
            break
    module.load_state_dict(best_state)
    module.eval()
    return Fit(epoch, epochs, best_epoch, time.perf_counter() - started, best[0], -best[1])


def affordable_epochs(module: nn.Module, train: Examples, regime: Regime) -> int:
    """Epochs that the regime's bound leaves this module; a step counts as three forward passes."""
    if regime.max_macs is None:
        return regime.epochs
    module.eval()
    batch = torch.arange(min(regime.batch_size, len(train.labels)))
    forward = count_macs(lambda: train.logits(module, batch)) / len(batch)
    within = int(regime.max_macs / (3 * max(1, forward) * len(train.labels)))
    return min(regime.epochs, max(MIN_EPOCHS, within))


def score(module: nn.Module, examples: Examples) -> tuple[float, float]:
    """Accuracy (0..1) and negative mean loss of a module: higher is better in both."""
    logits = predict(module, examples)
    right = (logits.argmax(1) == examples.labels).double().mean()
    loss = F.cross_entropy(logits, examples.labels)
    if not torch.isfinite(loss):
        raise NotFiniteError(f"validation loss is {loss.item()}: lower the learning rate")
    return float(right), -float(loss)


def predict(module: nn.Module, examples: Examples) -> Tensor:
    """Logits (N, classes) of all samples, in evaluation mode."""
    module.eval()
    with torch.inference_mode():
        batches: Sequence[Tensor] = torch.arange(len(examples.labels)).split(  # type: ignore[no-untyped-call]
            EVALUATION_BATCH
        )
        return torch.cat([examples.logits(module, indices) for indices in batches])


def _groups(module: nn.Module, regime: Regime) -> list[dict[str, object]]:
    """Parameters by learning rate: trunks (children named text and vision) and what is new."""
    trunk: list[nn.Parameter] = []
    new: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        (trunk if name.startswith(("text.", "vision.")) else new).append(parameter)
    groups = [
        {"params": new, "lr": regime.learning_rate},
        {"params": trunk, "lr": regime.trunk_learning_rate},
    ]
    return [group for group in groups if group["params"]]
