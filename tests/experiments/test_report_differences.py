"""The report's table of differences against SciPy's paired test, for every figure and for settings that lack seeds."""

import csv
import re

import pytest
from scipy import stats

import cli
from tests.experiments import made_runs

FIXED = {0: 0.50, 1: 0.52, 2: 0.51, 3: 0.49}
ADAPTIVE = {0: 0.53, 1: 0.51, 2: 0.55}
ALONE = {9: 0.60}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    curves = {"fixed": (16, {1e-3: FIXED}), "adaptive": (64, {1e-3: ADAPTIVE}), "alone": (32, {1e-3: ALONE})}
    folder = made_runs.write_rate_sweep(tmp_path_factory.mktemp("runs") / "pairs", curves)
    assert cli.main(["report", str(folder), "--baseline", "fixed", "--bootstrap"]) == 0
    return folder


def numbers(interval):
    return [float(number) for number in re.findall(r"[-+][\d.]+", interval)]


def test_every_figure_has_its_difference_with_both_intervals(report):
    rows = list(csv.DictReader((report / "differences.csv").read_text().splitlines()))
    assert [(row["Settings"], row["Figure"]) for row in rows] == [
        ("adaptive", "best epoch"),
        ("adaptive", "last epoch"),
        ("adaptive", "test"),
    ]
    ours, theirs = ([100 * values[seed] for seed in ADAPTIVE] for values in (ADAPTIVE, FIXED))
    test = stats.ttest_rel(ours, theirs)
    expected = test.confidence_interval(0.95)
    for row in rows:
        assert float(row["Mean difference"]) == pytest.approx(2.0, abs=0.01)
        assert numbers(row["95 % Student"]) == pytest.approx([expected.low, expected.high], abs=0.006)
        low, high = numbers(row["95 % bootstrap"])
        assert expected.low < low < 2.0 < high < expected.high
        assert row["Seeds in common"] == "3"
        p_values = [float(row[name]) for name in ("p", "p, Holm over 3")]
        assert p_values == pytest.approx([test.pvalue, min(1, 3 * test.pvalue)], rel=0.05)
        assert all(row["95 % Student"] in (report / f"report.{kind}").read_text() for kind in ("html", "md"))


@pytest.mark.slow
def test_without_a_seed_in_common_or_a_baseline_there_is_no_table(report, tmp_path):
    for options in (["--baseline", "alone"], []):
        output = tmp_path / f"page{len(options)}"
        assert cli.main(["report", str(report), "--output", str(output), *options]) == 0
        assert not (output / "differences.csv").exists()
        assert 'id="differences"' not in (output / "report.html").read_text()


@pytest.mark.slow
def test_a_method_is_a_baseline_at_the_rate_chosen_for_it(tmp_path):
    """A run that fell apart lowers a rate's mean, which chooses it, and not its median."""
    lora = {3e-4: {0: 0.80, 1: 0.81, 2: 0.82}, 1e-3: {0: 0.83, 1: 0.84, 2: 0.30}}
    ours = {3e-4: {0: 0.79, 1: 0.80, 2: 0.81}, 1e-3: {0: 0.70, 1: 0.70, 2: 0.70}}
    folder = made_runs.write_rate_sweep(tmp_path / "rates", {"lora": (16, lora), "ours": (64, ours)})
    assert cli.main(["report", str(folder), "--baseline", "lora"]) == 0
    rows = list(csv.DictReader((folder / "differences.csv").read_text().splitlines()))
    assert {row["Settings"] for row in rows} == {"ours rate 0.0003"}
    assert float(rows[0]["Mean difference"]) == pytest.approx(-1.0)
    assert cli.main(["report", str(folder), "--baseline", "lora rate 0.001"]) == 0  # a row's label is that row
    rows = list(csv.DictReader((folder / "differences.csv").read_text().splitlines()))
    assert float(rows[0]["Mean difference"]) == pytest.approx(100 * sum((-0.03, -0.03, 0.52)) / 3, abs=0.01)
