"""Logs the training loss, at an interval and per epoch."""

from typing import Any

from lightning.pytorch import Callback, Trainer

from lightning_modules.adapted_module import AdaptedModule


class TrainingLog(Callback):
    """train/loss at the logging interval and train/epoch_loss per epoch, straight to the loggers.

    Both are means over all processes, train/loss over the whole global batch of its step. Values are read from the
    device at the interval only, never every step.

    Args:
        every_n_steps: the logging interval in optimizer steps.

    Attributes:
        train_losses: mean loss of each epoch.
        step_loss: this process's share of the last step's loss, a tensor on the device.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self.train_losses: list[float] = []
        self.step_loss: Any = 0.0
        self._sum: Any = 0.0  # over the micro-batches of the step under way

    def state_dict(self) -> dict[str, Any]:
        return {"train_losses": self.train_losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.train_losses = list(state_dict["train_losses"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: AdaptedModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._sum = self._sum + outputs["loss"].detach()  # its share: Lightning has divided by the accumulation
        if trainer.fit_loop._should_accumulate():
            return
        self.step_loss, self._sum = self._sum, 0.0
        if trainer.global_step % self.every_n_steps == 0:
            self._log(trainer, {"train/loss": float(trainer.strategy.reduce(self.step_loss.clone(), reduce_op="mean"))})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: AdaptedModule) -> None:
        mean = pl_module.mean_epoch_loss()
        self.train_losses.append(mean)
        self._log(trainer, {"train/epoch_loss": mean})

    def _log(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics({**metrics, "epoch": trainer.current_epoch}, step=trainer.global_step - 1)
