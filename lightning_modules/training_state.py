"""What a run needs of a checkpoint, beside the model, to go on from it: checked before training begins."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from common.errors import InputError, shown
from common.terminal import logger
from lightning_modules.optimization import make_optimizer

if TYPE_CHECKING:
    from lightning_modules.adapted_module import AdaptedModule

# Settings that decide which rows and figures the epochs are compared by, or, within an epoch, which rows are still due.
_OF_EVALUATION = ("metric", "limit_val_batches", "stride")
_OF_THE_ORDER = ("batching", "seed", "subset_seed", "max_length", "block_size", "packing")
_OF_THE_EPOCH = ("limit_train_batches", "overfit_batches")
_POSITION = ("epoch", "next_batch", "batches", "rows", "batch_size", "accumulate")
_MOMENTS = ("exp_avg", "exp_avg_sq")


def training_identity(module: "AdaptedModule") -> dict[str, Any]:
    """What a resumed run has in common with the one before: `splits`, their checksums, and `training`, settings."""
    data, trainer = module.data, module.trainer
    settings = {name: getattr(data, name) for name in (*_OF_THE_ORDER, "stride") if hasattr(data, name)}
    settings |= {name: getattr(trainer, name) for name in (*_OF_THE_EPOCH, "limit_val_batches")}
    return {"splits": data.checksums, "training": {**settings, "metric": module.metric_name}}


def check_training_state(module: "AdaptedModule", checkpoint: dict[str, Any]) -> None:
    """Refuses a checkpoint whose tensors fit, but that this run can't go on from as if it had never stopped.

    Raises:
        InputError: other rows or labels to validate on; another data order in the middle of an epoch; an optimizer's
            state or a position in the data that is missing or has another form.
    """
    ours, theirs = training_identity(module), checkpoint["rankwise"]
    _check_rows(ours["splits"], theirs.get("splits", ours["splits"]))
    try:
        in_the_middle = _is_in_the_middle(checkpoint[type(module.data).__qualname__])
        _check_optimizer(module, checkpoint)
        _check_progress(checkpoint)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(
            f"the checkpoint lacks a part of what training needs, or a part has another form ({error!r:.100}): it "
            "isn't whole. Use another one (--ckpt_path FILE), or start again with --overwrite."
        ) from error
    fixed = (*_OF_EVALUATION, *(_OF_THE_ORDER + _OF_THE_EPOCH if in_the_middle else ()))
    for name, value in ours["training"].items():
        before = theirs.get("training", {}).get(name, value)
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


def _is_in_the_middle(position: dict[str, int]) -> bool:
    """Whether a position in the data order is within an epoch."""
    if odd := [name for name in _POSITION if type(position[name]) is not int]:
        raise TypeError(f"{odd[0]} in the data order is {position[odd[0]]!r}")
    return 0 < position["next_batch"] < position["batches"]


def _check_optimizer(module: "AdaptedModule", checkpoint: dict[str, Any]) -> None:
    """Its groups, their settings and the moments of their parameters: another shape would crash the process."""
    groups = module.parameter_groups()
    expected = make_optimizer(groups, module.optimizer_settings).state_dict()["param_groups"]
    (theirs,), (schedule,) = checkpoint["optimizer_states"], checkpoint["lr_schedulers"]
    if [group["params"] for group in theirs["param_groups"]] != [group["params"] for group in expected]:
        raise ValueError("other groups of parameters in the optimizer")
    for group, own in zip(theirs["param_groups"], expected, strict=True):
        if lacking := sorted(name for name in own if name not in group):
            raise KeyError(f"{lacking[0]} in the optimizer's groups")
    if type(schedule["last_epoch"]) is not int or len(schedule["base_lrs"]) != len(expected):
        raise TypeError("the schedule's step and rates")
    parameters = [parameter for group in groups.values() for parameter in group]
    if checkpoint["global_step"] > 0 and not theirs["state"]:
        raise ValueError("the optimizer has no state")
    for place, moments in theirs["state"].items():
        if not isinstance(moments["step"], Tensor) or moments["step"].numel() != 1:
            raise TypeError(f"step of parameter {place} in the optimizer")
        if odd := [name for name in _MOMENTS if not _is_like(moments[name], parameters[place])]:
            raise TypeError(f"{odd[0]} in the optimizer, of a parameter with shape {tuple(parameters[place].shape)}")


def _check_progress(checkpoint: dict[str, Any]) -> None:
    """Counts, loops and callbacks: Lightning would begin them anew without a word, or fail later."""
    for name, kind in (("global_step", int), ("epoch", int), ("loops", dict), ("callbacks", dict)):
        if type(checkpoint[name]) is not kind or checkpoint[name] == {}:
            raise TypeError(f"{name} is {shown(checkpoint[name])}")
    if "fit_loop" not in checkpoint["loops"]:
        raise KeyError("fit_loop")


def _is_like(tensor: Any, parameter: Tensor) -> bool:
    return isinstance(tensor, Tensor) and tensor.shape == parameter.shape and tensor.is_floating_point()
