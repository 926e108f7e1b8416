"""The rule of `sweep --stop_early`: successive halving of what is searched, with a margin for noise.

Rungs double the epochs on the first seed, then take in the other seeds (successive halving: Jamieson and Talwalkar
2016, 1502.07943; over seeds as in racing: Maron and Moore 1997). At each rung the better half goes on, and whatever
lies within the margin of the best. Chosen by replaying the published sweeps: see docs/deciding_trials.md.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.report.statistics import Array

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
    """Places of the candidates that go on.

    Args:
        scores: of each candidate at this rung; higher is better, NaN for one that couldn't be measured, which goes on.
        rows: of the validation split.
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
    """Applies the rule to curves that are known to their end.

    Args:
        curves: best score so far, (seeds, candidates, epochs).
        rows: of the validation split.
    """
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
