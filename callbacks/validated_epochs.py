"""Epochs end with a validation, so that figures belong to the weights that are kept."""

from lightning.pytorch import Callback, Trainer

from callbacks.trained_module import TrainedModule
from common.errors import InputError


class ValidatedEpochs(Callback):
    """Refuses intervals that validate within epochs but not at their end, where best.ckpt and results.json are made.

    Raises:
        InputError: trainer.val_check_interval does not divide the epoch, or trainer.check_val_every_n_epoch is null.
    """

    def on_train_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        batches, interval = int(trainer.num_training_batches), trainer.val_check_batch
        if not trainer.enable_validation or (trainer.check_val_every_n_epoch and interval and batches % interval == 0):
            return
        asked = getattr(trainer, "val_check_interval", "a time")
        raise InputError(
            f"trainer.val_check_interval is {asked} and trainer.check_val_every_n_epoch is "
            f"{trainer.check_val_every_n_epoch}: an epoch of {batches} batches may end without a validation, and "
            "best.ckpt would hold other weights than those validated; allowed: 1 or more for check_val_every_n_epoch, "
            f"and for val_check_interval 1.0 or a number of batches that divides {batches}."
        )
