"""Would `sweep --stop_early` have chosen the same? Finished sweeps, replayed on resampled seeds."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from common.errors import InputError, one_of
from experiments.report.cells import make_table
from experiments.report.groups import NOT_STUDIED, RATES, Group, alike
from experiments.report.statistics import SEED, Array
from experiments.sweep.early_exit import least_share, race

_RESAMPLES = 1000
_SAME, _SPENT = 0.95, 0.35  # what stopping early should keep and spend


@dataclass(frozen=True)
class Replay:
    """One search: settings that differ in what is searched alone."""

    label: str
    curves: Array  # best validation score so far, (seeds, candidates, epochs); −∞ after a run diverged
    rows: int  # of the validation split
    same: float  # share of resamples in which the winner is as good as the full sweep's
    spent: float  # mean share of its steps

    @property
    def verdict(self) -> str:
        seeds, candidates, epochs = self.curves.shape
        if least_share(seeds, candidates, epochs) > _SPENT:
            return "too short to spend so little"
        return "yes" if self.same >= _SAME and self.spent <= _SPENT else "no"


def replays(groups: list[Group], searched: tuple[str, ...] = ()) -> list[Replay]:
    """A replay of each search among the groups that has values by epoch; `searched` competed beside learning rates.

    `InputError`: one of these doesn't vary, or there is no search.
    """
    settings = [group.first.config for group in groups]
    for name in searched:
        if len({repr(config.get(name)) for config in settings}) < 2:
            varied = {key for config in settings for key in config if repr(config[key]) != repr(settings[0].get(key))}
            raise one_of("a setting of --replay", name, sorted(varied - {*NOT_STUDIED, *RATES}) or ["no name"])
    found = []
    for label, candidates in alike(groups, (*RATES, *searched)):
        curves = _curves(candidates)
        if len(candidates) < 2 or curves is None:
            continue
        rows = candidates[0].results[0].data.validation_rows
        seeds = len(curves)
        draws = np.random.default_rng(SEED).integers(0, seeds, (_RESAMPLES if seeds > 1 else 1, seeds))
        outcomes = [(race(curves[draw], rows), curves[draw, :, -1].mean(axis=0)) for draw in draws]
        same, spent = np.mean([(full[one.winner] == full.max(), one.spent) for one, full in outcomes], axis=0)
        found.append(Replay(label, curves, rows, float(same), float(spent)))
    if not found:
        raise InputError(
            "--replay finds no search; allowed: settings that differ in learning rates alone (or in --replay NAME, "
            "too), trained to their end on a common seed, with validation figures by epoch. Leave --replay out."
        )
    return found


def _curves(groups: list[Group]) -> Array | None:
    """Curves over the seeds that all groups have; None where a run lacks values."""
    by_seed = [{record.seed: record.results for record in group.records if record.results} for group in groups]
    seeds = sorted(set.intersection(*(set(found) for found in by_seed)))
    runs = [[found[seed] for found in by_seed] for seed in seeds]
    epochs = max((len(results.validations) for row in runs for results in row), default=0)
    if not epochs:
        return None
    found = np.full((len(seeds), len(groups), epochs), np.nan)
    for place, row in enumerate(runs):
        for column, results in enumerate(row):
            scores = results.curve.scores()
            found[place, column, : len(scores)] = scores
    return np.maximum.accumulate(np.nan_to_num(found, nan=-np.inf), axis=2)


def replay_table(found: Iterable[Replay]) -> pd.DataFrame:
    """A row per search: its size, how often the winner stays, what is spent, and the least that could be."""
    return make_table(
        found,
        {
            "Search": lambda row: row.label,
            "Seeds × settings × epochs": lambda row: " × ".join(map(str, row.curves.shape)),
            "Same winner": lambda row: f"{row.same:.0%}" if len(row.curves) > 1 else ("yes" if row.same else "no"),
            "Steps spent": lambda row: f"{row.spent:.0%}",
            "Least possible": lambda row: f"{least_share(*row.curves.shape):.0%}",
            "≥ 95 % at ≤ 35 %": lambda row: row.verdict,
        },
    )
