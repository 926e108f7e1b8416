"""The report's statistics, and best rates with their ratios, against SciPy, NumPy and closed forms."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.report.figures_ranks import agreement_text
from experiments.report.groups import RATE, make_curves, make_groups, swept_rate
from experiments.report.optimum import curve_optimum, find_optimum, rate_ratio
from experiments.report.sources import read_records
from experiments.report.statistics import PairedDifference, agreement, holm, paired_difference, student_mean
from tests.docs.published import rank_correlations
from tests.experiments import made_runs

RATES = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3]


def test_the_bootstrap_interval_is_the_percentiles_of_resampled_means_and_covers_as_often_as_it_says():
    values = np.random.default_rng(0).normal(0.3, 1.0, 40)
    draws = np.random.default_rng(1).choice(values, (20000, 40)).mean(axis=1)
    found = PairedDifference(pd.Series(values)).bootstrap
    assert found == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.02)
    generator = np.random.default_rng(1)
    intervals = [PairedDifference(pd.Series(generator.normal(2.0, 1.0, 30))).bootstrap for _ in range(200)]
    assert 0.88 <= np.mean([low <= 2.0 <= high for low, high in intervals]) <= 0.99


def test_students_interval_is_that_of_scipys_paired_test_and_covers_the_mean_from_three_seeds():
    generator = np.random.default_rng(2)
    ours, baseline = generator.normal(0.3, 1.0, 4), generator.normal(0.0, 1.0, 4)
    expected, found = stats.ttest_rel(ours, baseline), paired_difference(pd.Series(ours), pd.Series(baseline))
    assert found.student == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert student_mean([2.0, 2.0]) == (2.0, 2.0)
    intervals = [student_mean(generator.normal(2.0, 1.0, 3)) for _ in range(2000)]
    assert 0.935 <= np.mean([low <= 2.0 <= high for low, high in intervals]) <= 0.965


def test_holms_p_values_are_those_of_closed_testing_with_bonferroni():
    """A hypothesis falls where every set of hypotheses that holds it does (Marcus, Peritz and Gabriel 1976)."""
    values = [0.011, 0.02, 0.6, 0.012, 0.5]
    sets = [chosen for size in range(1, 6) for chosen in itertools.combinations(range(5), size)]
    rejected_at = {chosen: min(1.0, len(chosen) * min(values[place] for place in chosen)) for chosen in sets}
    expected = [max(level for chosen, level in rejected_at.items() if place in chosen) for place in range(5)]
    assert holm(values) == pytest.approx(expected)
    assert holm([0.03, np.nan, 0.02]) == pytest.approx([0.04, np.nan, 0.04], nan_ok=True) and len(holm([])) == 0


def test_agreement_is_the_mean_of_spearmans_correlations_and_taking_the_start_out_that_of_partial_ones():
    generator = np.random.default_rng(2)
    sets, starts = (generator.integers(0, 6, (3, 30)).astype(float) for _ in range(2))  # with ties
    ranks = pd.DataFrame(sets.T).rank()  # Spearman's correlation is Pearson's of ranks
    expected = [ranks[i].corr(ranks[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert rank_correlations(sets) == pytest.approx(expected)
    assert agreement(sets)[0] == pytest.approx(np.mean(expected))
    begun = pd.DataFrame(starts.T).rank()
    rest = pd.DataFrame({i: ranks[i] - np.polyval(np.polyfit(begun[i], ranks[i], 1), begun[i]) for i in range(3)})
    partial = [rest[i].corr(rest[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert agreement(sets, starts)[0] == pytest.approx(np.mean(partial))
    assert agreement([[1, 1], [1, 2]]) is None and agreement(sets[:1]) is None


@pytest.mark.parametrize("shared", [False, True])
def test_noise_scores_zero_even_from_a_shared_start_and_a_signal_what_it_is(shared):
    """Of seeds with one signal and noise of the same size the correlation is 1/2, Spearman's 6/π·asin(1/4)."""
    generator, layers = np.random.default_rng(4), 60
    found = {name: [] for name in ("noise", "signal")}
    for _ in range(60):
        starts = np.tile(generator.normal(size=layers), (4, 1)) if shared else generator.normal(size=(4, layers))
        noise, signal = generator.normal(size=(4, layers)), generator.normal(size=layers)
        found["noise"].append(agreement(starts + noise, starts))
        found["signal"].append(agreement(noise + signal))
    for name, true in (("noise", 0.0), ("signal", 6 / np.pi * np.arcsin(0.25))):
        assert np.mean([value for value, _ in found[name]]) == pytest.approx(true, abs=0.03)
        assert np.mean([low <= true <= high for _, (low, high) in found[name]]) >= 0.85
    assert "training changed" not in agreement_text(np.round(starts), starts)  # frozen, but for rounding


def parabola(best, seeds=(0,), noise=0.0, width=0.05):
    """Scores by seed and rate with their optimum at `best`, one draw for each."""
    drawn = np.random.default_rng(3).standard_normal((len(RATES), len(seeds))).T
    scores = 0.9 - width * np.log10(np.array(RATES) / best) ** 2 + noise * drawn
    return pd.DataFrame(scores, index=list(seeds), columns=RATES)


