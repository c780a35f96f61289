"""One trainer for everything: unimodal fine-tuning, fusion on kept features, whole networks."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluators.costs import count_macs
from evaluators.evaluation import NotFiniteError
from evaluators.preprocessing import Pixels
from evaluators.trunk_weights import best_copy
from search_space.encoders import Modality
from search_space.features import Feature

Trunks = Literal["frozen", "text-tuned", "tuned", "by-stage"]
TUNED: dict[Trunks, tuple[Modality, ...]] = {
    "frozen": (),
    "text-tuned": ("text",),
    "tuned": ("text", "vision"),
    "by-stage": ("text", "vision"),
}
"""Trunks that are fine-tuned alone before the first design is trained."""
Arithmetic = Literal["fp32", "bf16"]
EVALUATION_BATCH = 128
MIN_EPOCHS = 1
LIKE_LENGTH_BATCHES = 16
"""Batches of texts of like length are cut from this many batches' worth of shuffled samples."""
RECIPE = 2
"""Part of every quality key: raise it when the same protocol comes to train another network."""

WAY_OUT = "try --trunks frozen or another --seed (with a new --name), or another encoder"
"""What helps where training leads to numbers that are not finite."""


@dataclass(frozen=True)
class Regime:
    """How one module is trained: AdamW, warm-up over a tenth of the steps, then cosine to zero.

    The state of the best validation epoch is kept (accuracy, then loss); training stops once
    `patience` epochs brought no better one. Learning rates are for new layers and for trunks.
    `max_macs` bounds the multiply-accumulates of one training: a module that is dear to train gets
    fewer epochs, at least one. It depends on shapes and on how long the texts are, so the bound
    is the same everywhere.
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

    trunks: "frozen" trains fusion and head on features of the trunks as they were loaded; "tuned"
    fine-tunes each trunk alone first ("text-tuned" the text trunks only) and trains fusion and head
    on features of those; "by-stage" goes on: a design whose taps all stand at the last layer ends
    there, every other design is then trained whole.

    Trunks that start from pretrained weights have regimes of their own, with rates that do not
    wash those weights out. `arithmetic` is that of training trunks: "bf16" is autocast with
    weights and optimiser in fp32; evaluation is always fp32.
    """

    trunks: Trunks = "by-stage"
    seed: int = 0
    arithmetic: Arithmetic = "fp32"
    alone: Regime = field(default_factory=lambda: Regime(9, 3, 32, 1e-3, 1e-3))
    alone_pretrained: Regime = field(default_factory=lambda: Regime(3, 2, 32, 5e-4, 5e-5))
    fusion: Regime = field(default_factory=lambda: Regime(24, 4, 64, 1e-3, 0.0))
    whole: Regime = field(default_factory=lambda: Regime(2, 2, 64, 5e-4, 5e-4))
    whole_pretrained: Regime = field(default_factory=lambda: Regime(3, 2, 32, 2e-4, 5e-5))


def native_arithmetic(compute_device: str) -> Arithmetic:
    """bf16 where the processor multiplies matrices in it (AMX, tensor cores), else fp32."""
    if compute_device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"


class Examples(Protocol):
    """Labelled samples of one split, and how a module turns some of them into logits.

    `lengths` (N,) are the texts' in tokens, None where what a batch costs hangs on none of them.
    """

    labels: Tensor
    lengths: Tensor | None

    def logits(self, module: nn.Module, indices: Tensor) -> Tensor:
        """Logits (B, classes) of the samples at `indices` (B,)."""
        ...


class KeptFeatures:
    """Samples as features of frozen trunks, for a `Fusion`."""

    def __init__(
        self, features: Mapping[Feature, Tensor], mask: Tensor | None, labels: Tensor, device: str
    ) -> None:
        self.labels = labels.to(device)
        over_tokens = any(f.modality == "text" and f.form == "tokens" for f in features)
        self.lengths = mask.sum(1) if mask is not None and over_tokens else None
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
        self.lengths = text[1].sum(1) if text else None
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
    arithmetic: Arithmetic = "fp32",
) -> Fit:
    """Trains a module in place and leaves it with the weights of its best validation epoch.

    The same module, examples, regime and seed give the same weights on the same machine.
    Raises NotFiniteError as soon as the loss is not a finite number.
    """
    started = time.perf_counter()
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    epochs = affordable_epochs(module, train, regime)
    total = epochs * -(-len(train.labels) // regime.batch_size)
    kind = train.labels.device.type
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
        for indices in shuffled_batches(train, regime.batch_size, order):
            with torch.autocast(kind, torch.bfloat16, enabled=arithmetic == "bf16"):
                logits = train.logits(module, indices)
            loss = F.cross_entropy(logits.float(), train.labels[indices])
            if not torch.isfinite(loss):
                raise NotFiniteError(f"training loss is {loss.item()} in epoch {epoch}: {WAY_OUT}")
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


def shuffled_batches(examples: Examples, size: int, generator: torch.Generator) -> Iterable[Tensor]:
    """Indices of all samples in random batches, texts of like length together: less padding.

    A last batch of one sample is left out: BatchNorm cannot take its statistics.
    """
    order = torch.randperm(len(examples.labels), generator=generator)
    if examples.lengths is not None:
        lengths = examples.lengths
        parts: Sequence[Tensor] = order.split(LIKE_LENGTH_BATCHES * size)  # type: ignore[no-untyped-call]
        order = torch.cat([part[lengths[part].argsort(stable=True)] for part in parts])
    batches: list[Tensor] = [b for b in order.split(size) if len(b) > 1]  # type: ignore[no-untyped-call]
    return [batches[k] for k in torch.randperm(len(batches), generator=generator).tolist()]


def affordable_epochs(module: nn.Module, train: Examples, regime: Regime) -> int:
    """Epochs that the regime's bound leaves this module; a step counts as three forward passes."""
    if regime.max_macs is None:
        return regime.epochs
    module.eval()
    batch = torch.arange(len(train.labels))
    if train.lengths is not None:  # batches hold texts of like length: the mean is what they cost
        mean = train.lengths.float().mean()
        batch = (train.lengths - mean).abs().argsort(stable=True)
    batch = batch[: regime.batch_size]
    forward = count_macs(lambda: train.logits(module, batch)) / len(batch)
    within = int(regime.max_macs / (3 * max(1, forward) * len(train.labels)))
    return min(regime.epochs, max(MIN_EPOCHS, within))


def score(module: nn.Module, examples: Examples) -> tuple[float, float]:
    """Accuracy (0..1) and negative mean loss of a module: higher is better in both."""
    logits = predict(module, examples)
    right = (logits.argmax(1) == examples.labels).double().mean()
    loss = F.cross_entropy(logits, examples.labels)
    if not torch.isfinite(loss):
        raise NotFiniteError(f"validation loss is {loss.item()}: {WAY_OUT}")
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
