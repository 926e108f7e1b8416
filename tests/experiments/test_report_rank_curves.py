"""The report's figures against the rank, over made runs whose every figure is known."""

import pytest
from numpy.testing import assert_allclose

import cli
from experiments.report.figures_rates import rank_curve_figure, rank_curve_table
from experiments.report.groups import make_groups
from experiments.report.sources import read_records
from tests.experiments import made_runs

SEPARATE = {2: (0.70, 0.72), 4: (0.80, 0.81), 8: (0.85, 0.87)}  # best figure of seeds 0 and 1; test is 0.02 lower
NESTED = {2: (0.60, 0.64), 8: (0.84, 0.86)}


def write_nested_run(folder, seed):
    settings = made_runs.config(1e-3, seed, 8)
    ranks = {"rank_min": 2, "rank_max": 8, "evaluated_ranks": list(NESTED)}
    settings["model"]["init_args"]["adapter"] = {"class_path": "lora.NestedLoRA", "init_args": ranks}
    curve = [
        {"rank": rank, "val/accuracy": best[seed], "val/loss": 0.5, "test/accuracy": best[seed] - 0.1}
        for rank, best in NESTED.items()
    ]
    outcome = made_runs.results(folder.name, seed, NESTED[8][seed], adapter="NestedLoRA", rank_curve=curve)
    made_runs.write_run(folder, settings, outcome)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for rank, best in SEPARATE.items():
        for seed in (0, 1):
            name = f"rank{rank}_seed{seed}"
            made_runs.write_run(
                folder / name, made_runs.config(1e-3, seed, rank), made_runs.results(name, seed, best[seed])
            )
    for seed in (0, 1):
        write_nested_run(folder / f"nested_seed{seed}", seed)
    return folder


def test_the_table_has_a_row_per_rank_and_no_figure_where_none_was_evaluated(runs):
    rows = rank_curve_table(make_groups(read_records([runs]))).set_index("Rank").to_dict("index")
    assert list(rows) == ["2", "4", "8"]
    assert rows["2"] == {
        "NestedLoRA, validation": "62.00 ± 2.83",
        "LoRA, validation": "71.00 ± 1.41",
        "NestedLoRA, test": "52.00 ± 2.83",
        "LoRA, test": "69.00 ± 1.41",
    }
    assert rows["4"]["NestedLoRA, validation"] == "none"
    assert rows["4"]["LoRA, validation"] == "80.50 ± 0.71"


def test_the_figure_shows_the_means_over_seeds(runs):
    figure = rank_curve_figure(make_groups(read_records([runs])))
    lines = {axes.get_title(): {line.get_label(): line.get_xydata() for line in axes.lines} for axes in figure.axes}
    assert_allclose(lines["validation"]["NestedLoRA"], [[2, 62], [8, 85]])
    assert_allclose(lines["validation"]["LoRA"], [[2, 71], [4, 80.5], [8, 86]])
    assert_allclose(lines["test"]["NestedLoRA"], [[2, 52], [8, 75]])
    assert_allclose(lines["test"]["LoRA"], [[2, 69], [4, 78.5], [8, 84]])


def test_swept_rates_are_compared_at_the_chosen_one(tmp_path):
    rates = {16: {1e-4: {0: 0.7}, 1e-3: {0: 0.9}}, 64: {1e-4: {0: 0.8}, 1e-3: {0: 0.6}}}
    trials = {f"rank_{rank}": (rank, by_rate) for rank, by_rate in rates.items()}
    folder = made_runs.write_rate_sweep(tmp_path / "rates", trials, change=lambda trial: trial.update(method="lora"))
    assert cli.main(["report", str(folder)]) == 0
    report = (folder / "report.md").read_text()
    assert "| 16 | 90.00 | 88.00 |\n| 64 | 80.00 | 78.00 |" in report
    assert "](figures/metric_against_rank.png)" in report
    assert (folder / "figures" / "metric_against_rank.png").exists()
    assert 'id="figure-metric_against_rank"' in (folder / "report.html").read_text()
