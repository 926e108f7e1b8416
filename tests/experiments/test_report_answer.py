"""The sentences on top of a report, the cost figure and the regrets, over made runs whose differences are known."""

import numpy as np
import pytest
from scipy import stats

import cli
from experiments.report.answer import answer
from experiments.report.content import make_study
from experiments.report.figures_compared import cost_figure, regret_figure, regret_table, regrets
from experiments.report.sources import read_records
from tests.experiments import made_runs

FULL = {0: 0.90, 1: 0.91, 2: 0.92, 3: 0.90}
NEAR = {0: 0.89, 1: 0.905, 2: 0.915, 3: 0.895}
FAR = {0: 0.80, 1: 0.82, 2: 0.81, 3: 0.80}
ENTRIES = {"full": 1_000_000, "near": 2000, "far": 100}


def study_of(folder, curves, entries=ENTRIES, baseline=None, **changes):
    """Methods at one rate each, with this many adapter entries."""
    ranks = {name: None if name == "full" else 8 for name in curves}

    def change(trial):
        trial["results"]["trainable_parameters"]["adapter"] = entries.get(trial["method"], 1000)
        trial["results"] |= changes.get(trial["method"], {})

    rates = {name: (ranks[name], {1e-3: values}) for name, values in curves.items()}
    return make_study(read_records([made_runs.write_rate_sweep(folder, rates, change=change)]), baseline)


def test_a_difference_is_told_where_scipy_finds_one_and_named_worse(tmp_path):
    (first, regret) = answer(study_of(tmp_path, {"full": FULL, "near": NEAR, "far": FAR}, baseline="full"))
    interval = stats.ttest_1samp(100 * (np.array([*FAR.values()]) - [*FULL.values()]), 0).confidence_interval()
    assert f"[{interval.low:+.2f}, {interval.high:+.2f}]" in first
    assert first.startswith("Against full on the test split, shown to be worse: far")
    # the interval of near's 1.0, 0.5, 0.5 and 0.5 points ends just above 1
    assert "No adapter is shown to be within 1 point" in regret and "near (2,000 adapter parameters), regret" in regret


def test_an_adapter_is_near_only_where_the_whole_interval_is(tmp_path):
    close = {seed: value - 0.004 - 0.001 * (seed % 2) for seed, value in FULL.items()}
    told = answer(study_of(tmp_path / "close", {"full": FULL, "near": close}, baseline="full"))[-1]
    assert told.startswith("The smallest adapter shown to be within 1 point of full fine-tuning is near (2,000")
    told = answer(study_of(tmp_path / "far", {"full": FULL, "far": FAR}, baseline="full"))[-1]
    assert told.startswith("No adapter here comes within 1 point of full fine-tuning; the nearest is far (100")
    one = answer(study_of(tmp_path / "one", {"full": {0: 0.9}, "near": {0: 0.91}}, baseline="full"))[-1]
    assert one.startswith("No adapter is shown to be within 1 point") and "too few seeds" in one


@pytest.mark.parametrize("names", [("full", "weak_full"), ("weak_full", "full")])
def test_the_better_of_two_full_fine_tunings_is_what_adapters_are_measured_against(tmp_path, names):
    weak = {seed: value - 0.1 for seed, value in FULL.items()}
    curves = {name: FULL if name == "full" else weak for name in names} | {"near": NEAR}
    ranks = {name: None if "full" in name else 8 for name in curves}
    made_runs.write_rate_sweep(tmp_path, {name: (ranks[name], {1e-3: curves[name]}) for name in curves})
    (near,) = regrets(make_study(read_records([tmp_path]), None).compared)
    assert near.difference.mean == pytest.approx(100 * (np.array([*FULL.values()]) - [*NEAR.values()]).mean())


