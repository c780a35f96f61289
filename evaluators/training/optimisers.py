"""Optimisers and schedules of learning rates, made from a configuration."""

from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from evaluators.training.config import TrainingConfig


def make_optimizer(module: nn.Module, config: TrainingConfig) -> optim.Optimizer:
    """The configuration's optimiser over all weights of a module."""
    groups, decay = _groups(module, config), config.weight_decay
    if config.optimizer == "sgd":
        return optim.SGD(groups, momentum=config.momentum, weight_decay=decay, fused=True)
    kind = optim.Adam if config.optimizer == "adam" else optim.AdamW
    return kind(groups, weight_decay=decay, fused=True)


def make_schedule(optimizer: optim.Optimizer, config: TrainingConfig, steps: int) -> LRScheduler:
    """The configuration's learning rate over `steps` steps; to be stepped after each."""
    if config.schedule == "constant":
        return LambdaLR(optimizer, lambda _: 1.0)
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=steps,
        pct_start=0.2 if steps == 10 else 0.1,  # it divides by a warm-up of one step less 1
        cycle_momentum=False,
    )


def _groups(module: nn.Module, config: TrainingConfig) -> list[dict[str, object]]:
    """Parameters by learning rate: those of trunks and what is new."""
    trunk: list[nn.Parameter] = []
    new: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        (trunk if name.startswith("trunks.") else new).append(parameter)
    groups = [
        {"params": new, "lr": config.learning_rate},
        {"params": trunk, "lr": config.trunk_learning_rate},
    ]
    return [group for group in groups if group["params"]]
