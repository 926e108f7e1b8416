"""How one run is spread over several devices: what works, and why the rest is refused."""

from pkgutil import resolve_name
from typing import Any

from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from common.errors import InputError

_ALLOWED = "auto, ddp (one process per device), fsdp (the frozen backbone in shards), or a DDPStrategy by class_path"
_NAMES = ("auto", "ddp", "fsdp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")
_SHARDS = (
    "it averages the gradients of what it shards alone; R and the allocation weights stand beside the backbone, so "
    "each process would train its own. The name fsdp shards the backbone and averages theirs"
)
_COPIES = "its processes are copies that hand nothing back to the first, so the trained weights would be lost"
_REASONS = {"fsdp": _SHARDS, "deepspeed": _SHARDS, "model_parallel": _SHARDS, "ddp_": _COPIES}


def check_strategy(asked: Any) -> None:
    """Refuses a strategy that would train something else, or fail at the end.

    Args:
        asked: the setting trainer.strategy: a name, or a class_path with init_args.

    Raises:
        InputError: anything but data-parallel processes that run the whole model each.
    """
    if asked in _NAMES:
        return
    if isinstance(asked, str):
        raise _refusal(asked, _reason(asked))
    kind, name = resolve_name(asked["class_path"]), asked["class_path"].rpartition(".")[2]
    if issubclass(kind, SingleDeviceStrategy):
        return
    if kind is not DDPStrategy:  # one derived from it would start its processes in its own way
        raise _refusal(name, _reason(name))
    start_method = (asked.get("init_args") or {}).get("start_method", "popen")
    if start_method != "popen":
        raise _refusal(name, f" With start_method {start_method!r} {_COPIES}.")


def _refusal(name: str, reason: str) -> InputError:
    return InputError(f"trainer.strategy is {name!r}; allowed: {_ALLOWED}.{reason} Use --trainer.strategy ddp.")


def _reason(name: str) -> str:
    key = name.lower().replace("modelparallel", "model_parallel")
    reason = next((reason for begin, reason in _REASONS.items() if key.startswith(begin)), None)
    return f" This one is refused: {reason}." if reason else ""