def test_without_a_shown_difference_there_is_no_winner(tmp_path):
    noisy = {0: 0.95, 1: 0.86, 2: 0.94, 3: 0.89}
    equal = dict.fromkeys(("full", "ours"), 1000)
    curves = {"full": FULL, "ours": noisy}
    told = answer(study_of(tmp_path / "a", curves, equal, baseline="full"))[0]
    assert told.startswith("At equal budget, no setting is shown to differ from full on the test split: the largest")
    told = answer(study_of(tmp_path / "b", curves, equal))[0]
    assert (
        told.startswith("The best median accuracy × 100 on the validation split is that of ours")
        and "isn't shown to differ" in told
    )


def test_two_seeds_are_too_few_for_an_interval_and_one_run_is_called_one_run(tmp_path):
    two = {0: 0.9, 1: 0.91}
    told = answer(study_of(tmp_path / "two", {"full": two, "far": {0: 0.5, 1: 0.51}}, baseline="full"))[0]
    assert "no setting is shown" in told.lower() and "too few seeds for an interval" in told
    assert answer(study_of(tmp_path / "one", {"near": {0: 0.9}}))[0].startswith(
        "One run of near on made/news: accuracy"
    )
    assert answer(study_of(tmp_path / "seeds", {"near": two}))[0].startswith("2 seeds of near on made/news: median")


def test_regrets_are_paired_differences_to_full_fine_tuning_at_its_own_best_rate(tmp_path):
    study = study_of(tmp_path, {"full": FULL, "near": NEAR, "far": FAR})
    found = regrets(study.compared)
    expected = {name: 100 * (np.array([*FULL.values()]) - [*ours.values()]) for name, ours in
                (("near", NEAR), ("far", FAR))}  # fmt: skip
    assert {one.label: pytest.approx(one.difference.mean) for one in found} == {
        name: values.mean() for name, values in expected.items()
    }
    assert list(regret_table(found)["Adapter entries"]) == ["100", "2,000"]
    axes = regret_figure(found).axes[0]
    drawn = {line.get_xdata()[0]: line.get_ydata()[0] for line in axes.lines if len(line.get_xdata()) == 1}
    assert drawn == {2000: pytest.approx(expected["near"].mean()), 100: pytest.approx(expected["far"].mean())}
    assert axes.get_xscale() == "log"
    assert regret_figure(regrets([group for group in study.compared if not group.is_full])) is None


def test_the_score_stands_against_entries_time_and_memory_and_a_collapse_at_the_edge(tmp_path):
    curves = {"full": FULL, "near": NEAR, "far": {0: 0.80, 1: 0.05}}
    study = study_of(tmp_path, curves, far={"status": "collapsed"})
    figure = cost_figure(study.compared)
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "adapter entries",
        "minutes, evaluation included",
        "peak memory, GiB",
    ]
    first = figure.axes[0]
    medians = {line.get_xdata()[0]: line.get_ydata()[0] for line in first.lines if line.get_marker() in "os^"}
    assert medians[1_000_000] == pytest.approx(100 * (np.median([*FULL.values()]) - 0.02))  # test figures
    assert first.get_ylim()[0] > 80  # far from the collapsed runs
    edge = [line for line in first.lines if line.get_marker() == "v" and line.get_ydata()[0] == first.get_ylim()[0]]
    assert {line.get_xdata()[0] for line in edge} == {100}


@pytest.mark.slow
def test_columns_that_say_the_same_become_a_line_and_one_run_a_list(tmp_path):
    made_runs.write_rate_sweep(tmp_path / "sweep", {"a": (8, {1e-3: {0: 0.5, 1: 0.6}}), "b": (8, {1e-3: {0: 0.7}})})
    assert cli.main(["report", str(tmp_path / "sweep")]) == 0
    text = (tmp_path / "sweep" / "report.md").read_text()
    assert "The same in all rows: Task news, LR 0.001, Rank Avg 8" in text and "| Method | Median ± Std |" in text
    run = tmp_path / "sweep" / "b-0.001-0"
    assert cli.main(["report", str(run), "--no-evaluate"]) == 0
    text = (run / "report.md").read_text()
    assert "| Best epoch | 70.00 |" in text and "| n |" not in text
    assert "| Task | news |" in text and "Median over" not in text and "seeds" not in text.split("## Data")[0]
