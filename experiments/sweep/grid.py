"""From a grid to its trials: product, zip, lists, and values worked out from others."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from common.errors import InputError, check_one_of
from experiments.config_files import flatten, read_yaml
from experiments.sweep.expressions import evaluate
from experiments.sweep.question import QUESTION, REGISTERED, SEARCHED

Overrides = dict[str, Any]
_MOST_TRIALS = 5000  # of one method
PARTS = ("config", "settings", "grid", "zip", "derived", "trials")
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
    """One run of a sweep."""

    name: str  # its folder's name
    method: str  # the method it belongs to; empty in a sweep of one method
    configs: tuple[str, ...]  # its base configs
    overrides: Overrides  # what the grid sets, by command-line name: {"model.optimizer.learning_rate": 0.001}
    settings: Overrides = field(default_factory=dict)  # what holds for the whole sweep or method
    stop_after_epoch: int | None = None  # pauses it after so many epochs, to be resumed; None: to its end

    @property
    def asked(self) -> Overrides:
        """Everything that the sweep sets, by command-line name."""
        return {**self.settings, **self.overrides}

    @property
    def seed(self) -> str:
        """The grid's seed as text; None, too, where it has none."""
        return str(self.overrides.get("seed_everything"))


@dataclass(frozen=True)
class Section:
    """The parts of a sweep file, or of one of its methods: see docs/sweeps.md."""

    configs: tuple[str, ...] | None
    settings: Overrides
    grid: dict[str, list[object]]
    zipped: list[list[Overrides]]
    derived: Overrides
    listed: list[Overrides]

    @classmethod
    def of(cls, where: str, content: object) -> Self:
        """Reads the parts; `where` names them in messages."""
        parts = _mapping(where, content)
        for name in parts:
            check_one_of(f"a part of {where}", name, PARTS)
        config, zipped, listed = parts.get("config"), parts.get("zip") or [], parts.get("trials")
        if listed is not None and not (isinstance(listed, list) and listed):
            raise InputError(f"trials is {listed!r}; allowed: a list of settings, such as [{{seed_everything: 1}}].")
        return cls(
            configs=None if config is None else _config_names(where, config),
            settings=_mapping("settings", parts.get("settings") or {}),
            grid=_columns("grid", parts.get("grid") or {}),
            zipped=[_rows(group) for group in (zipped if isinstance(zipped, list) else [zipped])],
            derived=_mapping("derived", parts.get("derived") or {}),
            listed=[_mapping("trials", trial) for trial in listed or []],
        )

    def with_method(self, own: "Section") -> "Section":
        """This section with a method's own parts, which add to the shared ones."""
        return Section(
            configs=own.configs or self.configs,
            settings={**self.settings, **own.settings},
            grid={**self.grid, **own.grid},
            zipped=self.zipped + own.zipped,
            derived={**self.derived, **own.derived},
            listed=self.listed + own.listed,
        )

    @property
    def varied(self) -> set[str]:
        """Names of the settings that the section sets for each trial."""
        return {
            *self.grid,
            *self.derived,
            *(name for axis in (*self.zipped, self.listed) for one in axis for name in one),
        }

    def combinations(self) -> Iterator[Overrides]:
        """The product over the grid, the zipped groups, and the listed trials; each setting is set by one of them."""
        axes = [[{name: value} for value in values] for name, values in self.grid.items()] + self.zipped
        axes += [self.listed] if self.listed else []
        if (count := math.prod(map(len, axes))) > _MOST_TRIALS:
            raise InputError(
                f"the grid has {count:,} trials; allowed: at most {_MOST_TRIALS:,}. Leave values out, or use zip, "
                "which goes through lists side by side."
            )
        for choice in itertools.product(*axes):
            names = [name for part in choice for name in part]
            if twice := [name for name in names if names.count(name) > 1]:
                raise InputError(f"{twice[0]} is set by two parts of the sweep; allowed: one of grid, zip, trials.")
            yield {name: value for part in choice for name, value in part.items()}


def read_sections(definition: Mapping[str, object]) -> dict[str, Section]:
    """The parts that hold for each method, the shared ones included; without methods, those of the one named ''."""
    of_the_file = ("methods", QUESTION, REGISTERED, SEARCHED)
    shared = Section.of("the sweep file", {name: v for name, v in definition.items() if name not in of_the_file})
    methods = _mapping("methods", definition.get("methods") or {})
    sections = {name: shared.with_method(Section.of(f"methods.{name}", own or {})) for name, own in methods.items()}
    return sections or {"": shared}


def varied_settings(folder: Path) -> set[str]:
    """Names, as typed, of the settings by which trials of the sweep in a folder differ; none without a sweep."""
    path = folder / "sweep.yaml"
    if not path.is_file():
        return set()
    sections = read_sections(read_yaml(path)).values()
    fixed = [flatten(section.settings) for section in sections]
    names = {name for own in fixed for name in own if len({repr(other.get(name)) for other in fixed}) > 1}
    return {name.replace("init_args.", "") for name in names.union(*(section.varied for section in sections))}


def expand(definition: Mapping[str, object], read_base: Callable[[tuple[str, ...]], Overrides]) -> list[Trial]:
    """All trials of a definition, still without names; `read_base` gives the values of base configs.

    Trials of one seed come before those of the next, whatever their method: a sweep that is cut off can be compared.
    `InputError`: a part of the wrong form, an empty grid, the same trial twice, or a setting that is the sweep's own.
    """
    trials: list[Trial] = []
    for method, section in read_sections(definition).items():
        if section.configs is None:
            raise _no_config(f"methods.{method}" if method else "the sweep file", None)
        values = read_base(section.configs)
        for chosen in section.combinations():
            overrides = {**chosen, **evaluate(section.derived, {**section.settings, **chosen}, values)}
            trial = Trial("", method, section.configs, overrides, section.settings)
            for name, reason in _OWN.items():  # what the sweep itself says, or what would leave no results
                if trial.asked.get(name):
                    raise InputError(f"{name} is set for the trials of a sweep, but {reason}. Leave it out.")
            if trial in trials:
                raise InputError(f"the grid has the same trial twice: {overrides}. Remove the repeated value.")
            trials.append(trial)
    if not any(trial.overrides for trial in trials) and len(trials) < 2:
        raise InputError("the grid is empty; allowed: at least one setting under grid, zip, trials or methods.")
    seeds = list(dict.fromkeys(trial.seed for trial in trials))
    return sorted(trials, key=lambda trial: seeds.index(trial.seed))


def _mapping(part: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or any(not isinstance(name, str) for name in value):
        raise InputError(f"{part} is {value!r}; allowed: names and values, such as {{seed_everything: [0, 1]}}.")
    return value


def _config_names(where: str, config: object) -> tuple[str, ...]:
    names = config if isinstance(config, list) else [config]
    if not names or not all(isinstance(name, str) for name in names):
        raise _no_config(where, config)
    return tuple(names)


def _no_config(where: str, config: object) -> InputError:
    return InputError(f"config of {where} is {config!r}; allowed: a base config such as quickstart.yaml, or a list.")


def _columns(part: str, content: object) -> dict[str, list[object]]:
    columns = _mapping(part, content)
    for name, values in columns.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{part}.{name} is {values!r}; allowed: a list of one or more values, such as [1, 2, 3].")
    return columns


def _rows(group: object) -> list[Overrides]:
    columns = _columns("zip", group)
    if len({len(values) for values in columns.values()}) > 1:
        told = ", ".join(f"{name} has {len(values)}" for name, values in columns.items())
        raise InputError(f"zip needs lists of one length: {told}. Make them equal, or use grid for every combination.")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
