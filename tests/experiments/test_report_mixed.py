"""Reports over runs that weren't made alike: nothing is pooled, paired or compared without a word."""

import csv
import shlex
import statistics

import numpy as np
import pytest

import cli
from experiments.report.groups import make_groups
from experiments.report.sources import read_records
from tests.experiments import made_runs


def write(folder, runs):
    """Runs as (seed, best figure, changes of results.json, changes of the optimizer's settings)."""
    for number, (seed, best, changes, settings) in enumerate(runs):
        config = made_runs.config(1e-3, seed, 8)
        config["model"]["init_args"]["optimizer"] |= settings
        made_runs.write_run(folder / f"run{number}", config, made_runs.results(f"run{number}", seed, best, **changes))
    return folder


def rows(folder):
    return list(csv.DictReader((folder / "table.csv").read_text().splitlines()))


def test_a_missed_budget_is_counted_and_explained(tmp_path):
    write(tmp_path, [(0, 0.5, {"status": "budget_missed", "average_rank": 9.5}, {}), (1, 0.6, {}, {})])
    assert cli.main(["report", str(tmp_path)]) == 0
    assert rows(tmp_path)[0]["Status"] == "1 finished, 1 budget_missed"
    text = (tmp_path / "report.md").read_text()
    assert "| run0 | budget_missed | AdaLoRA ended with other ranks than its target: 9.5 on average |" in text


@pytest.mark.slow
def test_a_seed_that_was_run_twice_counts_once_with_its_mean_and_is_named(tmp_path):
    ours = {0: (0.60, 0.80), 1: (0.70,), 2: (0.64,)}
    theirs = {0: (0.50,), 1: (0.55,), 2: (0.61,)}
    runs = [(seed, value, {}, {"weight_decay": decay}) for decay, made in ((0.0, ours), (0.1, theirs))
            for seed, values in made.items() for value in values]  # fmt: skip
    write(tmp_path, runs)
    assert cli.main(["report", str(tmp_path), "--baseline", "LoRA weight decay 0.1"]) == 0
    row = next(row for row in rows(tmp_path) if row["Method"] == "LoRA weight decay 0")
    means = {seed: 100 * statistics.mean(values) for seed, values in ours.items()}
    expected = f"{statistics.median(means.values()):.2f} ± {statistics.stdev(means.values()):.2f}"
    assert (row["n"], row["Median ± Std"], row["Status"]) == ("3", expected, "4 finished")
    difference = np.mean([means[seed] - 100 * theirs[seed][0] for seed in means])
    assert row["Difference to baseline"].startswith(f"{difference:+.2f} [")
    text = (tmp_path / "report.md").read_text()
    assert "| LoRA weight decay 0 | seed 0 | run 2 times, counted once with the mean: " in text
    assert "| LoRA weight decay 0.1 | seed" not in text


def test_runs_of_another_metric_are_never_one_row(tmp_path):
    write(tmp_path, [(0, 0.5, {}, {}), (1, 0.7, {}, {}), (0, 20.0, {"metric": "perplexity"}, {})])
    assert [(group.label, len(group.records)) for group in make_groups(read_records([tmp_path]))] == [
        ("LoRA (accuracy)", 2),
        ("LoRA (perplexity)", 1),
    ]


@pytest.mark.parametrize("rates", [(1e-3, 1e-3), (1e-3, 2e-3)], ids=["alike", "at other rates"])
def test_rows_that_only_an_older_files_silence_sets_apart_say_so(tmp_path, rates):
    older = {"learning_rate": rates[0]}
    newer = {"learning_rate": rates[1], "weight_decay": 0.0, "nesterov": False}
    write(tmp_path, [(0, 0.5, {}, older), (1, 0.6, {}, newer), (2, 0.7, {}, newer)])
    assert cli.main(["report", str(tmp_path)]) == 0
    assert len(rows(tmp_path)) == 2
    text = (tmp_path / "report.md").read_text()
    told = "made alike. The settings: model.optimizer.nesterov, model.optimizer.weight_decay."
    assert (told in text) == (rates[0] == rates[1])


