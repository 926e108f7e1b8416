"""What a checkpoint holds of a module, whether it belongs to another one, and whether a run can go on from it."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from common.errors import InputError, shown
from common.terminal import logger
from lightning_modules.backbone_sketch import check_configuration, check_data
from lora.sketch import MADE_AGAIN, same_sketch

if TYPE_CHECKING:
    from lightning_modules.adapted_module import AdaptedModule

CHECKPOINT_FORMAT = 1  # to be raised when a checkpoint's content changes so that older code can't go on from it
# Settings that decide which rows and figures the epochs are compared by, or, within an epoch, which rows are still due.
_OF_EVALUATION = ("metric", "limit_val_batches", "stride")
_OF_THE_ORDER = ("batching", "seed", "subset_seed", "max_length", "block_size", "packing")
_OF_THE_EPOCH = ("limit_train_batches", "overfit_batches")


def checkpoint_keys(module: "AdaptedModule") -> list[str]:
    """Names of the tensors that a checkpoint holds: all but the frozen ones that come from the backbone's files."""
    state = module.state_dict()
    if module.adapter is None:
        return list(state)
    trains = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    head = tuple(f"model.{path}." for path in module.head_modules)
    kept = {f"model.{name}.{letter}" for name in module.adapter.layer_names for letter in "AB"}  # no rule makes them
    return [
        key
        for key in state
        if key in kept
        or key.startswith(head)  # starts at random: frozen under its adapter, it is in no other file
        or trains.get(key, not key.startswith("model."))
    ]


def identity(module: "AdaptedModule") -> dict[str, Any]:
    """What the tensors of a checkpoint belong to.

    Its `weights` are the sketch of the frozen backbone, its `configuration` what the backbone's says about how it
    computes, `classes` and `tokenizer` what `data_identity` says.
    """
    adapter = module.adapter
    return {
        "backbone": module.backbone_name,
        "adapter": adapter.name if adapter is not None else "full fine-tuning",
        "layers": list(adapter.layer_names) if adapter is not None else [],
        "fingerprint": adapter.fingerprint if adapter is not None else None,
        "settings": adapter.update_settings() if adapter is not None else {},
        "format": CHECKPOINT_FORMAT,
        **module.backbone_about,
        **module.data_about,
    }


def check_content(module: "AdaptedModule", checkpoint: dict[str, Any]) -> None:
    """Refuses a checkpoint that isn't this module's.

    `InputError`: another program's, backbone, tokenizer, adapter or set of layers; other classes, frozen weights or
    factors; a tensor that is missing or has another shape; another scale, or other rules by which the ranks follow from
    the weights.
    """
    theirs, ours = checkpoint.get("rankwise"), identity(module)
    if not isinstance(theirs, dict):
        raise InputError("the checkpoint wasn't written by this project. Pass --ckpt_path last, best or FILE.")
    for name in ("format", "adapter", "layers"):
        if theirs.get(name) != ours[name]:
            raise _mismatch(name, theirs.get(name), ours[name])
    _check_backbone(ours, theirs)
    check_data(ours, theirs, "the checkpoint", bool(module.head_modules))
    _check_tensors(module, checkpoint["state_dict"])
    for name, value in ours["settings"].items():  # the tensors fit, but would be another update
        if (before := theirs["settings"].get(name)) != value:
            raise _mismatch(f"{name} (a setting of model.adapter)", before, value)


def _check_backbone(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """A backbone may have moved: its name doesn't count."""
    _check_sketch("factors", ours["fingerprint"], theirs["fingerprint"], MADE_AGAIN)
    _check_sketch("weights", ours["weights"], theirs["weights"])
    check_configuration(ours, theirs, "the checkpoint")


def _check_sketch(what: str, ours: Tensor | None, theirs: Tensor | None, *tolerance: float) -> None:
    if ours is None and theirs is None:
        return
    if not (isinstance(ours, Tensor) and isinstance(theirs, Tensor) and same_sketch(ours, theirs, *tolerance)):
        raise InputError(
            f"the checkpoint was trained on other frozen {what} (their fingerprint differs): another backbone or "
            "revision, quantization or backbone_dtype, rank_max or rule for the factors. Use the run's own config.yaml "
            "and the very same backbone, or start a new run with --run_name."
        )


def _check_tensors(module: "AdaptedModule", state: Any) -> None:
    current, expected = module.state_dict(), set(checkpoint_keys(module))
    parameters = dict(module.named_parameters())  # a buffer may be a mask of infinities
    if missing := sorted(expected - set(state)):
        raise InputError(f"the checkpoint lacks {missing[0]} (and {len(missing) - 1} more). Use another one.")
    for key in expected:
        ours, theirs = current[key], state[key]
        if type(theirs) is not type(ours) and not (isinstance(ours, Tensor) and isinstance(theirs, Tensor)):
            raise _mismatch(f"type of {key}", type(theirs).__name__, type(ours).__name__)
        if isinstance(ours, Tensor) and ours.shape != theirs.shape:
            raise _mismatch(f"shape of {key}", tuple(theirs.shape), tuple(ours.shape))
        if key in parameters and not theirs.isfinite().all():
            raise InputError(f"the checkpoint's {key} isn't finite, as no run writes it. Use another checkpoint.")


def _mismatch(name: str, theirs: object, ours: object) -> InputError:
    return InputError(
        f"the checkpoint's {name} is {shown(theirs)}, this run's is {shown(ours)}; allowed: the same. Use the "
        "settings it was trained with (the config.yaml in its run folder), or start a new run with --run_name."
    )


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
