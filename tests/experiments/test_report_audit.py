"""Planted faults in a fair study: the audit names each with its rows, and invents none."""

import dataclasses

import pytest

from experiments.report.audit import audit_table, method_table
from experiments.report.content import make_study
from experiments.report.sources import read_records
from tests.experiments import made_runs

SEEDS = (0, 1, 2)
HUMP = {1e-4: 0.70, 1e-3: 0.90, 1e-2: 0.60}


LESS_USED = {"requested": 1000.0, "used": 979.0}
PASSES = {"rule": "gradient", "rows": 512, "seconds": 3.0}


def parameters(**counts):
    return lambda results: results["trainable_parameters"].update(counts)


def curve(heights):
    return {rate: {seed: height + seed / 100 for seed in SEEDS} for rate, height in heights.items()}


def audited(folder, changes=None, ours=HUMP, rank=16, baseline="fixed"):
    """Fault -> rows of a study of two methods and full fine-tuning, where `changes` are made to the runs of ours."""
    curves = {"fixed": (16, curve(HUMP)), "ours": (rank, curve(ours)), "full": (None, curve(HUMP))}

    def change(trial):
        if changes and trial["method"] == "ours":
            changes(trial["results"])

    study = make_study(read_records([made_runs.write_rate_sweep(folder, curves, change=change)]), baseline)
    return dict(audit_table(study.groups, study.curves, study.compared, study.baseline).to_numpy().tolist())


@pytest.mark.parametrize("baseline", ["fixed", None])
def test_a_fair_study_is_passed_in_silence(tmp_path, baseline):
    assert audited(tmp_path / "fair", baseline=baseline) == {}
    within = audited(tmp_path / "within", parameters(adapter=1019))
    assert within == {}


@pytest.mark.parametrize(
    ("planted", "told", "rows"),
    [
        ({"ours": {1e-4: 0.7, 1e-3: 0.8, 1e-2: 0.9}}, "edge of its grid", "ours (0.01, upper edge)"),
        ({"ours": {1e-4: 0.7, **HUMP, 3e-2: 0.2}}, "more learning rates were tried", "ours (4)"),
        ({"changes": parameters(adapter=1021)}, "more than 2 % from the baseline's, 1,000", "ours rate 0.001 (1,021)"),
        (
            {"changes": lambda results: results.update(budget=LESS_USED)},
            "more than 2 % from the baseline's, 1,000",
            "ours rate 0.001 (979)",
        ),
        ({"changes": parameters(head=0)}, "a head is trained", "ours rate 0.001"),
        ({"changes": lambda results: results.update(factors=PASSES)}, "passes over data", "ours rate 0.001 (512 rows)"),
        ({"changes": lambda results: results.update(test=None)}, "no test figure", "ours rate 0.001"),
        (
            {"changes": lambda results: results["test"].update(accuracy=results["metric"]["best"])},
            "gives the validation's figures",
            "ours rate 0.001",
        ),
    ],
)
def test_a_planted_fault_is_caught_and_no_other_invented(tmp_path, planted, told, rows):
    ((fault, found),) = audited(tmp_path / "study", **planted).items()
    assert told in fault and found == rows


def test_the_baseline_at_an_edge_is_called_so_and_two_rates_have_no_middle(tmp_path):
    (rows,) = audited(tmp_path / "edge", ours={1e-4: 0.9, 1e-3: 0.8, 1e-2: 0.7}, baseline="ours").values()
    assert rows == "ours (0.0001, lower edge, the baseline)"
    found = audited(tmp_path / "two", ours={1e-4: 0.7, 1e-3: 0.8})
    assert set(found.values()) == {"ours (0.001, of two rates)", "fixed (3); full (3)"}


def test_settings_that_were_stopped_early_count_as_tried_and_are_never_chosen(tmp_path):
    heights = {**HUMP, 3e-2: 0.89}

    def stop(trial):
        """1e-2 at a quarter; 3e-2 with a lucky first seed, at its end."""
        seed = trial["results"]["seed"]
        if trial["method"] == "ours" and (trial["name"].startswith("ours-0.01") or ("0.03" in trial["name"] and seed)):
            trial.update(status="paused", results=None)
        elif "0.03" in trial["name"]:
            trial["results"]["metric"]["best"] = 0.95

    curves = {"ours": (16, curve(heights)), "fixed": (16, curve(HUMP))}
    study = make_study(read_records([made_runs.write_rate_sweep(tmp_path, curves, change=stop)]), "fixed")
    assert [group.setting("model.optimizer.learning_rate") for group in study.compared] == [1e-3, 1e-3]
    found = audit_table(study.groups, study.curves, study.compared, study.baseline).to_numpy().tolist()
    assert found == [["more learning rates were tried than for others, which had 3", "ours (4)"]]


def test_where_the_rank_is_studied_budgets_differ_rightly(tmp_path):
    curves = {"fixed": (16, curve(HUMP)), "full": (None, curve(HUMP))}
    folder = made_runs.write_rate_sweep(tmp_path / "ranks", curves)
    larger = lambda trial: parameters(adapter=4000)(trial["results"])  # noqa: E731
    wide = made_runs.write_rate_sweep(tmp_path / "wide", {"fixed": (64, curve(HUMP))}, change=larger)
    study = make_study(read_records([folder, wide]), None)
    assert audit_table(study.groups, study.curves, study.compared, None).empty


def test_names_are_told_by_adapter_and_by_the_settings_in_which_methods_differ(tmp_path):
    curves = {name: (16, {1e-3: {0: 0.7}, 1e-2: {0: 0.8}}) for name in ("plain", "steered")} | {
        "full": (None, {1e-4: {0: 0.9}})
    }
    shared = {"model.adapter.targets": "default"}
    records = [
        dataclasses.replace(one, config={**one.config, **shared, "model.adapter.factors": factors})
        for one in read_records([made_runs.write_rate_sweep(tmp_path, curves)])
        for factors in ({"plain": "svd", "steered": "gradient", "full": None}[one.method],)
    ]
    assert method_table(make_study(records, None).groups).to_numpy().tolist() == [
        ["plain", "LoRA", "factors svd"],
        ["steered", "LoRA", "factors gradient"],
        ["full", "full fine-tuning", ""],
    ]
    assert method_table(make_study(records[:2], None).groups).empty