def test_a_row_whose_runs_had_other_data_or_versions_says_so(tmp_path):
    other = {"data": {"name": "made/news", "train_rows": 90, "validation_rows": 20, "test_rows": 20}}
    newer = {"versions": {"python": "3.11", "torch": "2.14.0"}}
    write(tmp_path, [(0, 0.5, {}, {}), (1, 0.6, other, {}), (2, 0.7, newer, {})])
    assert cli.main(["report", str(tmp_path)]) == 0
    text, page = (tmp_path / name for name in ("report.md", "report.html"))
    for part in (
        "torch version | 2.13.0 (seed 0, 1); 2.14.0 (seed 2)",
        "90 train, 20 validation, 20 test rows (seed 1)",
    ):
        assert f"{part} |" in text.read_text()
    assert "2.13.0 (2 runs); 2.14.0 (1 run)" in text.read_text()  # where the versions are listed
    assert "Some rows mix runs" in page.read_text()


@pytest.mark.slow
def test_runs_measured_otherwise_are_told_apart_and_never_subtracted(tmp_path):
    words = {"data": {"name": "made/words", "train_rows": 9, "validation_rows": 7, "test_rows": 7}}
    runs = [(seed, 0.5 + seed / 10, {}, {"weight_decay": decay}) for seed in (0, 1) for decay in (0.0, 0.1)]
    changes = {"metric": "perplexity", **words}
    runs += [(seed, 20.0 + seed, changes, {"weight_decay": 0.2}) for seed in (0, 1)]
    assert cli.main(["report", str(write(tmp_path, runs)), "--baseline", "LoRA weight decay 0"]) == 0
    found = {row["Method"]: row for row in rows(tmp_path)}
    assert found["LoRA weight decay 0.2"]["Difference to baseline"] == "other data or metric"
    assert found["LoRA weight decay 0.1"]["Difference to baseline"] == "+0.00 (2 pairs)"
    page = (tmp_path / "report.html").read_text()
    for part in (
        "perplexity on made/words (7 rows)",
        "accuracy × 100 (higher is better) and perplexity (lower is better)",
    ):
        assert part in page
    assert "no setting is shown to differ from LoRA weight decay 0" in page


@pytest.mark.slow
def test_the_ratio_is_to_full_fine_tuning_on_the_same_data(tmp_path):
    def curve(best):
        return {rate: {0: 0.9 - 0.04 * np.log10(rate / best) ** 2} for rate in (1e-5, 1e-4, 1e-3, 1e-2)}

    kinds = {"news": {"lora": (8, curve(1e-3)), "full": (None, curve(1e-4))}, "words": {"lora": (8, curve(5e-4))}}
    for name, curves in kinds.items():
        folder = made_runs.write_rate_sweep(
            tmp_path / name, curves, change=lambda trial, name=name: trial["results"]["data"].update(name=name)
        )
        for config in folder.glob("*/config.yaml"):
            config.write_text(config.read_text().replace("made.News", f"made.{name}"))
    assert cli.main(["report", *(str(tmp_path / name) for name in kinds), "--output", str(tmp_path / "page")]) == 0
    lines = (tmp_path / "page" / "report.md").read_text().splitlines()
    assert next(line for line in lines if "made.news | 4 |" in line and "lora" in line).endswith("| 10× |")
    assert next(line for line in lines if "made.words | 4 |" in line).endswith(
        "| unknown (no full fine-tuning on the same data and backbone) |"
    )


