"""How one run is spread over several devices: what works, and why the rest is refused."""

from inspect import signature
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from torch.nn.parallel import DistributedDataParallel

from common.errors import InputError
from experiments.process_watch import WatchedLauncher

_ALLOWED = "auto, ddp (one process per device), or a DDPStrategy by class_path"
_NAMES = ("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")
_SHARDS = (
    "it averages the gradients of what it shards; R and the allocation weights stand beside the backbone, so each "
    "process would train its own; and checkpoints hold whole tensors"
)
_COPIES = "its processes are copies that hand nothing back to the first, so the trained weights would be lost"
_REASONS = {"fsdp": _SHARDS, "deepspeed": _SHARDS, "model_parallel": _SHARDS, "ddp_": _COPIES}


def check_strategy(asked: Any) -> None:
    """Refuses a strategy that would train something else, or fail at the end.

    Args:
        asked: the value of trainer.strategy: a name or a strategy.

    Raises:
        InputError: anything but data-parallel processes that run the whole model each.
    """
    if isinstance(asked, SingleDeviceStrategy) or (isinstance(asked, str) and asked in _NAMES):
        return
    if isinstance(asked, DDPStrategy) and asked._start_method == "popen":
        return
    name = asked if isinstance(asked, str) else type(asked).__name__
    reason = _reason(asked, name)
    raise InputError(f"trainer.strategy is {name!r}; allowed: {_ALLOWED}.{reason} Use --trainer.strategy ddp.")


def _reason(asked: Any, name: str) -> str:
    if isinstance(asked, DDPStrategy):
        return f" With start_method {asked._start_method!r} {_COPIES}."
    key = name.lower().replace("modelparallel", "model_parallel")
    reason = next((reason for begin, reason in _REASONS.items() if key.startswith(begin)), None)
    return f" This one is refused: {reason}." if reason else ""


def prepare_strategy(trainer: Trainer) -> None:
    """Sets data-parallel processes up for this project.

    Raises:
        InputError: the accelerator brought a strategy of its own that isn't known to work.
    """
    strategy: Strategy = trainer.strategy
    check_strategy(strategy)
    if not isinstance(strategy, DDPStrategy):
        return
    # Buffers are frozen factors, the same everywhere, or sums that belong to one process: never sent.
    known = signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its older name
    strategy._ddp_kwargs.setdefault(name, False)
    assert strategy.cluster_environment is not None
    strategy._launcher = WatchedLauncher(strategy.cluster_environment, strategy.num_processes, strategy.num_nodes)
