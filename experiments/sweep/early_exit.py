"""`sweep --stop_early`: trials that compete are trained rung by rung, and the worse ones pause.

The rule is successive halving (Jamieson and Talwalkar 2016, 1502.07943), with a margin for noise: rungs double the
epochs on the first seed, then take in the other seeds (as in racing: Maron and Moore 1997). At each rung the better
half goes on, and whatever lies within the margin of the best. Chosen by replaying the published sweeps: see
docs/deciding_trials.md.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from common.errors import InputError
from experiments.report.groups import RATES
from experiments.report.statistics import Array
from experiments.sweep.folder import State, SweepFolder
from experiments.sweep.grid import Trial

_SEED = "seed_everything"
# Trainer settings under which each epoch ends with one validation, as text: an interval of 1 means each batch.
_EVERY_EPOCH = {"max_steps": ("-1",), "val_check_interval": ("1.0", "None"), "check_val_every_n_epoch": ("1",)}
MARGIN = 3.0  # over √rows: of an accuracy on 2,000 rows 0.067


@dataclass(frozen=True)
class Rung:
    """So many seeds are trained to so many epochs before the next decision."""

    seeds: int
    epochs: int


def rungs(seeds: int, epochs: int) -> list[Rung]:
    """A quarter, half and all of the epochs on the first seed, then all seeds."""
    steps = sorted({max(1, round(epochs / 4)), max(1, round(epochs / 2)), epochs})
    return [Rung(1, step) for step in steps] + [Rung(seeds, epochs)] * (seeds > 1)


def survivors(scores: pd.Series, rows: int) -> list[int]:
    """Places of the candidates that go on, of their scores at this rung, on a validation split of so many rows.

    Higher is better; NaN is one that couldn't be measured, which goes on.
    """
    ranked = scores.dropna().sort_values(ascending=False, kind="stable")
    half = set(ranked.index[: -(-len(ranked) // 2)])
    near = set(ranked.index[ranked >= ranked.max() - MARGIN / np.sqrt(rows)])
    return [place for place in scores.index if place in half | near or np.isnan(scores[place])]


@dataclass(frozen=True)
class Raced:
    """What the rule made of finished curves: the candidate it chose, and the share of all steps it spent."""

    winner: int
    spent: float


def race(curves: Array, rows: int) -> Raced:
    """Applies the rule to curves known to their end: best score so far (seeds, candidates, epochs), on so many rows."""
    seeds, candidates, epochs = curves.shape
    alive, spent = list(range(candidates)), np.zeros((seeds, candidates))
    for rung in rungs(seeds, epochs):
        spent[: rung.seeds, alive] = np.maximum(spent[: rung.seeds, alive], rung.epochs)
        means = curves[: rung.seeds, alive, rung.epochs - 1].mean(axis=0)
        reached, alive = alive, survivors(pd.Series(means, index=alive), rows)
    return Raced(reached[int(np.argmax(means))], float(spent.sum() / (seeds * candidates * epochs)))


def least_share(seeds: int, candidates: int, epochs: int) -> float:
    """The share of steps that no rule can go below: one epoch of each candidate, and the winner's all."""
    return (candidates - 1 + seeds * epochs) / (seeds * candidates * epochs)


@dataclass
class Search:
    """Settings that differ in what is searched alone: the trials of each, a list by seed."""

    candidates: list[list[Trial]]
    alive: list[int]


def check_epochs(trials: list[Trial], configs: dict[str, dict[str, Any]], searched: list[str]) -> int:
    """Epochs of every trial; refused where nothing competes, or nothing can be decided by one validation an epoch."""
    if all(len(search.candidates) < 2 for search in searches(trials, searched)):
        raise InputError(
            "--stop_early is given, but all trials are compared and none compete; allowed: a grid of learning rates, "
            "or of settings that the sweep file lists under searched. Add one, or leave --stop_early out."
        )
    trainers = [configs[trial.name]["trainer"] for trial in trials]
    asked = {name: sorted({str(trainer[name]) for trainer in trainers}) for name in ("max_epochs", *_EVERY_EPOCH)}
    if len(asked["max_epochs"]) > 1 or not asked["max_epochs"][0].isdecimal():
        raise _unfit("max_epochs", asked["max_epochs"], "one number of epochs for all trials")
    for name, allowed in _EVERY_EPOCH.items():
        if not set(asked[name]) <= set(allowed):
            raise _unfit(name, asked[name], f"{allowed[0]}, as decisions are taken on one validation after each epoch")
    epochs, seeds = int(asked["max_epochs"][0]), len({trial.seed for trial in trials})
    if len(rungs(seeds, epochs)) < 2:
        raise _unfit("max_epochs", [f"{epochs} with {seeds} seed"], "2 or more, or several seeds, to decide early")
    return epochs


