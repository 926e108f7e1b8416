"""The run measured in optimizer steps: schedules are pure functions of the step, so resuming needs no state."""

import math

from lightning.pytorch import Trainer

from lightning_modules.adapted_module import AdaptedModule


def steps_per_epoch(trainer: Trainer) -> int:
    """Optimizer steps in one epoch."""
    return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)


def epochs_done(trainer: Trainer, step: int) -> float:
    """Epochs done at a step, with fraction."""
    return step / steps_per_epoch(trainer)


def last_epochs_start(trainer: Trainer, pl_module: AdaptedModule, epochs: int) -> int:
    """The step at which the last so many epochs begin."""
    return pl_module.training_steps() - epochs * steps_per_epoch(trainer)
