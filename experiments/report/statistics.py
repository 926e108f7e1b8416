"""The report's statistics, from SciPy and pandas, with seeded resampling. Values are pandas series by seed."""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
Interval = tuple[float, float]
LEVEL = 0.95
_RESAMPLES = 4000
SEED = 0
FEWEST_SEEDS = 3  # below, Student's interval is wider than anything it could tell apart


def percentile_interval(samples: Array) -> Interval:
    """The middle 95 % of resampled values."""
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def student_mean(values: ArrayLike) -> Interval | None:
    """Student's 95 % interval of the mean, exact for normal values however few; None below two."""
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        return None
    reach = stats.t.ppf((1 + LEVEL) / 2, len(sample) - 1) * stats.sem(sample)
    return float(sample.mean() - reach), float(sample.mean() + reach)


@dataclass(frozen=True)
class PairedDifference:
    """Mean of (ours − baseline) over the seeds both have."""

    by_seed: pd.Series

    @cached_property
    def student(self) -> Interval | None:
        """95 % Student interval of the mean."""
        return student_mean(self.by_seed)

    @property
    def interval(self) -> Interval | None:
        """Student's, where there are enough seeds to show it."""
        return self.student if self.pairs >= FEWEST_SEEDS else None

    @cached_property
    def bootstrap(self) -> Interval | None:
        """95 % percentile bootstrap of the mean (Efron and Tibshirani 1993); too narrow for a handful of seeds."""
        if self.pairs < 2:
            return None
        settings = {"n_resamples": _RESAMPLES, "method": "percentile", "rng": np.random.default_rng(SEED)}
        low, high = stats.bootstrap((self.by_seed,), np.mean, **settings).confidence_interval
        return float(low), float(high)

    @property
    def p_value(self) -> float:
        """Two-sided, of Student's paired test; NaN below two pairs, 0 or 1 where all pairs differ by the same."""
        if self.pairs < 2:
            return float("nan")
        if np.ptp(self.by_seed) < 1e-12:
            return float(abs(self.mean) < 1e-12)
        return float(stats.ttest_1samp(self.by_seed, 0.0).pvalue)

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
    return PairedDifference(by_seed) if len(by_seed) else None


def holm(p_values: Iterable[float]) -> Array:
    """p-values corrected for their number (Holm 1979, step-down): below 5 % in a family, all is right 19 times of 20.

    NaN, where there is nothing to test, stays and isn't counted.
    """
    values = np.asarray(list(p_values), dtype=float)
    order = np.argsort(values)  # NaN comes last
    factors = np.arange(np.isfinite(values).sum(), 0, -1)
    sorted_ = values[order]
    sorted_[: len(factors)] = np.maximum.accumulate(sorted_[: len(factors)] * factors).clip(max=1.0)
    return sorted_[np.argsort(order)]


def power(deviation: float, effect: float, pairs: int) -> float:
    """Chance that Student's paired test, two-sided at 5 %, shows a true mean difference (`effect`), in its direction.

    The test statistic is noncentral t with effect/deviation·√pairs (Cohen 1988, chapter 2).
    """
    edge = stats.t.ppf((1 + LEVEL) / 2, pairs - 1)
    shift = effect / max(deviation, 1e-3 * effect) * np.sqrt(pairs)  # SciPy gives NaN for one of many thousands
    return float(stats.nct.sf(edge, pairs - 1, min(shift, 1e3)))


def pairs_for_power(deviation: float, effect: float, wanted: float = 0.8) -> int:
    """The fewest pairs that show the effect this often."""
    return _fewest(lambda pairs: power(deviation, effect, pairs) >= wanted)


def pairs_to_decide(deviation: float, effect: float) -> int:
    """The fewest pairs whose Student interval is narrower than the effect: it can't hold both 0 and the effect then."""
    return _fewest(lambda pairs: 2 * stats.t.ppf((1 + LEVEL) / 2, pairs - 1) * deviation / np.sqrt(pairs) < effect)


def _fewest(enough: Callable[[int], bool]) -> int:
    """The smallest number of pairs that is enough, if more are, too."""
    high = 2
    while not enough(high):
        high *= 2
    return 2 if high == 2 else bisect_left(range(high), True, lo=high // 2, key=lambda pairs: bool(enough(pairs)))


def deviation_limit(deviation: float, pairs: int, level: float = 0.8) -> float:
    """Upper one-sided limit of a standard deviation estimated from normal values.

    A sample size worked out from it has the power asked for in `level` of all pilots (Browne 1995).
    """
    return deviation * float(np.sqrt((pairs - 1) / stats.chi2.ppf(1 - level, pairs - 1)))


def agreement(rank_sets: ArrayLike, starts: ArrayLike | None = None) -> tuple[float, Interval] | None:
    """How alike seeds rank the layers: mean Spearman correlation over pairs of seeds; independent ranks score 0.

    Args:
        rank_sets: (seeds, layers), at the end.
        starts: the same at the start: what they explain is taken out of each seed first (partial correlation), so that
            a start that seeds share doesn't count.

    Returns:
        The mean, and its interval from resampling layers, the same for all seeds; None where ranks are constant.
    """
    sets = np.asarray(rank_sets, dtype=float)
    begun = None if starts is None else np.asarray(starts, dtype=float)
    value = _mean_correlation(sets, begun)
    if np.isnan(value):
        return None
    draws = np.random.default_rng(SEED).integers(0, sets.shape[1], (1000, sets.shape[1]))
    samples = _mean_correlation(sets[:, draws], None if begun is None else begun[:, draws])
    return float(value), percentile_interval(samples[~np.isnan(samples)])


def _mean_correlation(sets: Array, starts: Array | None) -> Array:
    """Mean over pairs of seeds (first axis), of the ranks along the last axis; NaN with fewer than two that vary."""
    unit = _unit(stats.rankdata(sets, axis=-1))
    if starts is not None:
        begun = _unit(stats.rankdata(starts, axis=-1))
        unit = _unit(unit - (unit * begun).sum(-1, keepdims=True) * begun)
    varying = (np.abs(unit) > 0).any(-1).sum(0)
    pairs = np.where(varying > 1, varying * (varying - 1), np.nan)
    return ((unit.sum(0) ** 2).sum(-1) - varying) / pairs  # the square of a sum holds each pair twice, each seed once


def _unit(values: Array) -> Array:
    """Centred unit vectors along the last axis; zeros for what doesn't vary."""
    values = values - values.mean(-1, keepdims=True)
    norm = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.where(norm > 1e-9, values / np.maximum(norm, 1e-9), 0.0)
