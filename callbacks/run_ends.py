"""Where steps, epochs and runs end."""

import os
import shlex
from contextlib import suppress
from math import ceil, inf
from pathlib import Path

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from callbacks.trained_module import StepCallback, TrainedModule
from common.errors import InputError, PausedRunError
from common.terminal import logger


class EpochCheck(Callback):
    """Refuses settings that don't fit the length of an epoch; a sweep asks before its first trial."""

    def check(self, trainer: Trainer, pl_module: TrainedModule, batches: int) -> None:
        """Raises `InputError` if an epoch of so many batches isn't what the trainer's or the module's settings need."""
        raise NotImplementedError

    def on_train_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        self.check(trainer, pl_module, int(trainer.num_training_batches))


def check_epoch(trainer: Trainer, module: TrainedModule, batches: int) -> None:
    """Lets each `EpochCheck` of a trainer and of its module look at the epochs, before anything is trained.

    The loader has so many batches; the trainer may limit them. `InputError`: see `EpochCheck`; or the trainer has a
    callback that doesn't work here.
    """
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    for callback in (*trainer.callbacks, *module.configure_callbacks()):  # type: ignore[attr-defined, misc]
        if isinstance(callback, EpochCheck):
            callback.check(trainer, module, batches)


def planned_steps(trainer: Trainer, module: TrainedModule, batches: int) -> float:
    """Optimizer steps of a run whose epochs have so many batches; infinite where nothing ends it."""
    epochs = inf if trainer.max_epochs in (None, -1) else trainer.max_epochs
    return min(epochs * ceil(batches / trainer.accumulate_grad_batches), module.step_limit)


class WholeSteps(EpochCheck):
    """Refuses a limit of training batches that ends an epoch within a step that is accumulated.

    Lightning steps at the epoch's last batch, whatever has been accumulated; the losses are divided by the rows of the
    whole global batch, so that the step would be too small. `InputError`: trainer.limit_train_batches leaves a number
    of batches that accumulate_grad_batches doesn't divide.
    """

    def check(self, trainer: Trainer, pl_module: TrainedModule, batches: int) -> None:
        accumulated = trainer.accumulate_grad_batches
        if batches % accumulated == 0 or getattr(trainer, "fast_dev_run", False):
            return
        raise InputError(
            f"trainer.limit_train_batches (or overfit_batches) leaves {batches} batches, and "
            f"trainer.accumulate_grad_batches is {accumulated}: the epoch's last step would lack a part of its batch. "
            f"Allowed: a multiple of {accumulated}."
        )


class ValidatedEpochs(EpochCheck):
    """Refuses intervals that validate within epochs but not at their end, where best.ckpt and results.json are made.

    `InputError`: trainer.val_check_interval does not divide the epoch, or trainer.check_val_every_n_epoch is null.
    """

    def check(self, trainer: Trainer, pl_module: TrainedModule, batches: int) -> None:
        asked = getattr(trainer, "val_check_interval", None)  # None: a time
        interval = max(1, int(batches * asked)) if isinstance(asked, float) else asked
        divides = trainer.check_val_every_n_epoch and interval and batches % interval == 0
        if trainer.limit_val_batches == 0 or divides:
            return
        raise InputError(
            f"trainer.val_check_interval is {asked or 'a time'} and trainer.check_val_every_n_epoch is "
            f"{trainer.check_val_every_n_epoch}: an epoch of {batches} batches may end without a validation, and "
            "best.ckpt would hold other weights than those validated; allowed: 1 or more for check_val_every_n_epoch, "
            f"and for val_check_interval 1.0 or a number of batches that divides {batches}."
        )


