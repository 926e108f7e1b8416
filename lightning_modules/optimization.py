"""What is trained, in groups with a rate each: AdamW, a schedule per step, and how gradients are clipped."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from callbacks.trained_module import TrainedModule
from common.errors import InputError, check_one_of
from common.terminal import logger
from lora.injection import is_inside

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


class OptimizedModule(TrainedModule):
    """AdamW over head, adapter, rank-allocation weights and backbone, as far as they are trained."""

    optimizer_settings: OptimizerSettings
    head_modules: tuple[str, ...] = ()  # module paths of the head; empty before the model is loaded

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by group: head, adapter, allocation, backbone."""
        groups: dict[str, list[nn.Parameter]] = {"head": [], "adapter": [], "allocation": [], "backbone": []}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                rest = "backbone" if self.adapter is None else "adapter"  # an adapter may train parts of the model
                groups["head" if is_inside(name, self.head_modules) else rest].append(parameter)
        for name, parameter in self.adapter.named_parameters() if self.adapter is not None else ():
            groups["allocation" if name.startswith("rank_allocation.") else "adapter"].append(parameter)
        return groups

    def parameter_counts(self) -> dict[str, int]:
        """Trainable parameters as numbers, with their total; a trained backbone counts as adapter."""
        counts = {name: sum(p.numel() for p in group) for name, group in self.parameter_groups().items()}
        counts["adapter"] += counts.pop("backbone")
        return {**counts, "total": sum(counts.values())}

    def head_optimizer(self) -> Optimizer | None:
        head = self.parameter_groups()["head"]
        return make_optimizer({"head": head}, self.optimizer_settings) if head else None

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.parameter_groups(), self.optimizer_settings)
        schedule = make_schedule(optimizer, self.optimizer_settings, self.training_steps())
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "learning_rate"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips in mixed precision, too, where Lightning refuses to: a fused optimizer can take scaled gradients."""
        if not gradient_clip_val:
            return
        precision: Any = self.trainer.precision_plugin
        if (scaler := getattr(precision, "scaler", None)) is not None:
            scaler.unscale_(optimizer)  # it notes that, and the optimizer's step then doesn't divide again
        if gradient_clip_algorithm == "value":
            precision.clip_grad_by_value(optimizer, gradient_clip_val)
        else:
            precision.clip_grad_by_norm(optimizer, gradient_clip_val)