@pytest.mark.slow
def test_a_curve_whose_rates_have_other_seeds_says_so(tmp_path):
    whole = {1e-4: {0: 0.5, 1: 0.7}, 1e-3: {0: 0.6, 1: 0.8}, 1e-2: {0: 0.5, 1: 0.7}}
    lacking = {**whole, 1e-2: {0: 0.5}}
    made_runs.write_rate_sweep(tmp_path / "sweep", {"whole": (8, whole), "lacking": (16, lacking)})
    assert cli.main(["report", str(tmp_path / "sweep")]) == 0
    lines = (tmp_path / "sweep" / "report.md").read_text().splitlines()
    told = {name: any(line.startswith(f"| {name} |") and "different seeds" in line for line in lines)
            for name in ("whole", "lacking")}  # fmt: skip
    assert told == {"whole": False, "lacking": True}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"weight_decay": 0.12345678}, {"weight_decay": 0.12345679}, "LoRA weight decay 0.12345678"),
        ({"note": "a" * 50 + "b" * 40}, {"note": "c" * 50 + "b" * 40}, f"LoRA note '{'a' * 50}{'b' * 40}'"),
        ({"a": {"kind": 1}, "b": {"kind": 2}}, {"a": {"kind": 3}, "b": {"kind": 4}}, "LoRA a kind 1 b kind 2"),
    ],
)
def test_no_two_rows_have_one_name(tmp_path, one, other, expected):
    labels = [
        group.label for group in make_groups(read_records([write(tmp_path, [(0, 0.5, {}, one), (0, 0.6, {}, other)])]))
    ]
    assert labels[0] == expected and len(set(labels)) == 2


@pytest.mark.slow
def test_the_commands_on_the_page_make_it_again(tmp_path):
    folder = write(tmp_path / "my runs", [(0, 0.5, {}, {}), (1, 0.6, {}, {})])
    command = ["report", str(folder), "--baseline", "LoRA"]
    assert cli.main(command) == 0
    first = (folder / "report.md").read_bytes()
    lines = [shlex.split(line) for line in first.decode().splitlines() if line.startswith("python cli.py")]
    assert lines[0][2:] == command
    assert lines[1][2:5] == ["fit", "--config", str(folder / "run0" / "config.yaml")]
    assert cli.main(lines[0][2:]) == 0
    assert (folder / "report.md").read_bytes() == first


def test_the_allocations_rate_has_a_column_of_its_own(tmp_path):
    outcome = made_runs.results("run0", 0, 0.5, adapter="AdaptiveLoRAXS")
    made_runs.write_run(tmp_path / "run0", made_runs.adaptive_config(0), outcome)
    write(tmp_path / "fixed", [(0, 0.6, {}, {})])
    assert cli.main(["report", str(tmp_path / "run0"), str(tmp_path / "fixed"), "--output", str(tmp_path)]) == 0
    rates = {row["Used rank"] + row["Rank Max"]: (row["LR"], row["Allocation LR"]) for row in rows(tmp_path)}
    assert rates == {"88": ("0.001", "0.02"), "8": ("0.001", "")}


@pytest.mark.parametrize(
    ("adapter", "used", "schedule", "expected"),
    [
        ("AdaptiveLoRAXS", 96 * 20.5**2, {"memory_start": 153600, "memory_end": 38400}, "40 → 20"),
        ("AdaptiveLoRA", 96 * 20.5, {"memory_start": 96 * 40, "memory_end": 96 * 20}, "40 → 20"),
        ("AdaptiveLoRAXS", 96 * 20.5**2, {"memory_start": 38400, "memory_end": 38400}, "20"),
        ("AdaptiveLoRAXS", None, {"memory_start": 153600, "memory_end": 38400}, "budget 153,600 → 38,400"),
        ("AdaptiveLoRAXS", 96 * 20.5**2, {"memory_start": None, "memory_end": None}, "5"),
    ],
)
def test_the_average_rank_is_that_of_the_budget_trained_with(tmp_path, adapter, used, schedule, expected):
    """96 layers of area r² or r; rank_average, which the adapter has as well, says another one."""
    config = {**made_runs.adaptive_config(0), "budget_schedule": schedule}
    budget = None if used is None else {"requested": 1.0, "used": used}
    outcome = made_runs.results("run0", 0, 0.5, adapter=adapter, budget=budget, equal_area_rank=used and 20.5)
    made_runs.write_run(tmp_path / "run0", config, outcome)
    assert cli.main(["report", str(tmp_path)]) == 0
    assert rows(tmp_path)[0]["Rank Avg"] == expected
