"""Every optimizer step sees its whole global batch."""

from lightning.pytorch import Callback, Trainer

from callbacks.trained_module import TrainedModule
from common.errors import InputError


class WholeSteps(Callback):
    """Refuses a limit of training batches that ends an epoch within a step that is accumulated.

    Lightning steps at the epoch's last batch, whatever has been accumulated; the losses are divided by the rows of the
    whole global batch, so that the step would be too small.

    Raises:
        InputError: trainer.limit_train_batches leaves a number of batches that accumulate_grad_batches doesn't divide.
    """

    def on_train_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        batches, accumulated = int(trainer.num_training_batches), trainer.accumulate_grad_batches
        if batches % accumulated == 0 or getattr(trainer, "fast_dev_run", False):
            return
        raise InputError(
            f"trainer.limit_train_batches (or overfit_batches) leaves {batches} batches, and "
            f"trainer.accumulate_grad_batches is {accumulated}: the epoch's last step would lack a part of its batch. "
            f"Allowed: a multiple of {accumulated}."
        )
