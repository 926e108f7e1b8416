"""Logs the training loss, at an interval and per epoch."""

from typing import Any

from lightning.pytorch import Callback, Trainer

from callbacks.trained_module import TrainedModule


class TrainingLog(Callback):
    """train/loss at the logging interval and train/epoch_loss per epoch, straight to the loggers.

    Both are means over all processes, train/loss over the whole global batch of its step. Values are read from the
    device at the interval only, never every step. The record gets the mean of each epoch and the last step's loss.

    Args:
        every_n_steps: the logging interval in optimizer steps.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._sum: Any = 0.0  # over the micro-batches of the step under way

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: TrainedModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._sum = self._sum + outputs["loss"].detach()  # its share: Lightning has divided by the accumulation
        if not pl_module.ends_step(batch_idx):
            return
        loss, self._sum = self._sum, 0.0
        pl_module.record.step_loss = loss
        if trainer.global_step % self.every_n_steps == 0:
            mean = float(trainer.strategy.reduce(loss.clone(), reduce_op="mean"))
            pl_module.log_now({"train/loss": mean, "epoch": trainer.current_epoch})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        mean = pl_module.mean_epoch_loss()
        pl_module.record.train_losses.append(mean)
        pl_module.log_now({"train/epoch_loss": mean, "epoch": trainer.current_epoch})
