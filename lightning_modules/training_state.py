"""What a run needs of a checkpoint, beside the model, to go on from it: checked before training begins."""

from typing import TYPE_CHECKING, Any

from common.errors import InputError
from common.terminal import logger

if TYPE_CHECKING:
    from lightning_modules.adapted_module import AdaptedModule

# Settings that decide which rows and figures the epochs are compared by, or, within an epoch, which rows are still due.
_OF_EVALUATION = ("metric", "limit_val_batches", "stride")
_OF_THE_ORDER = ("batching", "seed", "subset_seed", "max_length", "block_size", "packing")
_OF_THE_EPOCH = ("limit_train_batches", "overfit_batches")


def training_identity(module: "AdaptedModule") -> dict[str, Any]:
    """What a resumed run has in common with the one before: `splits`, their checksums, and `training`, settings."""
    data, trainer = module.data, module.trainer
    settings = {name: getattr(data, name) for name in (*_OF_THE_ORDER, "stride") if hasattr(data, name)}
    settings |= {name: getattr(trainer, name) for name in (*_OF_THE_EPOCH, "limit_val_batches")}
    return {"splits": data.checksums, "training": {**settings, "metric": module.metric_name}}


def check_training_state(module: "AdaptedModule", checkpoint: dict[str, Any]) -> None:
    """Refuses a checkpoint whose tensors fit, but that this run can't go on from as if it had never stopped.

    `InputError`: other rows or labels to validate on; another data order in the middle of an epoch; or another kind of
    data module, which leaves no position in the data.
    """
    ours, theirs = training_identity(module), checkpoint["rankwise"]
    _check_rows(ours["splits"], theirs["splits"])
    if not (position := checkpoint.get(kind := type(module.data).__qualname__)):
        raise InputError(
            f"the checkpoint has no place in the data of a {kind}: it was trained with another data module; allowed: "
            "the same. Use it, or start a new run with --run_name."
        )
    in_the_middle = 0 < position["next_batch"] < position["batches"]
    fixed = (*_OF_EVALUATION, *(_OF_THE_ORDER + _OF_THE_EPOCH if in_the_middle else ()))
    for name, value in ours["training"].items():
        before = theirs["training"].get(name)
        if name in fixed and before != value:
            raise InputError(
                f"{name} was {before!r} when the checkpoint was written, and is {value!r} here; allowed: the same, "
                + ("because its epochs are compared" if name in _OF_EVALUATION else "in the middle of an epoch")
                + ". Set it back, or start a new run with --run_name."
            )


def _check_rows(ours: dict[str, int], theirs: dict[str, int]) -> None:
    """The training split is left to its loader, which knows what the position in it means."""
    for split in sorted({*ours, *theirs} - {"train"}):
        if ours.get(split) == theirs.get(split):
            continue
        if split.startswith("validation"):
            raise InputError(
                f"the {split} split has other rows, labels or tokens than when the checkpoint was written, so two sets "
                "would be compared to choose best.ckpt; allowed: the same. Use the same data and settings, or start a "
                "new run with another --run_name."
            )
        logger.warning(
            f"The {split} split isn't what it was when the checkpoint was written. The test takes it as it is now."
        )
