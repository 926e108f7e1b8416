"""What the parser's types leave open: numbers that are none or out of range, nulls, and what Lightning checks late."""

import math
import types
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from inspect import Parameter, signature
from pkgutil import resolve_name
from typing import Any, Union, get_args, get_origin, get_type_hints

from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from common.errors import InputError
from experiments.config_files import group_of

_LONGEST_TEXT = 4096  # characters; as long as a path may be
_LARGEST_NUMBER = 2**63 - 1
_SHOWN = 80
IN_WORDS: dict[object, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}

_BATCHES = ("train", "val", "test", "predict")
# Numbers of the trainer, what they may be, and the same in words.
_LIMITS: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (("min_epochs", "min_steps", "log_every_n_steps", "gradient_clip_val"), lambda value: value >= 0, "0 or more"),
    (("reload_dataloaders_every_n_epochs",), lambda value: value >= 0, "0 or more"),
    (("num_sanity_val_steps",), lambda value: value >= 0 or value == -1, "0 or more, or -1 for all"),
    (("max_epochs", "max_steps"), lambda value: value >= 1 or value == -1, "1 or more, or -1 for no limit"),
    (("check_val_every_n_epoch", "accumulate_grad_batches", "num_nodes"), lambda value: value >= 1, "1 or more"),
    (
        (*(f"limit_{split}_batches" for split in _BATCHES), "overfit_batches"),
        lambda value: value <= 2**53,
        f"up to {2**53:,} batches, or null",
    ),
    (
        ("limit_train_batches", "val_check_interval"),
        lambda value: value > 0,
        "a number of batches from 1, or a share above 0.0 and up to 1.0",
    ),
)
_FIXED = (
    ("use_distributed_sampler", True, "the data modules split each global batch themselves"),
    ("enable_checkpointing", False, "a run is tested, resumed and exported from its checkpoints"),
    ("barebones", True, "a run is made of what it leaves out: checkpoints, logs and figures"),
)

_ALLOWED = "auto, ddp (one process per device), fsdp (the frozen backbone in shards), or a DDPStrategy by class_path"
_NAMES = ("auto", "ddp", "fsdp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")
_SHARDS = (
    "it averages the gradients of what it shards alone; R and the allocation weights stand beside the backbone, so "
    "each process would train its own. The name fsdp shards the backbone and averages theirs"
)
_COPIES = "its processes are copies that hand nothing back to the first, so the trained weights would be lost"
_REASONS = {"fsdp": _SHARDS, "deepspeed": _SHARDS, "model_parallel": _SHARDS, "modelparallel": _SHARDS, "ddp_": _COPIES}


def check_values(settings: dict[str, object], groups: dict[str, type], defaults: dict[str, object]) -> None:
    """Refuses numbers that are not finite or need more than 64 bits, text with a NUL or without end, and stray nulls.

    The settings are nested plain values; `groups` has the class behind each group of them that has no class_path, such
    as `trainer`, and a setting with one of the parser's `defaults` can't be null.
    """
    for name, value in settings.items():
        _check_plain(name, value)
        if name in groups:
            _check_group(name, value, groups[name])
        elif isinstance(value, dict) and "class_path" in value:
            _check_class(name, value)
        elif value is None and defaults.get(name) is not None:
            raise InputError(f"{name} is null; leave it out for its default, {defaults[name]!r}.")


