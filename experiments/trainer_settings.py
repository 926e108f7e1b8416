"""Lightning's own settings: what it checks too late or not at all, and which strategies work."""

from pkgutil import resolve_name
from typing import Any

from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from common.errors import InputError

_FROM_ONE = ("max_epochs", "max_steps", "check_val_every_n_epoch", "accumulate_grad_batches", "num_nodes")
_FROM_ZERO = (
    *("min_epochs", "min_steps", "num_sanity_val_steps", "log_every_n_steps", "gradient_clip_val"),
    "reload_dataloaders_every_n_epochs",
)
_MAY_BE_MINUS_ONE = ("max_epochs", "max_steps", "num_sanity_val_steps")  # for "no limit" or "all"
_ABOVE_ZERO = ("limit_train_batches", "val_check_interval")
_BATCHES = (
    *("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches"),
    "overfit_batches",
)
_MOST_BATCHES = 2**53

_ALLOWED = "auto, ddp (one process per device), fsdp (the frozen backbone in shards), or a DDPStrategy by class_path"
_NAMES = ("auto", "ddp", "fsdp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")
_SHARDS = (
    "it averages the gradients of what it shards alone; R and the allocation weights stand beside the backbone, so "
    "each process would train its own. The name fsdp shards the backbone and averages theirs"
)
_COPIES = "its processes are copies that hand nothing back to the first, so the trained weights would be lost"
_REASONS = {"fsdp": _SHARDS, "deepspeed": _SHARDS, "model_parallel": _SHARDS, "modelparallel": _SHARDS, "ddp_": _COPIES}


def check_trainer(settings: dict[str, Any]) -> None:
    """Refuses what Lightning would take and not do anything sensible with, and what would have no effect here."""
    for least, names in enumerate((_FROM_ZERO, _FROM_ONE)):
        for name in names:
            value, also = settings.get(name), ", or -1" if name in _MAY_BE_MINUS_ONE else ""
            if isinstance(value, int | float) and value < least and not (value == -1 and also):
                raise InputError(f"trainer.{name} is {value}; allowed: {least} or more{also}. Set --trainer.{name}.")
    for name in _BATCHES:
        if (settings.get(name) or 0) > _MOST_BATCHES:
            raise InputError(f"trainer.{name} is {settings[name]}; allowed: up to {_MOST_BATCHES:,} batches, or null.")
    for name in _ABOVE_ZERO:
        value = settings.get(name)
        if isinstance(value, int | float) and value <= 0:
            raise InputError(
                f"trainer.{name} is {value}; allowed: a number of batches from 1, or a share above 0.0 and up to 1.0. "
                f"Set --trainer.{name}."
            )
    for name, idle, reason in (
        ("gradient_clip_algorithm", not settings.get("gradient_clip_val"), "trainer.gradient_clip_val isn't given"),
        ("default_root_dir", True, "runs are in --runs_dir"),
    ):
        if settings.get(name) is not None and idle:
            raise InputError(
                f"trainer.{name} is {str(settings[name])!r}, but would have no effect: {reason}. Leave it out."
            )
    if settings.get("use_distributed_sampler"):
        raise InputError(
            "trainer.use_distributed_sampler is true; allowed: false, because the data modules split each global batch "
            "themselves. Leave it out."
        )


def check_strategy(asked: str | dict[str, Any]) -> None:
    """Refuses anything but data-parallel processes that run the whole model each: see docs/several_processes.md."""
    if asked in _NAMES:
        return
    reason = ""
    if isinstance(asked, str):
        name = asked
    else:
        kind, name = resolve_name(asked["class_path"]), asked["class_path"].rpartition(".")[2]
        start_method = (asked.get("init_args") or {}).get("start_method", "popen")
        # a class derived from DDPStrategy would start its processes in its own way
        if issubclass(kind, SingleDeviceStrategy) or (kind is DDPStrategy and start_method == "popen"):
            return
        reason = f" With start_method {start_method!r} {_COPIES}." if kind is DDPStrategy else ""
    for begin, why in _REASONS.items():
        if name.lower().startswith(begin):
            reason = f" This one is refused: {why}."
    raise InputError(f"trainer.strategy is {name!r}; allowed: {_ALLOWED}.{reason} Use --trainer.strategy ddp.")
