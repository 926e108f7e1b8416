"""What a checkpoint holds of a module, and whether it belongs to another one."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from common.errors import InputError, shown
from lightning_modules.backbone_sketch import check_data
from lora.sketch import MADE_AGAIN, same_sketch

if TYPE_CHECKING:
    from lightning_modules.adapted_module import AdaptedModule

CHECKPOINT_FORMAT = 1  # to be raised when a checkpoint's content changes so that older code can't go on from it


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
    for name, value in theirs["configuration"].items():
        found = ours["configuration"].get(name, value)  # other versions may have other names, and values for null
        if value is not None and found != value:
            raise _mismatch(f"{name} (in the backbone's config.json)", value, found)


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
    if missing := sorted(expected - set(state)):
        raise InputError(f"the checkpoint lacks {missing[0]} (and {len(missing) - 1} more). Use another one.")
    for key in expected:
        ours, theirs = current[key], state[key]
        if type(theirs) is not type(ours) and not (isinstance(ours, Tensor) and isinstance(theirs, Tensor)):
            raise _mismatch(f"type of {key}", type(theirs).__name__, type(ours).__name__)
        if isinstance(ours, Tensor) and ours.shape != theirs.shape:
            raise _mismatch(f"shape of {key}", tuple(theirs.shape), tuple(ours.shape))


def _mismatch(name: str, theirs: object, ours: object) -> InputError:
    return InputError(
        f"the checkpoint's {name} is {shown(theirs)}, this run's is {shown(ours)}; allowed: the same. Use the "
        "settings it was trained with (the config.yaml in its run folder), or start a new run with --run_name."
    )
