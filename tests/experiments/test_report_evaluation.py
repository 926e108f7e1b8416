"""A report's models loaded again: answers as `predict` gives them, and figures at budgets as exports have them."""

import csv
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix
from torch import tensor
from torchmetrics.functional.classification import binary_calibration_error

import cli
from experiments.report.content import PageTable, Paragraph, Pictures
from experiments.report.evaluation import Answered, answer_parts, answered, budget_curve, calibration_error, confusion
from experiments.report.record import read_run
from tests.command_line import run, write_config

CLASSES = ("bad", "good")


@pytest.fixture(scope="module")
def fixed_run(tmp_path_factory, tiny_bert, cola_folder):
    """The folder of a finished run of LoRA with rank 4."""
    runs_dir = tmp_path_factory.mktemp("fixed")
    adapter = {"class_path": "lora.LoRA", "init_args": {"rank": 4, "lora_alpha": 8}}
    config = write_config(runs_dir, tiny_bert, cola_folder, adapter)
    assert run("fit", config, runs_dir, "--trainer.max_epochs", "1") == 0
    return runs_dir / "tiny"


def made_answers(seed, generator):
    confidence = generator.uniform(0.5, 1, 300)
    rows = {"label": generator.integers(0, 2, 300), "answer": generator.integers(0, 2, 300), "confidence": confidence}
    rows |= {"loss": generator.exponential(1, 300), "text": [f"row {row}" for row in range(300)]}
    return Answered(seed, "test", pd.DataFrame(rows).rename_axis("row"), 300, CLASSES)


def test_answers_are_those_of_predict_with_the_loss_of_their_labels(fixed_run):
    folder = fixed_run
    assert cli.main(["predict", str(folder)]) == 0
    found = answered(read_run(folder))
    with (folder / "predictions.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert found.split == "test" and list(found.rows["text"]) == [row["sentence"] for row in rows]
    assert [found.classes[answer] for answer in found.rows["answer"]] == [row["prediction"] for row in rows]
    assert [found.classes[label] for label in found.rows["label"]] == [row["label"] for row in rows]
    losses = [-np.log(float(row[f"probability_{row['label']}"])) for row in rows]
    np.testing.assert_allclose(found.rows["loss"], losses, atol=1e-4)
    best = [max(float(row[f"probability_{name}"]) for name in found.classes) for row in rows]
    np.testing.assert_allclose(found.rows["confidence"], best, atol=1e-5)


def test_calibration_and_confusion_are_those_of_torchmetrics_and_scikit_learn():
    rows = made_answers(0, np.random.default_rng(0)).rows
    right = (rows["label"] == rows["answer"]).astype(int)
    expected = binary_calibration_error(tensor(rows["confidence"].to_numpy()), tensor(right.to_numpy()), n_bins=10)
    assert calibration_error(rows) == pytest.approx(float(expected), abs=1e-6)
    np.testing.assert_array_equal(confusion(rows, CLASSES), confusion_matrix(rows["label"], rows["answer"]))


def test_the_largest_losses_come_first_and_rows_that_seeds_answer_differently_are_counted():
    generator = np.random.default_rng(1)
    found = [made_answers(seed, generator) for seed in range(3)]
    parts = answer_parts(found, Pictures(None))
    hardest, between = (part.rows for part in parts if isinstance(part, PageTable))
    losses = np.mean([one.rows["loss"] for one in found], axis=0)
    assert list(hardest["Loss"]) == [f"{loss:.2f}" for loss in sorted(losses, reverse=True)[:12]]
    assert hardest["Text"][0] == f"row {losses.argmax()}"
    answers = np.array([one.rows["answer"] for one in found])
    differ = int((answers.min(axis=0) != answers.max(axis=0)).sum())
    assert any(f"Seeds answer {differ} of 300 rows" in part.text for part in parts if isinstance(part, Paragraph))
    assert all("(2)" in told and "(1)" in told for told in between["Answers of the seeds"])


@pytest.mark.slow
def test_the_metric_at_a_budget_is_that_of_the_export_cut_to_it(fixed_run, capsys):
    folder = fixed_run
    record = read_run(folder)
    used = record.results.trainable_parameters.adapter
    losses = budget_curve(record, [used, used // 4]).set_index("Budget")["loss"]
    best = record.results.validations[record.results.metric.best_epoch]["val/loss"]
    assert losses[used] == pytest.approx(best, abs=1e-5) and abs(losses[used // 4] - best) > 1e-4
    output = folder.parent / "cut"
    options = ["--format", "merged", "--budget", str(used // 4), "--output", str(output)]
    assert cli.main(["export", str(folder), *options]) == 0
    capsys.readouterr()
    assert cli.main(["validate", "--export", str(output)]) == 0
    told = next(line for line in capsys.readouterr().out.splitlines() if "loss" in line)
    assert float(told.replace("│", " ").split()[-1]) == pytest.approx(losses[used // 4], abs=1e-4)


@pytest.mark.slow
def test_a_report_of_one_run_answers_its_rows_and_draws_its_budgets(fixed_run, tmp_path):
    folder = fixed_run
    assert cli.main(["report", str(folder), "--budgets", "--output", str(tmp_path)]) == 0
    text = (tmp_path / "report.md").read_text()
    assert "12 test rows, answered again by the best checkpoint." in text and "One run of LoRA on" in text
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert {"confusion_and_calibration", "metric_against_budget"} <= names


@pytest.mark.parametrize("budget", [100_000_000, -1])
def test_a_budget_out_of_range_ends_with_one_message(fixed_run, tmp_path, capsys, budget):
    assert cli.main(["report", str(fixed_run), "--output", str(tmp_path / "page"), "--budgets", str(budget)]) == 2
    assert f"--budget is {budget:,}; allowed:" in capsys.readouterr().err
    assert not (tmp_path / "page").exists()


def test_a_run_without_checkpoints_still_has_its_report(fixed_run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(fixed_run, copy, ignore=shutil.ignore_patterns("checkpoints", "events*"))
    assert cli.main(["report", str(copy), "--output", str(tmp_path / "page")]) == 0
    assert "No row could be answered again" in (tmp_path / "page" / "report.md").read_text()
    assert cli.main(["report", str(copy), "--output", str(tmp_path / "page"), "--evaluate"]) == 2
    assert "there is no folder of that name" in capsys.readouterr().err
