"""Grows alpha, the hardness of the soft rank masks."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from lightning.pytorch import Callback, Trainer

from callbacks.trained_module import Batch, TrainedModule
from common.errors import InputError, check_one_of

Growth = Literal["linear", "exponential", "cosine"]
ReachedAt = Literal["last_step", "after_last_step"]


def alpha_at(
    step: int,
    steps: int,
    alpha_min: float,
    alpha_max: float,
    growth: Growth = "linear",
    reached_at: ReachedAt = "last_step",
) -> float:
    """Alpha at an optimizer step: alpha_min at step 0, alpha_max at the last of `steps` steps, or at the one after."""
    end = steps - 1 if reached_at == "last_step" else steps
    progress = min(1.0, step / max(1, end))
    if growth == "exponential":
        return alpha_min * (alpha_max / alpha_min) ** progress
    share = (1 - math.cos(math.pi * progress)) / 2 if growth == "cosine" else progress
    return alpha_min + (alpha_max - alpha_min) * share


@dataclass(eq=False, repr=False)
class AlphaGrowth(Callback):
    """Sets alpha before every step, as a pure function of the step over the run's total.

    Args:
        alpha_min: alpha at the first step, above 0.
        alpha_max: alpha at the end of training; below alpha_min for masks that soften.
        growth: linear (the study's), exponential or cosine.
        reached_at: where alpha_max is reached: at the last step, or, as in the study, one step after it.
    """

    alpha_min: float = 0.5
    alpha_max: float = 3.0
    growth: Growth = "linear"
    reached_at: ReachedAt = "last_step"

    def __post_init__(self) -> None:
        if not (0 < self.alpha_min < math.inf and 0 < self.alpha_max < math.inf):
            raise InputError(
                f"alpha_min is {self.alpha_min} and alpha_max is {self.alpha_max}; allowed: finite numbers above 0, "
                "for example 0.5 and 3."
            )
        check_one_of("growth", self.growth, get_args(Growth))
        check_one_of("reached_at", self.reached_at, get_args(ReachedAt))

    def on_train_batch_start(self, trainer: Trainer, pl_module: TrainedModule, batch: Batch, batch_idx: int) -> None:
        allocation = pl_module.rank_allocation
        if allocation is None:
            return
        steps = pl_module.training_steps()
        allocation.alpha = alpha_at(
            trainer.global_step, steps, self.alpha_min, self.alpha_max, self.growth, self.reached_at
        )
