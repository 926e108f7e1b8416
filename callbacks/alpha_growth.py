"""Grows alpha, the hardness of the soft rank masks."""

import math
from typing import Any, Literal

from lightning.pytorch import Callback, Trainer

from callbacks.trained_module import TrainedModule
from common.errors import InputError, one_of

Growth = Literal["linear", "exponential", "cosine"]
GROWTHS = ("linear", "exponential", "cosine")


def alpha_at(step: int, steps: int, alpha_min: float, alpha_max: float, growth: Growth = "linear") -> float:
    """Alpha at an optimizer step: alpha_min at step 0, alpha_max at the last of `steps` steps."""
    progress = min(1.0, step / max(1, steps - 1))
    match growth:
        case "linear":
            return alpha_min + (alpha_max - alpha_min) * progress
        case "exponential":
            return alpha_min * (alpha_max / alpha_min) ** progress
        case "cosine":
            return alpha_min + (alpha_max - alpha_min) * (1 - math.cos(math.pi * progress)) / 2
        case _:
            raise one_of("growth", growth, GROWTHS)


class AlphaGrowth(Callback):
    """Sets alpha before every step, as a pure function of the step over the run's total.

    Args:
        alpha_min: alpha at the first step, above 0.
        alpha_max: alpha at the last step.
        growth: linear (the study's), exponential or cosine.
    """

    def __init__(self, alpha_min: float = 0.5, alpha_max: float = 3.0, growth: Growth = "linear") -> None:
        if not 0 < alpha_min <= alpha_max < math.inf:
            raise InputError(
                f"alpha_min is {alpha_min} and alpha_max is {alpha_max}; allowed: 0 < alpha_min <= alpha_max, "
                "for example 0.5 and 3."
            )
        if growth not in GROWTHS:
            raise one_of("growth", growth, GROWTHS)
        self.alpha_min, self.alpha_max, self.growth = alpha_min, alpha_max, growth

    def on_train_batch_start(self, trainer: Trainer, pl_module: TrainedModule, batch: Any, batch_idx: int) -> None:
        allocation = pl_module.rank_allocation
        if allocation is None:
            return
        allocation.alpha = alpha_at(
            trainer.global_step, pl_module.training_steps(), self.alpha_min, self.alpha_max, self.growth
        )
