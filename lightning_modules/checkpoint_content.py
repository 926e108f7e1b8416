"""What a checkpoint holds of a module, and whether it belongs to another one."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from common.errors import InputError
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
    return [
        key
        for key in state
        if key.startswith(head)  # starts at random: frozen under its adapter, it is in no other file
        or trains.get(key, not key.startswith("model."))
    ]


def identity(module: "AdaptedModule") -> dict[str, Any]:
    """What the tensors of a checkpoint belong to."""
    adapter = module.adapter
    return {
        "backbone": module.backbone_name,
        "adapter": adapter.name if adapter is not None else "full fine-tuning",
        "layers": list(adapter.layer_names) if adapter is not None else [],
        "fingerprint": adapter.fingerprint if adapter is not None else None,
        "settings": adapter.update_settings() if adapter is not None else {},
        "format": CHECKPOINT_FORMAT,
    }


def check_identity(theirs: dict[str, Any] | None, ours: dict[str, Any]) -> None:
    """Refuses a checkpoint of something else.

    Raises:
        InputError: another backbone, adapter or set of layers, or other frozen factors.
    """
    if theirs is None:
        raise InputError("the checkpoint wasn't written by this project. Pass --ckpt_path last, best or FILE.")
    theirs = {"format": 1, **theirs}
    for name in ("format", "adapter", "backbone", "layers"):
        if theirs.get(name) != ours[name]:
            raise _mismatch(name, theirs.get(name), ours[name])
    if (ours["fingerprint"] is None) != (theirs["fingerprint"] is None) or (
        ours["fingerprint"] is not None and not same_sketch(ours["fingerprint"], theirs["fingerprint"], MADE_AGAIN)
    ):
        raise InputError(
            "the checkpoint was trained on other frozen factors (its fingerprint differs): another backbone "
            "revision, rank_max or rule for the factors. Use the run's own config.yaml, or start a new run."
        )


def check_tensors(module: "AdaptedModule", state: dict[str, Any]) -> None:
    """Refuses a checkpoint whose tensors aren't this module's.

    Raises:
        InputError: one is missing, or has another shape.
    """
    current, expected = module.state_dict(), set(checkpoint_keys(module))
    if missing := sorted(expected - set(state)):
        raise InputError(f"the checkpoint lacks {missing[0]} (and {len(missing) - 1} more). Use another one.")
    for key in expected:
        ours, theirs = current[key], state[key]
        if isinstance(ours, Tensor) and ours.shape != theirs.shape:
            raise _mismatch(f"shape of {key}", tuple(theirs.shape), tuple(ours.shape))


def check_settings(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Refuses a checkpoint whose tensors would be another update here, though they fit.

    Raises:
        InputError: another scale, or other rules by which the ranks follow from the weights.
    """
    noted = theirs.get("settings") or {}  # checkpoints of earlier versions have none
    for name, value in ours["settings"].items():
        if noted.get(name, value) != value:
            raise _mismatch(f"{name} (a setting of model.adapter)", noted[name], value)


def _mismatch(name: str, theirs: object, ours: object) -> InputError:
    return InputError(
        f"the checkpoint's {name} is {_short(theirs)}, this run's is {_short(ours)}; allowed: the same. Use the "
        "settings it was trained with (the config.yaml in its run folder), or start a new run with --run_name."
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
