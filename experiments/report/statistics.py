"""The report's statistics, from SciPy and pandas, with seeded resampling. Values are pandas series by seed."""

import warnings
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
Interval = tuple[float, float]
LEVEL = 0.95
RESAMPLES = 4000
SEED = 0


def percentile_interval(samples: Array) -> Interval:
    """The middle 95 % of resampled values."""
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def bootstrap_mean(values: ArrayLike, resamples: int = RESAMPLES) -> Interval | None:
    """95 % percentile bootstrap interval of the mean (Efron and Tibshirani 1993, chapter 13); None below two values."""
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        return None
    found = stats.bootstrap(
        (sample,), np.mean, n_resamples=resamples, method="percentile", rng=np.random.default_rng(SEED)
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def student_mean(values: ArrayLike) -> Interval | None:
    """Student's 95 % interval of the mean, exact for normal values however few; None below two."""
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        return None
    reach = stats.t.ppf((1 + LEVEL) / 2, len(sample) - 1) * stats.sem(sample)
    return float(sample.mean() - reach), float(sample.mean() + reach)


@dataclass(frozen=True)
class PairedDifference:
    """Mean of (ours − baseline) over the seeds both have.

    Attributes:
        by_seed: the differences.
        interval: 95 % percentile bootstrap of their mean; too narrow for a handful of seeds.
        student: 95 % Student interval of their mean.
    """

    by_seed: pd.Series
    interval: Interval | None
    student: Interval | None

    @property
    def mean(self) -> float:
        return float(self.by_seed.mean())

    @property
    def pairs(self) -> int:
        """Seeds in common."""
        return len(self.by_seed)


def paired_difference(ours: pd.Series, baseline: pd.Series) -> PairedDifference | None:
    """Paired difference of two methods, given by seed, over their common seeds; None when they have none."""
    by_seed = (ours - baseline).dropna()
    return PairedDifference(by_seed, bootstrap_mean(by_seed), student_mean(by_seed)) if len(by_seed) else None


def rank_correlations(rank_sets: ArrayLike) -> list[float]:
    """Spearman's correlation of each pair of seeds' ranks (seeds, layers); NaN where one side is constant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        pairs = combinations(np.asarray(rank_sets, dtype=float), 2)
        return [float(stats.spearmanr(first, second).statistic) for first, second in pairs]


def stability(rank_sets: ArrayLike) -> tuple[float | None, float | None]:
    """How alike seeds' ranks (seeds, layers) are: mean pairwise correlation, and mean over layers of the deviation."""
    sets = np.asarray(rank_sets, dtype=float)
    if len(sets) < 2:
        return None, None
    known = [pair for pair in rank_correlations(sets) if not np.isnan(pair)]
    return float(np.mean(known)) if known else None, float(sets.std(axis=0, ddof=1).mean())