def check_range(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Raises `InputError` unless least <= value <= most."""
    if not least <= value <= most:
        up_to = "or more" if most == math.inf else f"to {most:,}"
        raise InputError(f"{name} is {value}; allowed: {least} {up_to}. Set --{name}.")


def _check_plain(name: str, value: object) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_plain(name if key == "init_args" else f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_plain(name, inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{name} is {value}; allowed: a finite number. Set --{name}.")
    elif isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
        raise InputError(f"{name} is {value}; allowed: numbers of up to 64 bits. Set --{name}.")
    elif isinstance(value, str) and (
        "\x00" in value or value.encode(errors="ignore").decode() != value or len(value) > _LONGEST_TEXT
    ):
        raise InputError(
            f"{name} is {value[:_SHOWN]!r} ({len(value):,} characters); allowed: up to {_LONGEST_TEXT:,} characters of "
            f"UTF-8 without a NUL. Set --{name}."
        )


def _check_group(name: str, value: object, owner: type) -> None:
    if not isinstance(value, dict):
        raise InputError(
            f"{name} is {value!r}; allowed: settings by name, such as {name}.{next(iter(parameters_of(owner)))}."
        )
    for key, parameter in parameters_of(owner).items():
        if key in value:
            _check_parameter(f"{name}.{key}", value[key], parameter)


def _check_parameter(name: str, value: object, parameter: Parameter) -> None:
    hint = parameter.annotation
    if isinstance(hint, type) and is_dataclass(hint):
        _check_group(name, value, hint)
    elif isinstance(value, dict) and "class_path" in value:
        _check_class(name, value)
    elif value is None and not _is_optional(hint):
        default = "" if parameter.default in (None, Parameter.empty) else f", {parameter.default!r}"
        allowed = IN_WORDS.get(hint, str(hint).replace("typing.", ""))
        raise InputError(f"{name} is null; allowed: {allowed}. Leave it out for its default{default}.")


def _check_class(name: str, value: dict[str, object]) -> None:
    _check_group(name, value.get("init_args") or {}, resolve_name(str(value["class_path"])))


def parameters_of(owner: type) -> dict[str, Parameter]:
    """The constructor's parameters with evaluated annotations, those that `**kwargs` hands to base classes included."""
    found: dict[str, Parameter] = {}
    for place in owner.__mro__:
        if "__init__" not in vars(place) or place is object:
            continue
        found = {**dict(_evaluated(place)), **found}
        if not any(p.kind is Parameter.VAR_KEYWORD for p in signature(vars(place)["__init__"]).parameters.values()):
            break
    return found


def _evaluated(place: type) -> Iterator[tuple[str, Parameter]]:
    try:
        hints = get_type_hints(vars(place)["__init__"])
    except NameError:  # a class that only names its types for type checkers
        hints = {}
    for name, parameter in signature(vars(place)["__init__"]).parameters.items():
        if name != "self" and parameter.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY):
            yield name, parameter.replace(annotation=hints.get(name, Any))


def _is_optional(hint: object) -> bool:
    if hint is Any or hint is None:
        return True
    is_union = get_origin(hint) in (Union, types.UnionType)
    return is_union and any(part is type(None) or _is_optional(part) for part in get_args(hint))


def check_trainer(settings: dict[str, Any]) -> None:
    """Refuses what Lightning would take and not do anything sensible with, and what would have no effect here."""
    for names, may_be, allowed in _LIMITS:
        for name in names:
            if isinstance(value := settings.get(name), int | float) and not may_be(value):
                raise InputError(f"trainer.{name} is {value}; allowed: {allowed}. Set --trainer.{name}.")
    for name, idle, reason in (
        ("gradient_clip_algorithm", not settings.get("gradient_clip_val"), "trainer.gradient_clip_val isn't given"),
        ("default_root_dir", True, "runs are in --runs_dir"),
    ):
        if settings.get(name) is not None and idle:
            raise InputError(
                f"trainer.{name} is {str(settings[name])!r}, but would have no effect: {reason}. Leave it out."
            )
    for name, asked, reason in _FIXED:
        if settings.get(name) is asked and not (name == "enable_checkpointing" and settings.get("fast_dev_run")):
            given, allowed = str(asked).lower(), str(not asked).lower()
            raise InputError(f"trainer.{name} is {given}; allowed: {allowed}, because {reason}. Leave it out.")


def check_strategy(asked: str | dict[str, object]) -> None:
    """Refuses anything but data-parallel processes that run the whole model each: see docs/several_processes.md."""
    if asked in _NAMES:
        return
    reason = ""
    if isinstance(asked, str):
        name = asked
    else:
        path = str(asked["class_path"])
        kind, name = resolve_name(path), path.rpartition(".")[2]
        start_method = group_of(asked, "init_args").get("start_method", "popen")
        # a class derived from DDPStrategy would start its processes in its own way
        if issubclass(kind, SingleDeviceStrategy) or (kind is DDPStrategy and start_method == "popen"):
            return
        reason = f" With start_method {start_method!r} {_COPIES}." if kind is DDPStrategy else ""
    for begin, why in _REASONS.items():
        if name.lower().startswith(begin):
            reason = f" This one is refused: {why}."
    raise InputError(f"trainer.strategy is {name!r}; allowed: {_ALLOWED}.{reason} Use --trainer.strategy ddp.")