@pytest.mark.parametrize("best", [2e-5, 1e-4, 2.2e-4, 1.4e-3])
def test_the_optimum_of_a_parabola_is_its_vertex(best):
    scores = parabola(best).loc[0]
    found = find_optimum(RATES, scores)
    assert found.place == "inside" and found.rate == pytest.approx(best, rel=1e-6)
    square, slope, _ = np.polyfit(np.log10(RATES), scores, 2)
    assert np.log10(found.rate) == pytest.approx(-slope / (2 * square))


@pytest.mark.parametrize(("best", "place", "chosen"), [(1e-6, "lower edge", 1e-5), (1.0, "upper edge", 3e-3)])
def test_an_optimum_at_the_edge_is_said_not_invented(best, place, chosen):
    found = curve_optimum(parabola(best, seeds=(0, 1, 2), noise=0.001))
    assert (found.place, found.chosen, found.interval) == (place, chosen, None)


def test_a_flat_curve_has_no_optimum():
    assert find_optimum(RATES, [0.5] * 6).place == "flat"
    assert curve_optimum(parabola(1e-4, seeds=range(5), noise=0.01, width=0.0)).place == "flat"
    assert curve_optimum(parabola(1e-4, seeds=range(5), noise=0.01, width=0.2)).place == "inside"
    assert find_optimum([1e-3], [0.5]).place == "too few rates"
    assert find_optimum([], []).chosen is None


def test_a_tie_between_an_edge_and_its_neighbour_is_the_same_from_both_sides():
    rates = [1e-4, 1e-3, 1e-2, 1e-1]
    rising, falling = find_optimum(rates, [0.1, 0.2, 0.3, 0.3]), find_optimum(rates, [0.3, 0.3, 0.2, 0.1])
    assert rising.place == falling.place == "inside"
    for found, x, y in ((rising, [-3, -2, -1], [0.2, 0.3, 0.3]), (falling, [-4, -3, -2], [0.3, 0.3, 0.2])):
        square, slope, _ = np.polyfit(x, y, 2)  # numpy's parabola through the same three points
        assert np.log10(found.rate) == pytest.approx(-slope / (2 * square))
    assert find_optimum(rates, [0.3, 0.2, 0.2, 0.1]).place == "lower edge"


def test_the_interval_of_an_optimum_holds_the_true_one():
    found = curve_optimum(parabola(2e-4, seeds=range(8), noise=0.005))
    low, high = found.interval
    assert low < 2e-4 < high and high / low < 10 and low <= found.rate <= high
    assert curve_optimum(parabola(2e-4)).interval is None  # one seed


def moved(best, shifts):
    """Each seed's own optimum lies `shifts[seed]` decades from `best`."""
    return pd.concat([parabola(best * 10**shift, seeds=(seed,)) for seed, shift in enumerate(shifts)])


def test_each_seeds_ratio_and_students_interval_of_their_logarithm():
    ours, full = [0.1, -0.1, 0.05], [0.0, 0.1, -0.1]
    ratio = rate_ratio(moved(1e-3, ours), moved(1e-4, full))
    logs = 1 + np.subtract(ours, full)
    np.testing.assert_allclose(np.log10(ratio.by_seed), logs)
    expected = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    np.testing.assert_allclose(np.log10(ratio.student), [expected.low, expected.high])
    assert ratio.student[0] < ratio.bootstrap[0] < ratio.value < ratio.bootstrap[1] < ratio.student[1]


def test_a_single_seed_or_one_whose_optimum_lies_outside_has_no_students_interval():
    alone = rate_ratio(parabola(1e-3), parabola(1e-4))
    np.testing.assert_allclose(alone.by_seed, [10])
    assert (alone.bootstrap, alone.student) == (None, None)
    outside = rate_ratio(moved(1e-3, [-0.5, 0.0, 0.6]), moved(1e-4, [0.0, 0.0, 0.0]))
    assert outside.value is not None and (outside.by_seed, outside.student) == ((), None)


def test_a_rate_of_zero_is_no_place_on_a_curve(tmp_path):
    """The frozen control of a sweep over rates: a row of its own, and no logarithm of 0."""
    rates = {0.0: {0: 0.7, 1: 0.7}, 1e-4: {0: 0.8, 1: 0.8}, 1e-3: {0: 0.9, 1: 0.91}, 1e-2: {0: 0.8, 1: 0.8}}
    records = read_records([made_runs.write_rate_sweep(tmp_path / "rates", {"lora": (16, rates)})])
    (curve,) = make_curves(make_groups(records), RATE)
    assert list(curve.groups) == [1e-4, 1e-3, 1e-2]


def test_fixed_ranks_have_no_place_on_a_curve_of_allocation_rates(tmp_path):
    """Their configs have the default of such a rate, which isn't what they were trained with."""
    for rate in (0.01, 0.02):
        config = made_runs.adaptive_config(0)
        config["model"]["init_args"]["optimizer"]["allocation_learning_rate"] = rate
        made_runs.write_run(tmp_path / f"adaptive_{rate}", config, made_runs.results("adaptive", 0, 0.7))
    config = made_runs.config(1e-3, 0, 16)
    config["model"]["init_args"]["optimizer"]["allocation_learning_rate"] = 0.002
    made_runs.write_run(tmp_path / "fixed", config, made_runs.results("fixed", 0, 0.7))
    records = read_records([tmp_path])
    (curve,) = make_curves(make_groups(records), swept_rate(records))
    assert list(curve.groups) == [0.01, 0.02]
