"""Optimisers and schedules of learning rates, made from a regime."""

from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from evaluators.training.config import Regime


def make_optimizer(module: nn.Module, regime: Regime) -> optim.Optimizer:
    """The regime's optimiser over all weights of a module."""
    groups, decay = _groups(module, regime), regime.weight_decay
    if regime.optimizer == "sgd":
        return optim.SGD(groups, momentum=regime.momentum, weight_decay=decay, fused=True)
    kind = optim.Adam if regime.optimizer == "adam" else optim.AdamW
    return kind(groups, weight_decay=decay, fused=True)


def make_schedule(optimizer: optim.Optimizer, regime: Regime, steps: int) -> LRScheduler:
    """The regime's learning rate over `steps` steps; to be stepped after each."""
    if regime.schedule == "constant":
        return LambdaLR(optimizer, lambda _: 1.0)
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=steps,
        pct_start=0.2 if steps == 10 else 0.1,  # it divides by a warm-up of one step less 1
        cycle_momentum=False,
    )


def _groups(module: nn.Module, regime: Regime) -> list[dict[str, object]]:
    """Parameters by learning rate: those of trunks and what is new."""
    trunk: list[nn.Parameter] = []
    new: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        (trunk if name.startswith("trunks.") else new).append(parameter)
    groups = [
        {"params": new, "lr": regime.learning_rate},
        {"params": trunk, "lr": regime.trunk_learning_rate},
    ]
    return [group for group in groups if group["params"]]
