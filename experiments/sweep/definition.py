"""The sweep file: read, checked, and made into named trials."""

import hashlib
import json
import re
from datetime import date
from pathlib import Path
from typing import Any

from common.errors import InputError, one_of
from experiments.config_files import flatten, locate_config, read_yaml
from experiments.sweep.grid import PARTS, Overrides, Trial, check_mapping, check_parts, expand, listed_names

_LONGEST_NAME = 120
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def read_definition(path: Path) -> dict[str, Any]:
    """The content of a sweep file.

    Raises:
        InputError: no YAML, or parts that a sweep doesn't have.
    """
    content = read_yaml(path)
    if not content:
        raise InputError(f"{path} is empty; allowed: config and grid, as in configs/sweeps/.")
    for name in content:
        if name not in (*PARTS, "methods"):
            raise one_of(f"a part of {path.name}", name, (*PARTS, "methods"))
    for method, own in check_mapping("methods", content.get("methods") or {}).items():
        check_parts(f"methods.{method}", own or {})
    for name in ("settings", "derived"):
        check_mapping(name, content.get(name) or {})
    return _by_short_names(_with_numbers(content))


def with_settings(definition: dict[str, Any], typed: Overrides) -> dict[str, Any]:
    """The definition with settings from the command line, which hold for every trial.

    Raises:
        InputError: a setting that the sweep varies or derives itself.
    """
    typed = _short_names(_with_numbers(typed))
    sections = [definition, *(definition.get("methods") or {}).values()]
    varied = {name for section in sections if section for name in _varied(section)}
    for name in typed:
        if name in varied:
            raise InputError(f"--{name} is given, but the sweep varies it; allowed: leave it out, or change the file.")
    if not typed:
        return definition
    methods = {  # what is typed wins over a method's own settings, too
        method: {**(own or {}), "settings": {**((own or {}).get("settings") or {}), **typed}}
        for method, own in (definition.get("methods") or {}).items()
    }
    settings = {**(definition.get("settings") or {}), **typed}
    return {**definition, "settings": settings, **({"methods": methods} if methods else {})}


def make_trials(definition: dict[str, Any]) -> list[Trial]:
    """The trials of a definition, each with a name that tells what is special about it.

    Raises:
        InputError: see `grid.expand`.
    """
    expanded = expand(definition, base_values)
    names = _names([(method, overrides) for method, _, overrides, _ in expanded])
    return [
        Trial(name, method, tuple(str(locate_config(config).resolve()) for config in configs), overrides, settings)
        for name, (method, configs, overrides, settings) in zip(names, expanded, strict=True)
    ]


def base_values(configs: tuple[str, ...]) -> dict[str, Any]:
    """Values of base configs by command-line name (without class_path and init_args)."""
    values: dict[str, Any] = {}
    for config in listed_names(list(configs)):
        content = _with_numbers(read_yaml(locate_config(config)))
        flat = {name.replace(".init_args.", "."): value for name, value in flatten(content).items()}
        values |= {name: value for name, value in flat.items() if not name.endswith(".class_path")}
    return values


def _varied(section: dict[str, Any]) -> set[str]:
    zipped = section.get("zip") or []
    groups = zipped if isinstance(zipped, list) else [zipped]
    listed = section.get("trials") if isinstance(section.get("trials"), list) else []
    parts = [section.get("grid") or {}, section.get("derived") or {}, *groups, *(listed or [])]
    return {name for part in parts if isinstance(part, dict) for name in part}


def _by_short_names(section: dict[str, Any]) -> dict[str, Any]:
    """A definition, or a method of it, whose settings all go by their command-line names."""
    short: dict[str, Any] = {}
    for part, value in section.items():
        if part == "methods":
            short[part] = {method: _by_short_names(own) if own else own for method, own in (value or {}).items()}
        elif isinstance(value, list):  # of zipped groups or explicit trials
            short[part] = [_short_names(group) for group in value]
        else:
            short[part] = _short_names(value)
    return short


def _short_names(settings: Any) -> Any:
    """Without init_args: one setting has one name, or formulas and checks would miss it under the other."""
    if not isinstance(settings, dict):
        return settings
    return {_short_name(name): value for name, value in settings.items()}


def _short_name(name: Any) -> Any:
    return name.replace(".init_args.", ".") if isinstance(name, str) else name


def _with_numbers(content: Any) -> Any:
    """YAML 1.1 takes 1e-4 for text; here, as on the command line, it is a number. A date is text."""
    if isinstance(content, dict):
        return {key: _with_numbers(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_with_numbers(value) for value in content]
    if isinstance(content, date):
        return content.isoformat()
    return float(content) if isinstance(content, str) and _NUMBER.fullmatch(content) else content


def _names(trials: list[tuple[str, Overrides]]) -> list[str]:
    """Folder names such as `lora-rank_16-learning_rate_0.0001-seed_everything_0`, unique and of bounded length."""
    keys = list(dict.fromkeys(key for _, overrides in trials for key in overrides))
    short = {key: _short(key, keys) for key in keys}
    names = []
    for method, overrides in trials:
        parts = [method] if method else []
        parts += [f"{short[key]}_{_value_text(value)}" for key, value in overrides.items()]
        name = re.sub(r"[^A-Za-z0-9._+-]+", "_", "-".join(parts)).strip("_.-") or "trial"
        names.append(name if len(name) <= _LONGEST_NAME else _cut(name, method, overrides))
    twins = {name for name in names if names.count(name) > 1}
    return [
        _cut(name, *trial) if name in twins else name  # values that differ only in what a folder name can't hold
        for name, trial in zip(names, trials, strict=True)
    ]


def _short(key: str, keys: list[str]) -> str:
    """The last components of a dotted name that tell it from the others."""
    components = key.split(".")
    for count in range(1, len(components) + 1):
        tail = components[-count:]
        if sum(other.split(".")[-count:] == tail for other in keys) == 1:
            return "_".join(tail)
    return "_".join(components)


def _value_text(value: Any) -> str:
    if isinstance(value, dict) and "class_path" in value:
        value = {value["class_path"].rpartition(".")[2]: value.get("init_args") or None}
    return f"{value:g}" if isinstance(value, float) else json.dumps(value) if isinstance(value, dict) else str(value)


def _cut(name: str, method: str, overrides: Overrides) -> str:
    digest = hashlib.sha256(json.dumps([method, overrides], sort_keys=True, default=str).encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - 9].rstrip('_.-')}-{digest}"
