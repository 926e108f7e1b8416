"""AdamW with one rate per group of parameters, and a learning rate schedule per step."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from common.errors import InputError, check_one_of
from common.terminal import logger

Schedule = Literal["constant", "linear_with_warmup"]
Rounded = Literal["up", "down"]


@dataclass
class OptimizerSettings:
    """AdamW and its schedule.

    Args:
        learning_rate: rate of the adapter, or of the whole backbone when there is no adapter.
        head_learning_rate: rate of the head; the same as learning_rate if not given.
        allocation_learning_rate: rate of the rank-allocation weights.
        weight_decay: decoupled weight decay of adapter, backbone and head.
        allocation_weight_decay: the same for the rank-allocation weights.
        betas: AdamW's two averaging coefficients.
        schedule: constant, or linear_with_warmup: up from 0 and then linearly down to 0 at the last step.
        warmup_fraction: share of all steps over which the rate rises.
        warmup_rounding: how that share becomes a number of steps: rounded up, or down (the adaptive-rank study's).
    """

    learning_rate: float = 1e-3
    head_learning_rate: float | None = None
    allocation_learning_rate: float = 2e-3
    weight_decay: float = 0.0
    allocation_weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Schedule = "linear_with_warmup"
    warmup_fraction: float = 0.06
    warmup_rounding: Rounded = "up"

    def __post_init__(self) -> None:
        for name in ("learning_rate", "head_learning_rate", "allocation_learning_rate"):
            value = getattr(self, name)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise InputError(f"{name} is {value}; allowed: 0 or a finite number above it, such as 1e-3.")
        for name in ("weight_decay", "allocation_weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}; allowed: 0 or more.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas is {list(self.betas)}; allowed: two numbers from 0 to below 1, as 0.9, 0.999.")
        if not 0 <= self.warmup_fraction <= 1:
            raise InputError(f"warmup_fraction is {self.warmup_fraction}; allowed: 0 to 1.")
        check_one_of("schedule", self.schedule, ("constant", "linear_with_warmup"))
        check_one_of("warmup_rounding", self.warmup_rounding, ("up", "down"))

    def group(self, name: str) -> dict[str, str | float]:
        """AdamW settings of the group `head`, `adapter`, `allocation` or `backbone`."""
        if name == "allocation":
            return {"name": name, "lr": self.allocation_learning_rate, "weight_decay": self.allocation_weight_decay}
        rate = self.head_learning_rate if name == "head" else None
        return {"name": name, "lr": self.learning_rate if rate is None else rate, "weight_decay": self.weight_decay}


def make_optimizer(groups: dict[str, list[nn.Parameter]], settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW over the groups that have parameters."""
    return torch.optim.AdamW(
        [{"params": parameters, **settings.group(name)} for name, parameters in groups.items() if parameters],
        betas=settings.betas,
        fused=True,
    )


def make_schedule(optimizer: torch.optim.Optimizer, settings: OptimizerSettings, steps: int) -> LambdaLR:
    """The schedule over `steps` optimizer steps."""
    from transformers import get_constant_schedule, get_linear_schedule_with_warmup  # slow, and it imports PEFT

    if settings.schedule == "constant":
        return get_constant_schedule(optimizer)
    rounded = math.ceil if settings.warmup_rounding == "up" else math.floor
    warm_up = rounded(settings.warmup_fraction * steps)
    if steps == 1 and warm_up:
        logger.warning(
            "Nothing is trained: the run has one step, and the warm-up gives it rate 0. Set "
            "--model.optimizer.warmup_fraction 0."
        )
    return get_linear_schedule_with_warmup(optimizer, warm_up, steps)


def apply_settings(optimizer: torch.optim.Optimizer, schedule: LambdaLR, settings: OptimizerSettings) -> None:
    """Gives an optimizer whose state was restored these settings, at the step that its schedule has reached.

    The schedule's functions are of the run's length now, its step is restored.
    """
    for place, (group, share) in enumerate(zip(optimizer.param_groups, schedule.lr_lambdas, strict=True)):
        asked = settings.group(group["name"])
        rate = float(asked["lr"])
        schedule.base_lrs[place] = rate
        # as the schedule computes it: nothing changes unless a setting has
        now = {"initial_lr": rate, "lr": rate * share(schedule.last_epoch)}
        group.update({**asked, **now, "betas": settings.betas})
