"""Lightning's own callbacks that would break a run's meaning."""

from collections.abc import Iterable

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)

from callbacks.trained_module import TrainedModule
from common.errors import InputError

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


def check_monitors(callbacks: Iterable[Callback], module: TrainedModule) -> None:
    """Refuses a figure to be watched that no validation gives, before an epoch is trained for it.

    The callbacks are all of the trainer; the module's data are set up.

    Raises:
        InputError: Lightning's EarlyStopping or ModelCheckpoint would find no such figure.
    """
    if any(not type(callback).__module__.startswith(("lightning.", "callbacks.")) for callback in callbacks):
        return  # a user's own callback may log what another watches
    known = [f"{split}/{name}" for split in module.data.validation_names for name in module.figure_names]
    for callback in callbacks:
        asked = getattr(callback, "monitor", None) if type(callback) in (EarlyStopping, ModelCheckpoint) else None
        figure = asked and asked.partition("/rank_")[0]  # of nested training
        if figure and figure not in known and getattr(callback, "strict", True):
            raise InputError(
                f"{type(callback).__name__}'s monitor is {asked!r}, but there is no such figure; allowed: "
                f"{', '.join(known)}. Correct it in trainer.callbacks."
            )
