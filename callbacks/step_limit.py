"""Ends a run at a number of steps."""

from typing import Any

from lightning.pytorch import Callback, Trainer

from callbacks.trained_module import TrainedModule
from common.errors import InputError


class StepLimit(Callback):
    """What trainer.max_steps asks for: stops after so many optimizer steps, validates, and ends the epoch.

    Lightning's own max_steps can't be resumed exactly (2.6: its loops take every restart for one in mid-epoch).

    Args:
        steps: optimizer steps of the whole run.

    Raises:
        InputError: steps is below 1, or trainer.min_epochs or min_steps ask for more.
    """

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise InputError(f"trainer.max_steps is {steps}; allowed: 1 or more, or -1 for no limit.")
        self.steps = steps

    def setup(self, trainer: Trainer, pl_module: TrainedModule, stage: str) -> None:
        pl_module.step_limit = self.steps

    def on_train_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        self._check_least(trainer, pl_module)
        trainer.should_stop |= trainer.global_step >= self.steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: TrainedModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        trainer.should_stop |= trainer.global_step >= self.steps

    def _check_least(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        """Lightning would go on until then, beyond the end of every schedule."""
        epochs = (trainer.min_epochs or 0) * pl_module.steps_per_epoch()
        for name, least in (("min_epochs", epochs), ("min_steps", trainer.min_steps or 0)):
            if least > self.steps:
                raise InputError(
                    f"trainer.max_steps is {self.steps}, but trainer.{name} asks for {least} steps; allowed: up to "
                    f"max_steps. Leave out trainer.{name}, or raise trainer.max_steps."
                )
