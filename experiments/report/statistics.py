"""The report's statistics: plain functions of numbers, with seeded resampling."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
Interval = tuple[float, float]
RESAMPLES = 4000
SEED = 0


def median_and_deviation(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Median and sample standard deviation (n − 1); None where there are too few values."""
    if not values:
        return None, None
    return float(np.median(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def percentile_interval(samples: Array, level: float = 0.95) -> Interval:
    """The middle `level` of resampled values."""
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_mean(values: Sequence[float], level: float = 0.95, resamples: int = RESAMPLES) -> Interval | None:
    """Percentile bootstrap interval of the mean (Efron and Tibshirani 1993, chapter 13); None below two values."""
    if len(values) < 2:
        return None
    sample = np.asarray(values, dtype=float)
    places = np.random.default_rng(SEED).integers(0, len(sample), (resamples, len(sample)))
    return percentile_interval(sample[places].mean(axis=1), level)


def student_mean(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """Student's interval of the mean, exact for normal values however few; None below two."""
    if len(values) < 2:
        return None
    reach = stats.t.ppf((1 + level) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - reach), float(np.mean(values) + reach)


@dataclass(frozen=True)
class PairedDifference:
    """Mean of (ours − baseline) over the seeds both have.

    Attributes:
        mean: of the differences.
        interval: 95 % percentile bootstrap; too narrow for a handful of seeds.
        student: 95 % Student interval.
        pairs: seeds in common.
    """

    mean: float
    interval: Interval | None
    student: Interval | None
    pairs: int


def paired_difference(ours: dict[int, float], baseline: dict[int, float]) -> PairedDifference | None:
    """Paired difference of two methods over their common seeds; None when they have none.

    Args:
        ours: value by seed.
        baseline: the same for what it is compared with.
    """
    seeds = sorted(ours.keys() & baseline.keys())
    if not seeds:
        return None
    differences = [ours[seed] - baseline[seed] for seed in seeds]
    mean = float(np.mean(differences))
    return PairedDifference(mean, bootstrap_mean(differences), student_mean(differences), len(seeds))


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation, ties sharing their mean rank; NaN when one side is constant."""
    a, b = _ranks(np.asarray(first, dtype=float)), _ranks(np.asarray(second, dtype=float))
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / spread if spread > 0 else float("nan")


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return ((last - counts + 1 + last) / 2)[inverse]


def stability(rank_sets: Sequence[Sequence[float]]) -> tuple[float | None, float | None]:
    """How alike seeds' ranks are: mean pairwise Spearman correlation, and mean over layers of the deviation."""
    if len(rank_sets) < 2:
        return None, None
    pairs = [spearman(rank_sets[i], rank_sets[j]) for i in range(len(rank_sets)) for j in range(i + 1, len(rank_sets))]
    known = [pair for pair in pairs if pair == pair]
    deviation = float(np.std(np.asarray(rank_sets, dtype=float), axis=0, ddof=1).mean())
    return float(np.mean(known)) if known else None, deviation
