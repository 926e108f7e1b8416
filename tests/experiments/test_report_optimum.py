"""Best rates and their ratios on made parabolas, whose optimum is known, against NumPy and SciPy."""

import numpy as np
import pytest
from scipy import stats

from experiments.report.groups import RATE, make_curves, make_groups
from experiments.report.optimum import curve_optimum, find_optimum, noise_of, rate_ratio
from experiments.report.sources import read_records
from tests.experiments import made_runs

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


def test_a_tie_between_an_edge_and_its_neighbour_is_the_same_from_both_sides():
    rates = [1e-4, 1e-3, 1e-2, 1e-1]
    rising, falling = find_optimum(rates, [0.1, 0.2, 0.3, 0.3]), find_optimum(rates, [0.3, 0.3, 0.2, 0.1])
    assert rising.place == falling.place == "inside"
    for found, x, y in ((rising, [-3, -2, -1], [0.2, 0.3, 0.3]), (falling, [-4, -3, -2], [0.3, 0.3, 0.2])):
        slope = np.polyfit(x, y, 2)  # numpy's parabola through the same three points
        assert np.log10(found.rate) == pytest.approx(-slope[1] / (2 * slope[0]))
    assert find_optimum(rates, [0.3, 0.2, 0.2, 0.1]).place == "lower edge"


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


def moved(best, shifts):
    """Each seed's own optimum lies `shifts[seed]` decades from `best`."""
    seeds = [parabola(best * 10**shift, seeds=(seed,)) for seed, shift in enumerate(shifts)]
    return {rate: {seed: value for scores in seeds for seed, value in scores[rate].items()} for rate in RATES}


def test_each_seeds_ratio_and_students_interval_of_their_logarithm():
    ours, full = [0.1, -0.1, 0.05], [0.0, 0.1, -0.1]
    ratio = rate_ratio(moved(1e-3, ours), moved(1e-4, full))
    logs = 1 + np.subtract(ours, full)
    np.testing.assert_allclose(np.log10(ratio.by_seed), logs)
    expected = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    np.testing.assert_allclose(np.log10(ratio.student), [expected.low, expected.high])
    low, high = ratio.interval
    assert ratio.student[0] < low < ratio.value < high < ratio.student[1]


def test_a_single_seed_or_one_whose_optimum_lies_outside_has_no_students_interval():
    alone = rate_ratio(parabola(1e-3), parabola(1e-4))
    np.testing.assert_allclose(alone.by_seed, [10])
    assert (alone.interval, alone.student) == (None, None)
    outside = rate_ratio(moved(1e-3, [-0.5, 0.0, 0.6]), moved(1e-4, [0.0, 0.0, 0.0]))
    assert outside.value is not None
    assert (outside.by_seed, outside.student) == ((), None)


def test_a_rate_of_zero_is_no_place_on_a_curve(tmp_path):
    """The frozen control of a sweep over rates: a row of its own, and no logarithm of 0."""
    rates = {0.0: {0: 0.7, 1: 0.7}, 1e-4: {0: 0.8, 1: 0.8}, 1e-3: {0: 0.9, 1: 0.91}, 1e-2: {0: 0.8, 1: 0.8}}
    records = read_records([made_runs.write_rate_sweep(tmp_path / "rates", {"lora": (16, rates)})])
    (curve,) = make_curves(make_groups(records), RATE)
    assert list(curve.groups) == [1e-4, 1e-3, 1e-2]
