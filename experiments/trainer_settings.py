"""Lightning's own settings: what it checks too late or not at all."""

from typing import Any

from common.errors import InputError

# The smallest value that means something; -1 stands for "no limit" or "all" where it is listed.
_AT_LEAST = {
    "max_epochs": 1,
    "min_epochs": 0,
    "max_steps": 1,
    "min_steps": 0,
    "check_val_every_n_epoch": 1,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 0,
    "accumulate_grad_batches": 1,
    "gradient_clip_val": 0,
    "num_nodes": 1,
    "reload_dataloaders_every_n_epochs": 0,
}
_ABOVE_ZERO = ("limit_train_batches", "val_check_interval")
_BATCHES = (
    "limit_train_batches",
    "limit_val_batches",
    "limit_test_batches",
    "limit_predict_batches",
    "overfit_batches",
)
_MOST_BATCHES = 2**53
_MAY_BE_MINUS_ONE = ("max_epochs", "max_steps", "num_sanity_val_steps")


def check_trainer(settings: dict[str, Any]) -> None:
    """Checks `trainer` settings before anything is made of them.

    Raises:
        InputError: a value that Lightning would take and not do anything sensible with, or one without effect here.
    """
    for name, least in _AT_LEAST.items():
        value = settings.get(name)
        if isinstance(value, int | float) and value < least and not (value == -1 and name in _MAY_BE_MINUS_ONE):
            also = ", or -1" if name in _MAY_BE_MINUS_ONE else ""
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
    if settings.get("gradient_clip_algorithm") is not None and not settings.get("gradient_clip_val"):
        raise InputError(
            f"trainer.gradient_clip_algorithm is {str(settings['gradient_clip_algorithm'])!r}, but would have no "
            "effect: trainer.gradient_clip_val isn't given. Set it, or leave both out."
        )
    if settings.get("default_root_dir") is not None:
        raise InputError(
            f"trainer.default_root_dir is {str(settings['default_root_dir'])!r}, but would have no effect: runs are in "
            "--runs_dir. Leave it out."
        )
    if settings.get("use_distributed_sampler"):
        raise InputError(
            "trainer.use_distributed_sampler is true; allowed: false, because the data modules split each global batch "
            "themselves. Leave it out."
        )