def _unfit(name: str, asked: list[str], allowed: str) -> InputError:
    return InputError(
        f"trainer.{name} is {', '.join(asked)}; allowed with --stop_early: {allowed}. Change it, or leave --stop_early "
        "out: every trial then runs to its end."
    )


def searches(trials: list[Trial], searched: list[str]) -> list[Search]:
    """Trials by what they are compared in; those of one search compete."""
    found: dict[str, dict[str, list[Trial]]] = {}
    for trial in trials:
        left_out = {_SEED, *RATES, *searched}
        studied = {name: value for name, value in trial.overrides.items() if name not in left_out}
        candidate = {name: value for name, value in trial.overrides.items() if name != _SEED}
        search = found.setdefault(json.dumps([trial.method, studied], default=str), {})
        search.setdefault(json.dumps(candidate, default=str), []).append(trial)
    return [Search(list(search.values()), list(range(len(search)))) for search in found.values()]


def rounds_of(
    folder: SweepFolder, trials: list[Trial], epochs: int, searched: list[str], say: Callable[[str], None]
) -> Iterator[list[Trial]]:
    """What to train on each rung; decided when the one before has ended, and alike when the sweep is run again."""
    competing = searches(trials, searched)
    failed: set[str] = set()  # tried again by the next call
    ladder = rungs(len({trial.seed for trial in trials}), epochs)
    for rung in ladder:
        to_train = (one for search in competing for one in _trials_to_train(folder, search, rung, epochs))
        if part := [one for one in to_train if one.name not in failed]:
            yield part
        failed |= {one.name for one in part if folder.state(one) is State.FAILED}
        for search in competing if rung != ladder[-1] else []:
            _drop_worst_candidates(folder, search, rung, say)


def _trials_to_train(folder: SweepFolder, search: Search, rung: Rung, epochs: int) -> Iterator[Trial]:
    for place in search.alive:
        for trial in search.candidates[place][: rung.seeds]:
            if folder.state(trial) is not State.FINISHED and len(_scores(folder, trial)) < rung.epochs:
                yield replace(trial, stop_after_epoch=rung.epochs if rung.epochs < epochs else None)


def _drop_worst_candidates(folder: SweepFolder, search: Search, rung: Rung, say: Callable[[str], None]) -> None:
    first = [search.candidates[place][: rung.seeds] for place in search.alive]
    means = [np.mean([_best(folder, trial, rung.epochs) for trial in found]) for found in first]
    curves = [curve for found in first for trial in found if (curve := folder.curve(trial)) is not None]
    kept = survivors(pd.Series(means, index=search.alive), max((one.validation_rows for one in curves), default=1))
    for place in set(search.alive) - set(kept):
        for trial in search.candidates[place]:
            if folder.state(trial) is State.WAITING:  # so that a report tells it from one that is still to come
                folder.record_pause(trial)
        say(f"paused    {search.candidates[place][0].name} and its seeds: worse after epoch {rung.epochs}")
    search.alive = kept


def _best(folder: SweepFolder, trial: Trial, epochs: int) -> float:
    """Best score up to an epoch; NaN without any, −∞ where the run diverged before it had one."""
    best = pd.Series(_scores(folder, trial)[:epochs]).max()
    return -np.inf if np.isnan(best) and folder.state(trial) is State.FINISHED else float(best)


def _scores(folder: SweepFolder, trial: Trial) -> Array:
    curve = folder.curve(trial)
    return np.array([]) if curve is None else curve.scores()
