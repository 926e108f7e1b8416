"""What a trial's class takes over, unnamed, from another class in its base config: said, since it is easily missed."""

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

from experiments.config_files import locate_config, read_yaml
from experiments.setting_values import parameters_of
from experiments.sweep.grid import Trial


def taken_over(trial: Trial, config: dict[str, Any]) -> Iterator[str]:
    """One line for each setting of the trial that names a class, where the base config's other class still speaks.

    Arguments that both classes have stay as the base config has them (jsonargparse's rule). Those that are the new
    class's defaults anyway are left out.

    Args:
        trial: its `settings` and `overrides` are looked through.
        config: the trial's complete config.
    """
    for name, value in {**trial.settings, **trial.overrides}.items():
        if not isinstance(value, dict) or "class_path" not in value:
            continue
        given, made = value.get("init_args") or {}, _at(config, name)
        before = next((found for path in reversed(trial.configs) if (found := _at(_base(path), name))), None)
        if made is None or before is None or before.get("class_path") == made["class_path"]:
            continue
        kept = {
            key: kept
            for key, kept in (before.get("init_args") or {}).items()
            if key not in given and made["init_args"].get(key, kept) == kept != _default(made["class_path"], key, kept)
        }
        if kept:
            listed = ", ".join(f"{key}: {kept[key]}" for key in kept)
            old, new = before["class_path"], made["class_path"]
            yield f"{name} is {new} and takes over {listed} from the base config's {old}"


@cache
def _base(config: str) -> dict[str, Any]:
    return read_yaml(locate_config(config))


def _at(config: Any, name: str) -> dict[str, Any] | None:
    """The part of a config that a command-line name stands for, if it is one with parts of its own."""
    for step in name.split("."):
        if not isinstance(config, dict):
            return None
        config = config[step] if step in config else (config.get("init_args") or {}).get(step)
    return config if isinstance(config, dict) else None


def _default(class_path: str, argument: str, otherwise: Any) -> Any:
    """The default of a class's argument; `otherwise` where the class has no such argument."""
    module, _, name = class_path.rpartition(".")
    parameter = parameters_of(getattr(import_module(module), name)).get(argument)
    return otherwise if parameter is None else parameter.default
