"""Resolved training configuration, and schedules of the learning rate."""

import math
from dataclasses import dataclass

import torch

PRECISIONS = (None, "fp32", "bf16")
OPTIMIZERS = {
    "adamw": {"optimizer": torch.optim.AdamW},
    "sgd": {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
}
SCHEDULES = {
    "constant": lambda t: 1.0,
    "linear": lambda t: 1 - t,
    "cosine": lambda t: (1 + math.cos(math.pi * t)) / 2,
    "steps": lambda t: 1.0 if t < 0.4 else 0.1 if t < 0.8 else 0.01,
    # Smith and Topin (2018): rises over the first 30 %, then falls along a cosine.
    "onecycle": lambda t: (
        0.04 + 0.96 * t / 0.3 if t < 0.3 else (1 + math.cos(math.pi * (t - 0.3) / 0.7)) / 2
    ),
}


@dataclass(frozen=True)
class Settings:
    """Resolved training configuration: no field depends on the backbone."""

    max_epochs: int
    batch_size: int = 32
    learning_rate: float = 1e-3
    stump_lr_factor: float = 1.0
    weight_decay: float = 0.01
    lr_schedule: str = "constant"
    ema_epochs: int = 0
    norm_warmup_epochs: int = 0
    head_init: str = "random"  # or "ridge", or "kept": leaves heads and their statistics
    flips: bool = False
    augmentation: object = None
    cache_features: bool = True
    sampling: str = "shared"
    patience: int | None = None
    bf16: bool = False
    device: str = "cpu"
    seed: int = 0
    verbose: int = 0
    optimizer: str = "adamw"
    undecayed: tuple = ()  # name patterns of parameters without weight decay
    lr_factors: tuple = ()  # pairs (name pattern, factor on the learning rate)


def optimizer_parameters(settings):
    """Return the arguments of a skorch net that concern the optimiser."""
    return {
        "optimizer__fused": True,
        "optimizer__weight_decay": settings.weight_decay,
        "optimizer__param_groups": _parameter_groups(settings),
        **OPTIMIZERS[settings.optimizer],
    }


def _parameter_groups(settings):
    """Return groups of parameters with a special learning rate or decay, in skorch's form."""
    groups = {pattern: {"weight_decay": 0.0} for pattern in settings.undecayed}
    for pattern, factor in (*settings.lr_factors, ("stump.*", settings.stump_lr_factor)):
        if factor != 1:
            groups.setdefault(pattern, {})["lr"] = factor * settings.learning_rate
    return list(groups.items())
