"""What a person sees while a run goes on: a bar on a terminal, sparse lines anywhere else."""

import time
from datetime import timedelta

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from torch import Tensor

from callbacks.rank_discretisation import describe_ranks
from callbacks.trained_module import Batch, StepCallback, TrainedModule

_EVERY_N_SECONDS = 30.0  # between two lines within an epoch


class TerminalProgress(RichProgressBar):
    """Lightning's Rich bar with the loss of a step, seldom enough not to hold up training; epochs count from 1."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=20)
        self._loss: dict[str, str] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        if self.progress is not None and self.train_progress_bar_id is not None:
            of = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
            self.progress.update(self.train_progress_bar_id, description=f"Epoch {trainer.current_epoch + 1}{of}")

    def get_metrics(self, trainer: Trainer, pl_module: TrainedModule) -> dict[str, str]:
        if trainer.training and trainer.global_step % self.refresh_rate == 0:  # reading it makes the host wait
            self._loss = {"train/loss": f"{float(pl_module.record.step_loss):.3f}"}
        return self._loss  # more would take several lines

    def teardown(self, trainer: Trainer, pl_module: TrainedModule, stage: str) -> None:
        if self.progress is not None:
            for task in self.progress.task_ids:  # a full bar says no more than the lines of the epochs
                self.progress.update(task, visible=False)
        super().teardown(trainer, pl_module, stage)


class TrainingLog(Callback):
    """train/loss at the logging interval and train/epoch_loss per epoch, straight to the loggers.

    Both are means over all processes, train/loss over the whole global batch of its step. Values are read from the
    device at the interval only, never every step. The record gets the mean of each epoch and the last step's loss.

    Args:
        every_n_steps: the logging interval in optimizer steps.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._sum: Tensor | None = None  # over the micro-batches of the step under way

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: TrainedModule, outputs: dict[str, Tensor], batch: Batch, batch_idx: int
    ) -> None:
        loss = outputs["loss"].detach()  # its share: Lightning has divided by the accumulation
        loss = loss if self._sum is None else self._sum + loss
        self._sum = None if pl_module.ends_step(batch_idx) else loss
        if self._sum is not None:
            return
        pl_module.record.step_loss = loss
        if trainer.global_step % self.every_n_steps == 0:
            mean = float(trainer.strategy.reduce(loss.clone(), reduce_op="mean"))
            pl_module.log_now({"train/loss": mean, "epoch": trainer.current_epoch})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        mean = pl_module.mean_epoch_loss()
        pl_module.record.train_losses.append(mean)
        pl_module.log_now({"train/epoch_loss": mean, "epoch": trainer.current_epoch})


class EpochLines(StepCallback):
    """One line per epoch, and where no bar moves one every half minute; it comes after TrainingLog."""

    def __init__(self) -> None:
        self._printed = self._started = time.monotonic()
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        self._printed = self._started = time.monotonic()
        self._first_step = trainer.global_step

    def on_step_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        early = time.monotonic() - self._printed < _EVERY_N_SECONDS
        if early or trainer.progress_bar_callback is not None or not trainer.is_global_zero:
            return
        self._printed = time.monotonic()
        loss = float(pl_module.record.step_loss)
        print(
            f"epoch {trainer.current_epoch + 1}  {self._position(trainer, pl_module)}  train loss {loss:.4f}",
            flush=True,
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        if not trainer.is_global_zero:
            return
        self._printed = time.monotonic()
        parts = [
            f"epoch {trainer.current_epoch + 1}",
            self._position(trainer, pl_module),
            f"train loss {pl_module.record.train_losses[-1]:.4f}",
        ]
        figures = pl_module.validation_figures()
        for name in ("loss", pl_module.metric_name):
            value = figures.get(f"val/{name}")
            if value is not None:
                parts.append(f"val {name.replace('_', ' ')} {value:.4f}")
        allocation = pl_module.rank_allocation
        if allocation is not None:
            parts.append(f"alpha {allocation.alpha:.2f}  ranks {describe_ranks(pl_module)}")
        print("  ".join(parts), flush=True)

    def _position(self, trainer: Trainer, pl_module: TrainedModule) -> str:
        steps = pl_module.training_steps()
        done = trainer.global_step - self._first_step
        left = (time.monotonic() - self._started) / max(done, 1) * (steps - trainer.global_step)
        return f"step {trainer.global_step}/{steps}  {timedelta(seconds=round(left))} left"
