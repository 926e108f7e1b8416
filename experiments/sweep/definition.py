"""The sweep file: read, checked, and made into named trials."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.errors import InputError, check_one_of, listing, shown
from experiments.config_files import flatten, locate_config, read_yaml, short_name
from experiments.own_files import OF_A_RUN
from experiments.sweep.deletion import OF_A_SWEEP
from experiments.sweep.grid import Overrides, Trial, expand, read_sections
from experiments.sweep.question import REGISTERED, SEARCHED, Question

_LONGEST_NAME = 120
# What a sweep, its report or its locks write beside the trials' folders, and what would make the folder a run's.
_TAKEN = {"sweep", "results", *(pattern.split("/")[0] for pattern in (*OF_A_SWEEP, *OF_A_RUN))}


def read_definition(path: Path) -> dict[str, Any]:
    """The content of a sweep file, checked, with settings by their command-line names."""
    content = read_yaml(path)
    if not content:
        raise InputError(f"{path} is empty; allowed: config and grid, as in configs/sweeps/.")
    if "model" in content:
        raise InputError(
            f"{path} is the config of one run; allowed: a sweep file, which names such a config and a grid, as in "
            f"configs/sweeps/. Train it with python cli.py fit --config {path}."
        )
    definition: dict[str, Any] = _normal({name: part for name, part in content.items() if name != REGISTERED})
    varied = {name for section in read_sections(definition).values() for name in section.varied}
    Question.of(definition)
    allowed = sorted(varied - {"seed_everything"}) or ["none: the sweep varies nothing but seeds"]
    searched = definition.get(SEARCHED) or []
    if not isinstance(searched, list):
        raise InputError(f"searched is {shown(searched)}; allowed: a list of settings, out of {listing(allowed)}.")
    for name in searched:
        check_one_of("a setting of searched", name, allowed)
    return definition


def make_trials(definition: Mapping[str, object]) -> list[Trial]:
    """The trials of a definition (see `grid.expand`), each with a name that tells what is special about it."""
    trials = expand(definition, read_base)
    found = []
    for trial, name in zip(trials, _names(trials), strict=True):
        if name.lower() in _TAKEN:
            raise InputError(
                f"a trial would be called {name!r}, as a file of the sweep's own is; allowed: any other name. Give "
                f"the method {trial.method!r} another one."
            )
        configs = tuple(str(locate_config(config).resolve()) for config in trial.configs)
        found.append(replace(trial, name=name, configs=configs))
    return found


def with_settings(definition: dict[str, Any], typed: Overrides) -> dict[str, Any]:
    """The definition with settings from the command line, which hold for every trial and which no trial varies."""
    if not typed:
        return definition
    typed = _normal(typed)
    methods = {  # what is typed wins over a method's own settings, too
        method: {**(own or {}), "settings": {**((own or {}).get("settings") or {}), **typed}}
        for method, own in (definition.get("methods") or {}).items()
    }
    settings = {**(definition.get("settings") or {}), **typed}
    definition = {**definition, "settings": settings, **({"methods": methods} if methods else {})}
    for section in read_sections(definition).values():
        if varied := sorted(typed.keys() & section.varied):
            raise InputError(
                f"--{varied[0]} is given, but the sweep varies it; allowed: leave it out, or change the file."
            )
    return definition


def read_base(configs: tuple[str, ...]) -> Overrides:
    """Values of base configs by command-line name; class paths as NAME.class_path."""
    values: Overrides = {}
    for config in configs:
        values |= by_short_names(read_yaml(locate_config(config)))
    return values


def by_short_names(config: Mapping[str, object]) -> Overrides:
    """A config's values by command-line name, without init_args."""
    return {_short_name(name): value for name, value in flatten(_normal(config)).items()}


def _normal(content: Any) -> Any:
    """The content with one name for each setting, or formulas would miss it under the other."""
    if isinstance(content, dict):
        made = {_short_name(name): _normal(value) for name, value in content.items()}
        if len(made) < len(content):
            twice = next(name for name in content if _short_name(name) != name and _short_name(name) in content)
            raise InputError(f"a setting is given twice, as {twice!r} and {_short_name(twice)!r}. Leave one out.")
        return made
    return [_normal(value) for value in content] if isinstance(content, list) else content


def _short_name(name: Any) -> Any:
    return short_name(name) if isinstance(name, str) else name


def _names(trials: list[Trial]) -> list[str]:
    """Folder names such as `lora-rank_16-learning_rate_0.0001-seed_everything_0`, unique and of bounded length."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial.overrides))
    short = {key: _short(key, keys) for key in keys}
    names = []
    for trial in trials:
        parts = [trial.method] if trial.method else []
        parts += [f"{short[key]}_{_value_text(value)}" for key, value in trial.overrides.items()]
        names.append(re.sub(r"[^A-Za-z0-9._+-]+", "_", "-".join(parts)).strip("_.-") or "trial")
    folders = [name.lower() for name in names]  # some file systems take names for one that differ in case
    return [  # values may differ only in what a folder name can't hold
        _cut(name, trial) if len(name) > _LONGEST_NAME or folders.count(name.lower()) > 1 else name
        for name, trial in zip(names, trials, strict=True)
    ]


def _short(key: str, keys: list[str]) -> str:
    """The last components of a dotted name that tell it from the others."""
    components = key.split(".")
    tails = (components[-count:] for count in range(1, len(components) + 1))
    alone = (tail for tail in tails if sum(other.split(".")[-len(tail) :] == tail for other in keys) == 1)
    return "_".join(next(alone, components))


def _value_text(value: object) -> str:
    if isinstance(value, dict) and "class_path" in value:
        value = {value["class_path"].rpartition(".")[2]: value.get("init_args") or None}
    return f"{value:g}" if isinstance(value, float) else json.dumps(value) if isinstance(value, dict) else str(value)


def _cut(name: str, trial: Trial) -> str:
    content = json.dumps([trial.method, trial.overrides], sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - 9].rstrip('_.-')}-{digest}"
