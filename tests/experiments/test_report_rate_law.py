"""The law of the learning rate against ordinary least squares, made curves, and a public table of rates.

tinker_sft_rates.csv holds the facts of github.com/thinking-machines-lab/tinker-cookbook, recipes/chat_sl/results/
sft_sweep.md (commit 9dfcc3a): test loss by model, rank and rate, the lower of two runs, and which it calls best.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import cli
from common.errors import InputError
from experiments.report.figures_rates import law_figure
from experiments.report.optimum import curve_optimum, find_optimum
from experiments.report.rate_forecast import forecast_table, forecasts
from experiments.report.rate_law import Point, fit_law, law_table, left_out, points_of, regime, weighted_fit
from experiments.report.sources import read_records
from tests.experiments import made_runs

PUBLIC = pd.read_csv(Path(__file__).parents[1] / "reference" / "tinker_sft_rates.csv")
RANKS = (4, 16, 64, 256)


def point(rank, log_rate, study="a, 1 rows, b", scale=1.0, error=0.05, **more):
    return Point(study, f"rank {rank:g}", rank, scale, log_rate, error, curvature=0.1, **more)


def test_a_width_that_results_tell_takes_the_place_of_each_backbones_intercept(tmp_path):
    made = []
    for width, best in ((100, 1e-3), (1000, 1e-4)):
        for rank in (4, 16, 64):
            curves = {"lora": (rank, {best * 10**step: {0: 0.9} for step in (-1, 0, 1)})}
            losses = iter((0.8, 0.6, 0.8))
            change = lambda trial, width=width, losses=losses: trial["results"].update(  # noqa: E731
                width=width, backbone=f"made-{width}", best_val_loss=next(losses)
            )
            folder = made_runs.write_rate_sweep(tmp_path / f"{width}-{rank}", curves, change=change)
            made += points_of(read_records([folder]))
    law = fit_law(made)
    assert law.slope(width=1)[0] == pytest.approx(-1, abs=1e-6) and law.studies == ["made/news, 100 rows"]
    assert "width" not in fit_law([replace(one, width=None) for one in made]).terms


def test_equal_errors_give_ordinary_least_squares():
    generator = np.random.default_rng(0)
    x, y = np.arange(6.0), generator.normal(size=6)
    fit = weighted_fit(np.column_stack([np.ones(6), x]), y, np.full(6, np.nan))
    expected = stats.linregress(x, y)
    slope, (low, high) = fit.at(np.array([0.0, 1.0]))
    assert slope == pytest.approx(expected.slope)
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 4) * expected.stderr, rel=1e-4)


def test_slopes_over_rank_scale_and_width_are_found_and_named_by_their_regime():
    made = [
        point(rank, study_rate - 0.8 * np.log10(rank) - 0.7 * np.log10(scale), study=study, scale=scale, error=0.01)
        for study, study_rate in (("a, 1 rows, b", -3.0), ("c, 1 rows, d", -2.0))
        for rank in RANKS
        for scale in (32 / rank, 10.0)
    ]
    law = fit_law(made)
    found = law_table(law).set_index("log rate against log")
    assert [slope.split()[0] for slope in found["Slope"]] == ["-0.10", "-0.80", "-0.70"]
    assert law.slope(rank=1, scale=-1)[0] == pytest.approx(-0.1) and law.slope(scale=1)[0] == pytest.approx(-0.7)
    assert len(law_figure(law).axes[0].lines) > 4
    wide = [point(r, -3 - 1.0 * np.log10(w / 100), study="s", scale=32 / r, width=w) for r in RANKS for w in (100, 400)]
    assert fit_law(wide).slope(width=1)[0] == pytest.approx(-1)
    intervals = ((-0.2, 0.1), (-1.1, -0.8), (-0.8, -0.2), (-2.0, 1.0))
    names = ["rank-invariant", "proportional to 1/rank", "neither", "undecided: both"]
    assert [regime((0.0, interval)) for interval in intervals] == names


@pytest.mark.slow
def test_the_slopes_interval_covers_the_true_one_on_simulated_curves():
    """Five seeds' parabolas on a grid of factor 3, the optimum of each curve off the law by a little of its own."""
    generator, slope, rates = np.random.default_rng(1), -0.5, 10 ** np.arange(-6, 0.01, 0.5)
    covered = []
    for _ in range(30):
        points = []
        for rank in RANKS:
            best = -2.5 + slope * np.log10(rank) + generator.normal(0, 0.05)
            heights = -0.1 * (np.log10(rates) - best) ** 2 + generator.normal(0, 0.01, (5, len(rates)))
            scores = pd.DataFrame(heights, columns=rates)
            found = curve_optimum(scores)
            points.append(point(rank, np.log10(found.rate), error=found.error))
        low, high = fit_law(points).slope(rank=1)[1]
        covered.append(low <= slope <= high)
    assert 0.88 <= np.mean(covered) <= 1.0


