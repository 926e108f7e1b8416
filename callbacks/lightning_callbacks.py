"""Lightning's own callbacks that would break a run's meaning."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    OnExceptionCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)

from callbacks.checkpoints import OWN_NAMES, BestCheckpoint
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


def refuse_unsuitable(callbacks: Sequence[Callback]) -> None:
    """Raises InputError if there is a callback with which a run would not mean what its settings say."""
    for callback in callbacks:
        for kind, reason in _REFUSED.items():
            if isinstance(callback, kind):
                raise InputError(
                    f"trainer.callbacks holds a {type(callback).__name__}, which does not work here: {reason}"
                )
    _refuse_other_writers(callbacks)


def _refuse_other_writers(callbacks: Sequence[Callback]) -> None:
    """Raises InputError if a callback would write its checkpoint over one of the run's own."""
    own = next((Path(str(callback.dirpath)) for callback in callbacks if isinstance(callback, BestCheckpoint)), None)
    for callback in callbacks:
        if own is None or isinstance(callback, BestCheckpoint):
            continue
        if not isinstance(callback, ModelCheckpoint | OnExceptionCheckpoint):
            continue
        kept_last = [ModelCheckpoint.CHECKPOINT_NAME_LAST] if getattr(callback, "save_last", None) else []
        taken = [name for name in (callback.filename, *kept_last) if name in OWN_NAMES]
        if taken and Path(callback.dirpath or own).resolve() == own.resolve():
            raise InputError(
                f"trainer.callbacks holds a {type(callback).__name__} that writes {taken[0]}.ckpt in {own}, where the "
                "run keeps its own file of this name; allowed: any other filename or dirpath. The run writes best.ckpt "
                "and last.ckpt by itself (leave save_last out)."
            )


def check_monitors(callbacks: Iterable[Callback], module: TrainedModule) -> None:
    """Refuses a figure to be watched that no validation gives, before an epoch is trained for it.

    The callbacks are all of the trainer; the module's data are set up. `InputError`: Lightning's EarlyStopping or
    ModelCheckpoint would find no such figure.
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
