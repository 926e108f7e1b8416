"""Where curves over learning rates are best, and the ratio of two such rates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from experiments.report.statistics import SEED, Array, Interval, percentile_interval, student_mean

Place = Literal["inside", "lower edge", "upper edge", "flat", "too few rates"]


@dataclass(frozen=True)
class Optimum:
    """Where a curve over learning rates is best.

    Attributes:
        place: `inside` the grid, at one of its edges (the true optimum may lie outside), `flat`, or too few rates.
        rate: the best rate: a parabola's vertex when inside, the best grid point otherwise; None when flat.
        chosen: the grid's best rate.
        interval: bootstrap interval of `rate`; None with fewer than two seeds, or not inside.
        edge_share: share of resamples whose best rate lies at the grid's edge.
    """

    place: Place
    rate: float | None
    chosen: float | None
    interval: Interval | None = None
    edge_share: float = 0.0


def find_optimum(rates: Sequence[float], scores: Sequence[float], flat_below: float = 0.0) -> Optimum:
    """The best rate of one curve: the vertex of the parabola in log rate through the best point and its neighbours.

    Args:
        rates: rising learning rates.
        scores: one score per rate; higher is better.
        flat_below: a curve whose highest and lowest score differ by no more than this is flat.
    """
    values = np.asarray(scores, dtype=float)
    if len(values) == 0:
        return Optimum("too few rates", None, None)
    best = _best_place(values)
    chosen = float(rates[best])
    if len(values) < 3:
        return Optimum("too few rates", None, chosen)
    if values.max() - values.min() <= flat_below:
        return Optimum("flat", None, chosen)
    if best in (0, len(values) - 1):
        return Optimum("lower edge" if best == 0 else "upper edge", chosen, chosen)
    logs = np.log10(np.asarray(rates, dtype=float))
    return Optimum("inside", float(10 ** _vertex(logs[best - 1 : best + 2], values[best - 1 : best + 2])), chosen)


def _best_place(values: Array) -> int:
    """Place of the highest value; of equal ones the first that isn't at an edge, whichever edge it is."""
    tied = np.flatnonzero(values == values.max())
    inside = tied[(tied > 0) & (tied < len(values) - 1)]
    return int(inside[0] if len(inside) else tied[0])


def _vertex(x: Array, y: Array) -> float:
    """Vertex of the parabola through three points, the middle one the highest (x need not be evenly spaced)."""
    left, right = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    curvature = (right - left) / (x[2] - x[0])
    if curvature == 0:  # three equal values
        return float(x[1])
    return float((x[0] + x[1]) / 2 - left / (2 * curvature))


Scores = dict[float, dict[int, float]]  # rate -> seed -> score, higher is better


def mean_scores(scores: Scores, seeds: Sequence[int] | None = None) -> tuple[list[float], list[float]]:
    """Rising rates and the mean score of each, over the seeds given (repeats count) or all."""
    rates, means = [], []
    for rate in sorted(scores):
        chosen = list(scores[rate]) if seeds is None else [seed for seed in seeds if seed in scores[rate]]
        if chosen:
            rates.append(rate)
            means.append(float(np.mean([scores[rate][seed] for seed in chosen])))
    return rates, means


def noise_of(scores: Scores) -> float:
    """What a flat curve's means may differ by: two standard errors, pooled over rates; 0 with single seeds."""
    groups = [list(by_seed.values()) for by_seed in scores.values() if len(by_seed) > 1]
    if not groups:
        return 0.0
    freedom = sum(len(group) - 1 for group in groups)
    variance = sum(float(np.var(group)) * len(group) for group in groups) / freedom
    return 2 * float(np.sqrt(variance / np.mean([len(group) for group in groups])))


def curve_optimum(scores: Scores) -> Optimum:
    """`find_optimum` of the mean curve, with an interval from resampling its seeds.

    A resampled curve keeps its seeds together over all rates. Where its best rate is the grid's edge, that edge counts.
    """
    found = find_optimum(*mean_scores(scores), flat_below=noise_of(scores))
    samples = resampled_optima({"": scores}, lambda optima: optima[""]) if found.place == "inside" else None
    if samples is None:
        return found
    logs, edges = samples
    low, high = percentile_interval(logs)
    return Optimum("inside", found.rate, found.chosen, (10**low, 10**high), edges)


@dataclass(frozen=True)
class Ratio:
    """Best rate of one curve over another's; None where one of them isn't inside its grid.

    Attributes:
        value: the mean curves' ratio.
        interval: from resampling seeds; too narrow for a handful of them.
        reason: why there is no value.
        by_seed: each common seed's own ratio; empty unless all of them lie inside.
        student: 95 % Student interval of the mean logarithm of `by_seed`, as a ratio.
    """

    value: float | None
    interval: Interval | None
    reason: str = ""
    by_seed: tuple[float, ...] = ()
    student: Interval | None = None


def rate_ratio(ours: Scores, reference: Scores) -> Ratio:
    """Ratio of two curves' best rates, with an interval that resamples their seeds together."""
    first, second = curve_optimum(ours), curve_optimum(reference)
    for name, optimum in (("its", first), ("the reference's", second)):
        if optimum.place != "inside":
            return Ratio(None, None, f"{name} optimum: {optimum.place}")
    assert first.rate is not None and second.rate is not None
    curves = {"ours": ours, "reference": reference}
    samples = resampled_optima(curves, lambda optima: optima["ours"] - optima["reference"])
    interval = None
    if samples is not None:
        low, high = percentile_interval(samples[0])
        interval = (10**low, 10**high)
    logs = _log_ratios(ours, reference)
    student = student_mean(logs)
    return Ratio(
        first.rate / second.rate,
        interval,
        by_seed=tuple(10**log for log in logs),
        student=None if student is None else (10 ** student[0], 10 ** student[1]),
    )


def _log_ratios(ours: Scores, reference: Scores) -> list[float]:
    """log10 of the ratio of best rates, each seed's own curves alone; empty unless all lie inside their grids."""
    logs = []
    for seed in _common_seeds([ours, reference]):
        optima = [find_optimum(*mean_scores(scores, [seed]), flat_below=-1.0) for scores in (ours, reference)]
        if any(optimum.place != "inside" for optimum in optima):
            return []
        logs.append(float(np.log10(optima[0].rate / optima[1].rate)))  # type: ignore[operator]
    return logs


def _common_seeds(curves: Sequence[Scores]) -> list[int]:
    return sorted(set.intersection(*(set(by_seed) for scores in curves for by_seed in scores.values())))


def resampled_optima(
    curves: dict[str, Scores], combine: Callable[[dict[str, float]], float], resamples: int = 1000
) -> tuple[Array, float] | None:
    """Resamples the curves' seeds, all alike, and combines the log10 best rates of each time.

    Returns:
        The combined values and the share of resamples with a best rate at an edge; None below two common seeds.
    """
    seeds = _common_seeds(list(curves.values()))
    if len(seeds) < 2:
        return None
    generator = np.random.default_rng(SEED)
    values, edges = np.empty(resamples), 0
    for place in range(resamples):
        drawn = [seeds[number] for number in generator.integers(0, len(seeds), len(seeds))]
        optima = {name: find_optimum(*mean_scores(scores, drawn), flat_below=-1.0) for name, scores in curves.items()}
        edges += any(optimum.place != "inside" for optimum in optima.values())
        values[place] = combine({name: float(np.log10(optimum.rate)) for name, optimum in optima.items()})  # type: ignore[arg-type]
    return values, edges / resamples
