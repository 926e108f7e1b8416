"""Where curves over learning rates are best, and the ratio of two such rates.

Scores are tables with a row per seed and a column per rising learning rate; higher is better. A cell may be missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from experiments.report.statistics import SEED, Array, Interval, percentile_interval, student_mean

Place = Literal["inside", "lower edge", "upper edge", "flat", "too few rates"]
_RESAMPLES = 1000


@dataclass(frozen=True)
class Optimum:
    """Where a curve over learning rates is best."""

    place: Place  # `inside` the grid, at one of its edges (the true optimum may lie outside), `flat`, or too few rates
    rate: float | None  # the best rate: a parabola's vertex when inside, the best grid point otherwise; None when flat
    chosen: float | None  # the grid's best rate
    interval: Interval | None = None  # bootstrap interval of `rate`; None with fewer than two seeds, or not inside
    edge_share: float = 0.0  # share of resamples whose best rate lies at the grid's edge
    error: float = float("nan")  # standard error of the log10 of `rate`, from the same resamples; NaN without them

    @property
    def inside(self) -> float | None:
        """The best rate where it lies inside the grid."""
        return self.rate if self.place == "inside" else None


def find_optimum(rates: ArrayLike, scores: ArrayLike, flat_below: float = 0.0) -> Optimum:
    """The best of rising rates: the vertex of the parabola in log rate through the best point and its neighbours.

    A curve whose highest and lowest score differ by no more than `flat_below` is flat.
    """
    values, grid = np.asarray(scores, dtype=float), np.asarray(rates, dtype=float)
    if len(values) == 0:
        return Optimum("too few rates", None, None)
    tied = np.flatnonzero(values == values.max())
    # of equal ones the first that isn't at an edge, whichever edge it is
    best = int(min(tied, key=lambda place: place in (0, len(values) - 1)))
    chosen = float(grid[best])
    if len(values) < 3:
        return Optimum("too few rates", None, chosen)
    if values.max() - values.min() <= flat_below:
        return Optimum("flat", None, chosen)
    if best in (0, len(values) - 1):
        return Optimum("lower edge" if best == 0 else "upper edge", chosen, chosen)
    around = slice(best - 1, best + 2)
    return Optimum("inside", float(10 ** parabola(np.log10(grid[around]), values[around])[0]), chosen)


def parabola(x: Array, y: Array) -> tuple[float, float]:
    """Vertex and downward curvature of the parabola through the best inner point and its neighbours; x rises."""
    best = 1 + int(np.argmax(y[1:-1]))
    x, y = x[best - 1 : best + 2], y[best - 1 : best + 2]
    left, right = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    curvature = (right - left) / (x[2] - x[0])
    if curvature == 0:  # three equal values
        return float(x[1]), 0.0
    return float((x[0] + x[1]) / 2 - left / (2 * curvature)), float(-curvature)


def _noise(scores: pd.DataFrame) -> float:
    """What a flat curve's means may differ by: two standard errors, pooled over rates; 0 with single seeds."""
    repeated = scores.loc[:, scores.count() > 1]
    if repeated.empty:
        return 0.0
    freedom = repeated.count() - 1
    variance = (repeated.var() * freedom).sum() / freedom.sum()
    return 2 * float(np.sqrt(variance / repeated.count().mean()))


def curve_optimum(scores: pd.DataFrame) -> Optimum:
    """`find_optimum` of the mean curve, with an interval from resampling its seeds.

    A resampled curve keeps its seeds together over all rates. Where its best rate is the grid's edge, that edge counts.
    """
    means = scores.mean()
    found = find_optimum(means.index, means, flat_below=_noise(scores))
    if found.place != "inside" or (samples := _resampled_optima([scores])) is None:
        return found
    (logs,), edge_share = samples
    seeds = len(scores.dropna())
    error = float(np.std(logs) * np.sqrt(seeds / (seeds - 1)))  # a bootstrap's variance lacks this factor
    interval = _learning_rates_of(percentile_interval(logs))
    return replace(found, interval=interval, edge_share=edge_share, error=error)


def _learning_rates_of(logs: Interval) -> Interval:
    return float(10 ** logs[0]), float(10 ** logs[1])


@dataclass(frozen=True)
class Ratio:
    """Best rate of one curve over another's."""

    value: float | None  # the mean curves' ratio; None where one optimum isn't inside its grid: `reason` says which
    bootstrap: Interval | None  # from resampling seeds; too narrow for a handful of them
    reason: str = ""
    by_seed: tuple[float, ...] = ()  # each common seed's own ratio; empty unless all of them lie inside
    student: Interval | None = None  # 95 % Student interval of the mean logarithm of `by_seed`, as a ratio


def rate_ratio(ours: pd.DataFrame, reference: pd.DataFrame) -> Ratio:
    """Ratio of two curves' best rates, with an interval that resamples their seeds together."""
    first, second = curve_optimum(ours), curve_optimum(reference)
    if first.inside is None or second.inside is None:
        whose, place = ("its", first.place) if first.inside is None else ("the reference's", second.place)
        return Ratio(None, None, f"{whose} optimum: {place}")
    samples = _resampled_optima([ours, reference])
    logs = _log_ratios(ours, reference)
    return Ratio(
        first.inside / second.inside,
        samples and _learning_rates_of(percentile_interval(samples[0][0] - samples[0][1])),
        by_seed=tuple(10**log for log in logs),
        student=(student := student_mean(logs)) and _learning_rates_of(student),
    )


def _log_ratios(ours: pd.DataFrame, reference: pd.DataFrame) -> list[float]:
    """log10 of the ratio of best rates, each seed's own curves alone; empty unless all lie inside their grids."""
    logs = []
    for seed in _common_seeds([ours, reference]):
        one, other = (find_optimum(scores.columns, scores.loc[seed], flat_below=-1.0) for scores in (ours, reference))
        if one.inside is None or other.inside is None:
            return []
        logs.append(float(np.log10(one.inside / other.inside)))
    return logs


def _common_seeds(curves: Sequence[pd.DataFrame]) -> list[int]:
    """Seeds that have a score at every rate of every curve."""
    return sorted(set.intersection(*(set(scores.dropna().index) for scores in curves)))


def _resampled_optima(curves: Sequence[pd.DataFrame]) -> tuple[list[Array], float] | None:
    """The log10 best rates of curves whose seeds are drawn again, alike, and the share at an edge; None below two."""
    seeds = _common_seeds(curves)
    if len(seeds) < 2:
        return None
    draws = np.random.default_rng(SEED).integers(0, len(seeds), (_RESAMPLES, len(seeds)))
    optima = []
    for scores in curves:
        means = scores.loc[seeds].to_numpy()[draws].mean(axis=1)
        optima.append([find_optimum(scores.columns, one, flat_below=-1.0) for one in means])
    at_edge = np.array([[optimum.place != "inside" for optimum in found] for found in optima]).any(axis=0)
    logs = [np.log10([optimum.rate or np.nan for optimum in found]) for found in optima]
    return logs, float(at_edge.mean())
