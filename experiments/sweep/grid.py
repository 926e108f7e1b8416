"""From a grid to its trials: product, zip, lists, and values worked out from others."""

import itertools
from dataclasses import dataclass, field
from typing import Any

from common.errors import InputError, one_of
from experiments.sweep.expressions import evaluate

PARTS = ("config", "settings", "grid", "zip", "derived", "trials")
Overrides = dict[str, Any]
_OWN = {
    "config": "trials take their base config from the part `config`",
    "run_name": "trials are named after their settings",
    "runs_dir": "trials lie in the sweep's folder",
    "ckpt_path": "a sweep that is run again goes on from each trial's last checkpoint by itself",
    "overwrite": "`sweep --overwrite` deletes all trials",
    "trainer.fast_dev_run": "such a run leaves no results",
}


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        name: its folder's name.
        method: the method it belongs to; empty in a sweep of one method.
        configs: paths of its base configs.
        overrides: what the grid sets, by command-line name: {"model.optimizer.learning_rate": 0.001}.
        settings: what holds for the whole sweep or method.
    """

    name: str
    method: str
    configs: tuple[str, ...]
    overrides: Overrides
    settings: Overrides = field(default_factory=dict)


def expand(definition: dict[str, Any], base_values: Any) -> list[tuple[str, tuple[str, ...], Overrides, Overrides]]:
    """All trials of a definition, as (method, config names, overrides, settings), in the order of the file.

    Trials of one seed come before those of the next, whatever their method: a sweep that is cut off can be compared.

    Args:
        definition: the content of a sweep file; `methods` hold the same parts once more, each for itself.
        base_values: `base_values(configs)` gives the values that derived settings may read from the base config.

    Raises:
        InputError: an unknown part, a part of the wrong form, an empty grid, or the same trial twice.
    """
    methods = definition.get("methods") or {"": {}}
    check_mapping("methods", methods)
    shared = {name: value for name, value in definition.items() if name in PARTS}
    found = []
    for method, own in methods.items():
        own = own or {}
        check_parts(f"methods.{method}" if method else "the sweep file", own)
        configs = listed_names(own.get("config", shared.get("config")), method)
        settings = {**(shared.get("settings") or {}), **(own.get("settings") or {})}
        sections = [shared, own] if method else [shared]
        for overrides in _combinations(sections):
            derived = {**(shared.get("derived") or {}), **(own.get("derived") or {})}
            values = base_values(configs)
            overrides = {**overrides, **evaluate(derived, {**settings, **overrides}, values)}
            _refuse_own({**settings, **overrides})
            found.append((str(method), configs, overrides, settings))
    if not any(overrides for _, _, overrides, _ in found) and len(found) < 2:
        raise InputError("the grid is empty; allowed: at least one setting under grid, zip, trials or methods.")
    _refuse_twins(found)
    seeds = list(dict.fromkeys(str(overrides.get("seed_everything")) for _, _, overrides, _ in found))
    return sorted(found, key=lambda trial: seeds.index(str(trial[2].get("seed_everything"))))


def _combinations(sections: list[Overrides]) -> list[Overrides]:
    """Product over the grid and the zipped groups of all sections, times their explicit trials."""
    axes: list[list[Overrides]] = []
    explicit: list[Overrides] = []
    grid: Overrides = {}
    for section in sections:
        grid |= check_mapping("grid", section.get("grid") or {})
        for group in _groups(section.get("zip")):
            axes.append(_zipped(group))
        explicit += _explicit(section.get("trials"))
    axes = [[{name: value} for value in _values(name, values)] for name, values in grid.items()] + axes
    if explicit:
        axes.append(explicit)
    combinations = []
    for choice in itertools.product(*axes):
        names = [name for part in choice for name in part]
        if twice := {name for name in names if names.count(name) > 1}:
            raise InputError(f"{sorted(twice)[0]} is set by two parts of the sweep; allowed: one of grid, zip, trials.")
        combinations.append({name: value for part in choice for name, value in part.items()})
    return combinations


def _values(name: str, values: Any) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise InputError(f"grid.{name} is {values!r}; allowed: a list of one or more values, such as [1, 2, 3].")
    return values


def _groups(zipped: Any) -> list[Overrides]:
    groups = zipped if isinstance(zipped, list) else [zipped] if zipped else []
    return [check_mapping("zip", group) for group in groups]


def _zipped(group: Overrides) -> list[Overrides]:
    columns = {name: _values(name, values) for name, values in group.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise InputError(f"zip needs lists of one length: {told}. Make them equal, or use grid for every combination.")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _explicit(trials: Any) -> list[Overrides]:
    if trials is None:
        return []
    if not isinstance(trials, list) or not trials:
        raise InputError(f"trials is {trials!r}; allowed: a list of settings, such as [{{seed_everything: 1}}].")
    return [check_mapping("trials", trial) for trial in trials]


def check_mapping(part: str, value: Any) -> dict[str, Any]:
    """The value, if it maps names to something; else an `InputError`."""
    if not isinstance(value, dict) or any(not isinstance(name, str) for name in value):
        raise InputError(f"{part} is {value!r}; allowed: names and values, such as {{seed_everything: [0, 1]}}.")
    return value


def listed_names(config: Any, method: str = "") -> tuple[str, ...]:
    """Config names as a tuple, from one name or a list."""
    names = config if isinstance(config, list) else [config]
    if not names or not all(isinstance(name, str) for name in names):
        where = f"methods.{method}.config" if method else "config"
        raise InputError(f"{where} is {config!r}; allowed: the base config's name, such as quickstart.yaml, or a list.")
    return tuple(names)


def check_parts(where: str, section: Any) -> None:
    """Raises `InputError` unless a method holds the parts that a sweep has."""
    for name in check_mapping(where, section):
        if name not in PARTS:
            raise one_of(f"a part of {where}", name, PARTS)
    for name in ("settings", "derived"):
        check_mapping(name, section.get(name) or {})


def _refuse_own(settings: Overrides) -> None:
    """Raises InputError for what the sweep itself says to each trial, or what would leave a trial without results."""
    for name, reason in _OWN.items():
        if settings.get(name):
            raise InputError(f"{name} is set for the trials of a sweep, but {reason}. Leave it out.")


def _refuse_twins(found: list[Any]) -> None:
    seen: list[Any] = []
    for entry in found:
        if entry in seen:
            raise InputError(f"the grid has the same trial twice: {entry[2]}. Remove the repeated value.")
        seen.append(entry)
