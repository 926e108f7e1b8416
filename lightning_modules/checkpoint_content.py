"""What a checkpoint holds of a module, and whether it belongs to another one."""

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor, nn

from common.errors import InputError
from lora.adapter import Adapter
from lora.sketch import MADE_AGAIN, same_sketch

CHECKPOINT_FORMAT = 1  # to be raised when a checkpoint's content changes so that older code can't go on from it


class CheckpointedModule(Protocol):
    """What has to be known of a module: AdaptedModule, which this file can't import, because it is imported there."""

    adapter: Adapter | None
    backbone_name: str
    head_modules: tuple[str, ...]

    def state_dict(self) -> dict[str, Any]: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...


def checkpoint_keys(module: CheckpointedModule) -> list[str]:
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


def identity(module: CheckpointedModule) -> dict[str, Any]:
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


def check_content(module: CheckpointedModule, checkpoint: dict[str, Any]) -> None:
    """Refuses a checkpoint that isn't this module's.

    Raises:
        InputError: another program's, backbone, adapter or set of layers; other frozen factors; a tensor that is
            missing or has another shape; another scale, or other rules by which the ranks follow from the weights.
    """
    theirs, ours = checkpoint.get("rankwise"), identity(module)
    if theirs is None:
        raise InputError("the checkpoint wasn't written by this project. Pass --ckpt_path last, best or FILE.")
    theirs = {"format": 1, "fingerprint": None, "settings": {}, **theirs}  # earlier versions noted less
    for name in ("format", "adapter", "backbone", "layers"):
        if theirs.get(name) != ours[name]:
            raise _mismatch(name, theirs.get(name), ours[name])
    _check_fingerprint(ours["fingerprint"], theirs["fingerprint"])
    _check_tensors(module, checkpoint["state_dict"])
    for name, value in ours["settings"].items():  # the tensors fit, but would be another update
        if theirs["settings"].get(name, value) != value:
            raise _mismatch(f"{name} (a setting of model.adapter)", theirs["settings"][name], value)


def _check_fingerprint(ours: Tensor | None, theirs: Tensor | None) -> None:
    if ours is None and theirs is None:
        return
    if ours is None or theirs is None or not same_sketch(ours, theirs, MADE_AGAIN):
        raise InputError(
            "the checkpoint was trained on other frozen factors (its fingerprint differs): another backbone "
            "revision, rank_max or rule for the factors. Use the run's own config.yaml, or start a new run."
        )


def _check_tensors(module: CheckpointedModule, state: dict[str, Any]) -> None:
    current, expected = module.state_dict(), set(checkpoint_keys(module))
    if missing := sorted(expected - set(state)):
        raise InputError(f"the checkpoint lacks {missing[0]} (and {len(missing) - 1} more). Use another one.")
    for key in expected:
        ours, theirs = current[key], state[key]
        if isinstance(ours, Tensor) and ours.shape != theirs.shape:
            raise _mismatch(f"shape of {key}", tuple(theirs.shape), tuple(ours.shape))


def _mismatch(name: str, theirs: object, ours: object) -> InputError:
    return InputError(
        f"the checkpoint's {name} is {_short(theirs)}, this run's is {_short(ours)}; allowed: the same. Use the "
        "settings it was trained with (the config.yaml in its run folder), or start a new run with --run_name."
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
