"""Ends a run at a number of steps."""

from typing import Any

from lightning.pytorch import Callback, Trainer

from common.errors import InputError
from lightning_modules.adapted_module import AdaptedModule


class StepLimit(Callback):
    """What trainer.max_steps asks for: stops after so many optimizer steps, validates, and ends the epoch.

    Lightning's own max_steps can't be resumed exactly (2.6: its loops take every restart for one in mid-epoch).

    Args:
        steps: optimizer steps of the whole run.
    """

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise InputError(f"trainer.max_steps is {steps}; allowed: 1 or more, or -1 for no limit.")
        self.steps = steps

    def setup(self, trainer: Trainer, pl_module: AdaptedModule, stage: str) -> None:
        pl_module.step_limit = self.steps

    def on_train_start(self, trainer: Trainer, pl_module: AdaptedModule) -> None:
        trainer.should_stop |= trainer.global_step >= self.steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: AdaptedModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        trainer.should_stop |= trainer.global_step >= self.steps