class FolderWatch(Callback):
    """Ends a run whose folder was moved or deleted: what it still wrote would come into another run's, or a new one.

    The first of a trainer's callbacks, so that it looks before anything is written.

    Args:
        folder: the run folder, which is there.

    Raises:
        InputError: it isn't there any more.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.descriptor = os.open(folder, os.O_RDONLY)  # of the folder, wherever it goes; the owner closes it

    def check(self, trainer: Trainer, *_: object, **__: object) -> None:
        """Looks whether the folder is where it was."""
        with suppress(OSError):
            if os.path.samestat(self.folder.stat(), os.fstat(self.descriptor)):
                return
        trainer.loggers = []  # they would write there on the way out
        advice = "Put it back and go on with --ckpt_path last, or start again."
        with suppress(OSError):  # it was deleted, or this isn't Linux
            now = Path(f"/proc/self/fd/{self.descriptor}").readlink()
            if os.path.samestat(now.stat(), os.fstat(self.descriptor)):
                place = f"--runs_dir {shlex.quote(str(now.parent))} --run_name {shlex.quote(now.name)}"
                advice = f"It is {now} now, with its checkpoints: go on with {place} --ckpt_path last."
        raise InputError(
            f"{self.folder} was moved or deleted, or its disk has gone, while this run wrote into it. {advice}"
        )

    on_train_start = on_train_batch_start = on_train_batch_end = on_train_epoch_end = check
    on_validation_epoch_end = on_test_epoch_end = check


class StepLimit(EpochCheck, StepCallback):
    """What trainer.max_steps asks for: stops after so many optimizer steps, validates, and ends the epoch.

    Lightning's own max_steps can't be resumed exactly (2.6: its loops take every restart for one in mid-epoch).
    `InputError`: steps is below 1, or trainer.min_epochs or min_steps ask for more.
    """

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise InputError(f"trainer.max_steps is {steps}; allowed: 1 or more, or -1 for no limit.")
        self.steps = steps

    def setup(self, trainer: Trainer, pl_module: TrainedModule, stage: str) -> None:
        pl_module.step_limit = self.steps

    def check(self, trainer: Trainer, pl_module: TrainedModule, batches: int) -> None:
        """Lightning would go on until the least, beyond the end of every schedule."""
        pl_module.step_limit = self.steps  # a sweep asks before anything is set up
        epochs = (trainer.min_epochs or 0) * ceil(batches / trainer.accumulate_grad_batches)
        for name, least in (("min_epochs", epochs), ("min_steps", trainer.min_steps or 0)):
            if least > self.steps:
                raise InputError(
                    f"trainer.max_steps is {self.steps}, but trainer.{name} asks for {least} steps; allowed: up to "
                    f"max_steps. Leave out trainer.{name}, or raise trainer.max_steps."
                )

    def on_train_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        super().on_train_start(trainer, pl_module)
        trainer.should_stop |= trainer.global_step >= self.steps

    def on_step_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        trainer.should_stop |= trainer.global_step >= self.steps


class EpochPause(Callback):
    """Ends a run between two epochs, when last.ckpt holds the first of them, to be gone on with to the bit.

    `PausedRunError`: so many epochs are trained, those before a resumption included, and the run isn't at its end.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        if trainer.current_epoch >= self.epochs:
            raise PausedRunError(f"paused after {trainer.current_epoch} epochs; go on with --ckpt_path last.")


class StaysStopped(Callback):
    """A run that EarlyStopping has stopped isn't trained on when it is resumed, unless with more patience.

    The module brings this callback along where the trainer has an EarlyStopping.
    """

    def setup(self, trainer: Trainer, pl_module: TrainedModule, stage: str) -> None:
        self._patience = [callback.patience for callback in trainer.early_stopping_callbacks]

    def on_train_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        for callback, patience in zip(trainer.early_stopping_callbacks, self._patience, strict=True):
            callback.patience = patience  # a checkpoint has brought its own along
            waits = (EarlyStoppingReason.NOT_STOPPED, EarlyStoppingReason.PATIENCE_EXHAUSTED)
            if callback.wait_count >= max(patience, 1) or callback.stopping_reason not in waits:
                logger.info(
                    f"EarlyStopping stopped this run after epoch {callback.stopped_epoch + 1}, so there is nothing "
                    "left to train. To go on, raise its patience or leave it out of trainer.callbacks."
                )
                trainer.should_stop = True
