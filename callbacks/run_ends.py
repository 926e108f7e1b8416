"""Where steps, epochs and runs end."""

from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from callbacks.trained_module import TrainedModule
from common.errors import InputError
from common.terminal import logger


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


class StaysStopped(Callback):
    """A run that EarlyStopping has stopped isn't trained on when it is resumed, unless with more patience.

    The module brings this callback along where the trainer has an EarlyStopping.
    """

    def setup(self, trainer: Trainer, pl_module: TrainedModule, stage: str) -> None:
        self._patience = [callback.patience for callback in _early_stopping(trainer)]

    def on_train_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        for callback, patience in zip(_early_stopping(trainer), self._patience, strict=True):
            callback.patience = patience  # a checkpoint has brought its own along
            waits = (EarlyStoppingReason.NOT_STOPPED, EarlyStoppingReason.PATIENCE_EXHAUSTED)
            if callback.wait_count >= max(patience, 1) or callback.stopping_reason not in waits:
                logger.info(
                    f"EarlyStopping stopped this run after epoch {callback.stopped_epoch + 1}, so there is nothing "
                    "left to train. To go on, raise its patience or leave it out of trainer.callbacks."
                )
                trainer.should_stop = True


def _early_stopping(trainer: Trainer) -> list[EarlyStopping]:
    return [callback for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]
