"""`sweep --stop_early`: trials that compete are trained rung by rung, and the worse ones pause."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from common.errors import InputError
from common.files import write_json
from experiments.report.replay import SEARCHED
from experiments.results import read_json
from experiments.sweep.engines import Engine
from experiments.sweep.folder import PAUSED, State, SweepFolder
from experiments.sweep.grid import Trial
from experiments.sweep.halving import Rung, rungs, score, survivors
from experiments.sweep.progress import Progress

_SEED = "seed_everything"


@dataclass
class Search:
    """Settings that differ in what is searched alone: the trials of each, a list by seed."""

    candidates: list[list[Trial]]
    alive: list[int]


def check_epochs(trials: list[Trial], configs: dict[str, dict[str, Any]]) -> int:
    """Epochs of every trial.

    Raises:
        InputError: they differ or aren't told, or there are too few of them and of seeds to decide anything early.
    """
    asked = {str(configs[trial.name]["trainer"]["max_epochs"]) for trial in trials}
    steps = {str(configs[trial.name]["trainer"]["max_steps"]) for trial in trials}
    if len(asked) > 1 or not next(iter(asked)).isdecimal() or steps != {"-1"}:
        raise InputError(
            f"trainer.max_epochs is {', '.join(sorted(asked))} and trainer.max_steps {', '.join(sorted(steps))}; "
            "allowed with --stop_early: one number of epochs for all trials, and no max_steps. Leave --stop_early out."
        )
    epochs = int(asked.pop())
    seeds = len({str(trial.overrides.get(_SEED)) for trial in trials})
    if len(rungs(seeds, epochs)) < 2:
        raise InputError(
            f"trainer.max_epochs is {epochs} with {seeds} seed, too few epochs to stop early; allowed: 2 or more, or "
            "several seeds. Leave --stop_early out: every trial then runs to its end."
        )
    return epochs


def searches(trials: list[Trial], searched: list[str]) -> list[Search]:
    """Trials by what they are compared in; those of one search compete."""
    found: dict[str, dict[str, list[Trial]]] = {}
    for trial in trials:
        left_out = {_SEED, *SEARCHED, *searched}
        studied = {name: value for name, value in trial.overrides.items() if name not in left_out}
        candidate = {name: value for name, value in trial.overrides.items() if name != _SEED}
        search = found.setdefault(json.dumps([trial.method, studied], default=str), {})
        search.setdefault(json.dumps(candidate, default=str), []).append(trial)
    return [Search(list(search.values()), list(range(len(search)))) for search in found.values()]


def stopping_early(engine: Engine, trials: list[Trial], epochs: int, searched: list[str]) -> Engine:
    """An engine that takes decisions between the rungs; they are made anew, and alike, when the sweep is run again."""

    def carry_out(folder: SweepFolder, todo: list[Trial], progress: Progress) -> bool:
        competing = searches(trials, searched)
        failed: set[str] = set()
        seeds = len({str(trial.overrides.get(_SEED)) for trial in trials})
        for rung in rungs(seeds, epochs):
            part = [one for search in competing for one in _next(folder, search, rung, epochs)]
            part = [one for one in part if one.name not in failed]
            if part and not engine(folder, part, progress):
                return False
            failed |= {one.name for one in part if folder.state(one) is State.FAILED}  # tried again by the next call
            for search in competing:
                _decide(folder, search, rung, progress.say)
        return True

    return carry_out


def _next(folder: SweepFolder, search: Search, rung: Rung, epochs: int) -> Iterator[Trial]:
    for place in search.alive:
        for trial in search.candidates[place][: rung.seeds]:
            if folder.state(trial) is not State.FINISHED and len(_values(folder, trial)) < rung.epochs:
                yield replace(trial, stop_after_epoch=rung.epochs if rung.epochs < epochs else None)


def _decide(folder: SweepFolder, search: Search, rung: Rung, say: Callable[[str], None]) -> None:
    first = [search.candidates[place][: rung.seeds] for place in search.alive]
    means = [np.mean([_best(folder, trial, rung.epochs) for trial in found]) for found in first]
    rows = next((rows for found in first for trial in found if (rows := _rows(folder, trial))), 1)
    kept = survivors(pd.Series(means, index=search.alive), rows)
    for place in set(search.alive) - set(kept):
        for trial in search.candidates[place]:
            if folder.state(trial) is State.WAITING:  # so that a report tells it from one that is still to come
                path = folder.trial_folder(trial) / PAUSED
                path.parent.mkdir(exist_ok=True)
                write_json(path, {"values": [], "higher_is_better": True, "validation_rows": 0})
        say(f"paused    {search.candidates[place][0].name} and its seeds: worse after epoch {rung.epochs}")
    search.alive = kept


def _best(folder: SweepFolder, trial: Trial, epochs: int) -> float:
    """Best score up to an epoch; NaN without any, −∞ where the run diverged before it had one."""
    values = [value for value in _values(folder, trial)[:epochs] if value == value]
    if values:
        return max(values)
    return -np.inf if folder.state(trial) is State.FINISHED else np.nan


def _values(folder: SweepFolder, trial: Trial) -> list[float]:
    """A trial's validation scores by epoch, finished or paused; empty where it is neither."""
    if (curve := _curve(folder, trial)) is None:
        return []
    known = [np.nan if value is None else value for value in curve["values"]]
    return [float(value) for value in score(known, curve["higher_is_better"])]


def _rows(folder: SweepFolder, trial: Trial) -> int:
    curve = _curve(folder, trial)
    return 0 if curve is None else int(curve["validation_rows"])


def _curve(folder: SweepFolder, trial: Trial) -> dict[str, Any] | None:
    if (results := folder.results(trial)) is not None:
        return results.curve
    path = folder.trial_folder(trial) / PAUSED
    return read_json(path) if path.exists() else None
