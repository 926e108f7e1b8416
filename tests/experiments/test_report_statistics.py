"""The report's statistics against scipy, NumPy and closed forms, on made data with known answers."""

import numpy as np
import pytest
from scipy import stats

from experiments.report.statistics import (
    bootstrap_mean,
    curve_optimum,
    find_optimum,
    median_and_deviation,
    noise_of,
    paired_difference,
    rate_ratio,
    spearman,
    stability,
    student_mean,
)

RATES = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3]


def parabola(best, rates=RATES, seeds=(0,), noise=0.0, height=0.9, width=0.05):
    """Scores with their optimum at `best`, one draw per seed and rate."""
    generator = np.random.default_rng(3)
    return {
        rate: {
            seed: height - width * np.log10(rate / best) ** 2 + noise * generator.standard_normal() for seed in seeds
        }
        for rate in rates
    }


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


@pytest.mark.parametrize("best", [2e-5, 1e-4, 2.2e-4, 1.4e-3])
def test_the_optimum_of_a_parabola_is_its_vertex(best):
    scores = parabola(best)
    found = find_optimum(RATES, [scores[rate][0] for rate in RATES])
    assert found.place == "inside"
    assert found.rate == pytest.approx(best, rel=1e-6)
    logs = np.log10(RATES)
    fitted = np.polyfit(logs, [scores[rate][0] for rate in RATES], 2)
    assert np.log10(found.rate) == pytest.approx(-fitted[1] / (2 * fitted[0]))


@pytest.mark.parametrize(("best", "place", "chosen"), [(1e-6, "lower edge", 1e-5), (1.0, "upper edge", 3e-3)])
def test_an_optimum_at_the_edge_is_said_not_invented(best, place, chosen):
    found = curve_optimum(parabola(best, seeds=(0, 1, 2), noise=0.001))
    assert (found.place, found.chosen, found.interval) == (place, chosen, None)


def test_a_flat_curve_has_no_optimum():
    assert find_optimum(RATES, [0.5] * 6).place == "flat"
    noisy = parabola(1e-4, seeds=range(5), noise=0.01, width=0.0)
    assert curve_optimum(noisy).place == "flat"
    assert curve_optimum(parabola(1e-4, seeds=range(5), noise=0.01, width=0.2)).place == "inside"
    assert find_optimum([1e-3], [0.5]).place == "too few rates"
    assert find_optimum([], []).chosen is None


def test_noise_is_two_standard_errors():
    scores = {1e-3: {0: 0.1, 1: 0.3}, 1e-2: {0: 0.5, 1: 0.5}}
    pooled = (np.var([0.1, 0.3], ddof=1) + 0.0) / 2
    assert noise_of(scores) == pytest.approx(2 * np.sqrt(pooled / 2))
    assert noise_of({1e-3: {0: 0.1}}) == 0


def test_the_interval_of_an_optimum_holds_the_true_one():
    found = curve_optimum(parabola(2e-4, seeds=range(8), noise=0.005))
    low, high = found.interval
    assert low < 2e-4 < high and high / low < 10
    assert low <= found.rate <= high
    assert curve_optimum(parabola(2e-4)).interval is None  # one seed


def test_the_ratio_of_two_optima():
    ours, full = parabola(1e-3, seeds=range(5), noise=0.002), parabola(1e-4, seeds=range(5), noise=0.002)
    ratio = rate_ratio(ours, full)
    assert ratio.value == pytest.approx(10, rel=0.35)
    assert ratio.interval[0] < 10 < ratio.interval[1] or ratio.interval[1] / ratio.interval[0] < 1.5
    at_edge = rate_ratio(parabola(1.0), full)
    assert at_edge.value is None and "upper edge" in at_edge.reason


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


def test_a_tie_between_an_edge_and_its_neighbour_is_the_same_from_both_sides():
    rates = [1e-4, 1e-3, 1e-2, 1e-1]
    rising, falling = find_optimum(rates, [0.1, 0.2, 0.3, 0.3]), find_optimum(rates, [0.3, 0.3, 0.2, 0.1])
    assert rising.place == falling.place == "inside"
    for found, x, y in ((rising, [-3, -2, -1], [0.2, 0.3, 0.3]), (falling, [-4, -3, -2], [0.3, 0.3, 0.2])):
        slope = np.polyfit(x, y, 2)  # numpy's parabola through the same three points
        assert np.log10(found.rate) == pytest.approx(-slope[1] / (2 * slope[0]))
    assert find_optimum(rates, [0.3, 0.2, 0.2, 0.1]).place == "lower edge"
