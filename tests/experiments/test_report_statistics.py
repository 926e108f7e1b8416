"""The report's statistics against scipy, NumPy and closed forms, on made data with known answers."""

import numpy as np
import pytest
from scipy import stats

from experiments.report.statistics import (
    bootstrap_mean,
    median_and_deviation,
    paired_difference,
    spearman,
    stability,
    student_mean,
)


def test_median_and_sample_deviation():
    values = [0.68, 0.665, 0.70, 0.671, 0.69]
    median, deviation = median_and_deviation(values)
    assert median == np.median(values)
    assert deviation == pytest.approx(stats.tstd(values))
    assert median_and_deviation([0.5]) == (0.5, None)
    assert median_and_deviation([]) == (None, None)


def test_the_bootstrap_interval_is_scipys():
    values = np.random.default_rng(0).normal(0.3, 1.0, 40)
    ours = bootstrap_mean(values.tolist(), resamples=20000)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20000, rng=1).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert bootstrap_mean([1.0]) is None


def test_bootstrap_intervals_cover_the_mean_about_as_often_as_they_say():
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        low, high = bootstrap_mean(generator.normal(2.0, 1.0, 30).tolist(), resamples=400)
        hits += low <= 2.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_a_paired_difference_uses_common_seeds_only():
    ours, baseline = {0: 0.70, 1: 0.72, 2: 0.69, 7: 0.1}, {0: 0.69, 1: 0.70, 2: 0.69, 5: 0.9}
    difference = paired_difference(ours, baseline)
    assert difference.pairs == 3
    assert difference.mean == pytest.approx(np.mean([0.01, 0.02, 0.0]))
    assert difference.interval[0] <= difference.mean <= difference.interval[1]
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    assert paired_difference({0: 1.0}, {0: 0.5}).interval is None
    assert paired_difference({0: 1.0}, {0: 0.5}).student is None


def test_students_interval_is_that_of_scipys_paired_test_and_covers_the_mean_from_three_seeds():
    generator = np.random.default_rng(2)
    ours, baseline = generator.normal(0.3, 1.0, 4), generator.normal(0.0, 1.0, 4)
    expected = stats.ttest_rel(ours, baseline).confidence_interval(0.95)
    found = paired_difference(dict(enumerate(ours)), dict(enumerate(baseline))).student
    assert found == pytest.approx((expected.low, expected.high))
    intervals = [student_mean(generator.normal(2.0, 1.0, 3).tolist()) for _ in range(2000)]
    assert 0.935 <= np.mean([low <= 2.0 <= high for low, high in intervals]) <= 0.965


def test_rank_correlation_is_scipys():
    generator = np.random.default_rng(2)
    first, second = generator.integers(0, 6, 30), generator.integers(0, 6, 30)  # with ties
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert np.isnan(spearman([1, 1], [1, 2]))


def test_stability_over_seeds():
    sets = np.asarray([[5, 10, 20], [6, 11, 19], [20, 10, 5]], dtype=float)
    correlation, deviation = stability(sets)
    pairs = [stats.spearmanr(sets[i], sets[j]).statistic for i, j in ((0, 1), (0, 2), (1, 2))]
    assert correlation == pytest.approx(np.mean(pairs))
    assert deviation == pytest.approx(sets.std(0, ddof=1).mean())
    assert stability(sets[:1]) == (None, None)
