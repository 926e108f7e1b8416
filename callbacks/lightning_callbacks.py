"""Lightning's own callbacks in a run: those that would break its meaning, and early stopping across a resumption."""

from collections.abc import Iterable

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from callbacks.trained_module import TrainedModule
from common.errors import InputError
from common.terminal import say

_AVERAGES = (
    "ranks, checkpoints and exports belong to the weights that are trained, and no average of them was ever validated. "
    "A --model.optimizer.schedule that ends at 0 calms the last epochs as well."
)
_REFUSED: dict[type[Callback], str] = {
    GradientAccumulationScheduler: "losses are divided for the same number of micro-batches in every step. Set "
    "--trainer.accumulate_grad_batches.",
    BatchSizeFinder: "the global batch is a setting of the experiment, not of the machine. Set --data.batch_size, and "
    "--trainer.accumulate_grad_batches where memory is short.",
    LearningRateFinder: "head, adapter and allocation have a rate each. Compare rates with `python cli.py sweep`.",
    StochasticWeightAveraging: _AVERAGES,
    WeightAveraging: _AVERAGES,
    ModelPruning: "no checkpoint or export knows of its masks. An adaptive adapter such as lora.AdaptiveLoRAXS prunes "
    "ranks.",
    BaseFinetuning: "which weights train is the adapter's to say, and what it freezes is in no checkpoint. Set "
    "--model.adapter, null to train everything.",
}


def refuse_unsuitable(callbacks: Iterable[Callback]) -> None:
    """Raises InputError if there is a callback with which a run would not mean what its settings say."""
    for callback in callbacks:
        for kind, reason in _REFUSED.items():
            if isinstance(callback, kind):
                raise InputError(
                    f"trainer.callbacks holds a {type(callback).__name__}, which does not work here: {reason}"
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
                say(
                    f"EarlyStopping stopped this run after epoch {callback.stopped_epoch}, so there is nothing left to "
                    "train. To go on, raise its patience or leave it out of trainer.callbacks."
                )
                trainer.should_stop = True


def _early_stopping(trainer: Trainer) -> list[EarlyStopping]:
    return [callback for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]