def test_a_rank_left_out_is_predicted_by_the_others():
    made = [point(rank, -3 - 0.5 * np.log10(rank) + (0.3 if rank == 64 else 0.0)) for rank in RANKS]
    found = left_out(made).set_index("Left out")["Off by"].str.rstrip("×").astype(float)
    assert found["rank 64: rank 64"] == pytest.approx(10**0.3, abs=0.01) and len(found) == 4


def public_optima():
    for (model, rank), rows in PUBLIC.groupby(["model", "rank"], sort=False):
        yield model, rank, rows, find_optimum(rows["rate"], -rows["nll"])


def test_the_optimum_finder_chooses_what_a_public_table_calls_best_for_each_model():
    best = [(rows, found) for _, _, rows, found in public_optima() if rows["best"].any()]
    assert len(best) == 35
    assert all(found.chosen == rows.loc[rows["best"] == 1, "rate"].item() for rows, found in best)


def test_the_law_of_the_public_table_predicts_ranks_left_out():
    """Alpha is constant there, and the best rate rises with the rank, by about a fifth of a decade per decade."""
    inside = [one for one in public_optima() if one[3].place == "inside"]
    points = [point(rank, np.log10(f.rate), study=m, scale=32 / rank, error=np.nan) for m, rank, _, f in inside]
    slope, (low, high) = fit_law(points).slope(rank=1)
    logs = pd.DataFrame([(m, np.log10(rank), np.log10(f.rate)) for m, rank, _, f in inside], columns=["m", "x", "y"])
    x, y = (logs[name] - logs.groupby("m")[name].transform("mean") for name in ("x", "y"))  # within each model
    assert slope == pytest.approx((x * y).sum() / (x**2).sum()) and 0.1 < low < high < 0.3
    missed = left_out(points)["Off by"].str.rstrip("×").astype(float)
    assert missed.median() < 1.2 and missed.max() < 3


def test_too_few_ranks_are_refused_and_nothing_is_written(tmp_path, capsys):
    with pytest.raises(InputError, match=r"are 4, 16; a law takes 3 or more"):
        fit_law([point(4, -3.0), point(16, -3.1)])
    curves = {"lora": (16, {rate: {0: 0.5 + (rate == 1e-3)} for rate in (1e-4, 1e-3, 1e-2)})}
    folder = made_runs.write_rate_sweep(tmp_path / "rates", curves, "perplexity")
    assert cli.main(["report", str(folder), "--law"]) == 2
    assert "a law takes 3 or more" in capsys.readouterr().err and not (folder / "report.html").exists()


def study(name, gap, full=-4.0):
    """Full fine-tuning and LoRA at two alphas, whose rates are `gap` and 0.7 per decade of alpha apart."""
    made = [
        point(rank, full + gap - 0.7 * np.log10(alpha / 32), study=f"{name}, 1 rows, b", scale=alpha / rank)
        for rank, alpha in ((16, 32), (64, 32), (16, 160), (64, 640))
    ]
    return [*made, point(0, full, study=f"{name}, 1 rows, b")]


def test_full_fine_tunings_rate_is_forecast_from_other_studies_alone():
    first, second = forecasts(study("a", 1.0) + study("b", 1.0, full=-5.0))
    assert (first.log_rate, second.log_rate) == pytest.approx((-4.0, -5.0), abs=0.01)
    moved = forecasts(study("a", 1.0) + study("b", 1.2))[1]  # its own full runs are left out
    assert moved.log_rate == pytest.approx(-3.8, abs=0.01)
    assert moved.real_regret == pytest.approx(0.1 * 0.2**2, rel=0.1)
    assert forecast_table([moved])["Off by"][0] == "1.58×"


def test_a_forecasts_interval_covers_what_studies_differ_by_and_its_regret_is_what_is_lost():
    generator, found = np.random.default_rng(2), []
    for _ in range(100):
        gaps = 1.0 + generator.normal(0, 0.195, 3)
        found += forecasts([one for name, gap in zip("abc", gaps) for one in study(name, gap)])
    covered = [one.interval[0] <= -4.0 <= one.interval[1] for one in found]
    assert np.mean(covered) >= 0.92
    lost = np.mean([one.real_regret for one in found])
    assert 0.7 <= np.mean([one.regret for one in found]) / lost <= 1.4


def test_without_another_study_the_literatures_factor_is_taken():
    (alone,) = forecasts([one for one in study("a", 1.0) if one.rank and one.alpha == 32])
    assert alone.log_rate == pytest.approx(-4.0, abs=0.02) and alone.found is None
