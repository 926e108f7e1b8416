"""The verb predict as a user calls it: which rows are answered, and how the table reads."""

import csv
import json

import pytest
from sklearn.metrics import accuracy_score, matthews_corrcoef

from tests.command_line import run, write_config


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_bert, cola_folder):
    """Config and runs folder of one finished run called `tiny`."""
    runs_dir = tmp_path_factory.mktemp("runs")
    config = write_config(runs_dir, tiny_bert, cola_folder)
    assert run("fit", config, runs_dir) == 0
    return config, runs_dir


def test_predictions_give_the_reported_test_figures(finished):
    config, runs_dir = finished
    assert run("predict", config, runs_dir, "--ckpt_path", "best") == 0
    lines = (runs_dir / "tiny" / "predictions.tsv").read_text().splitlines()
    rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    labels, predictions = ([row[name] for row in rows] for name in ("label", "prediction"))
    test = json.loads((runs_dir / "tiny" / "results.json").read_text())["test"]
    assert test["matthews_correlation"] == pytest.approx(matthews_corrcoef(labels, predictions), abs=1e-6)
    assert test["accuracy"] == pytest.approx(accuracy_score(labels, predictions), abs=1e-6)


def test_predict_takes_the_users_own_sentences(finished, tmp_path):
    config, runs_dir = finished
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("the cat sleeps\na bird sees not the very old dog\n")
    table = tmp_path / "out.tsv"
    options = ("--ckpt_path", "last", "--data.predict_file", str(sentences), "--output", str(table))
    assert run("predict", config, runs_dir, *options) == 0
    rows = list(csv.DictReader(table.read_text().splitlines(), delimiter="\t"))
    assert [row["sentence"] for row in rows] == sentences.read_text().splitlines()
    for row in rows:
        both = [float(row["probability_unacceptable"]), float(row["probability_acceptable"])]
        assert sum(both) == pytest.approx(1, abs=1e-5)
        assert row["prediction"] == ("acceptable" if both[1] > both[0] else "unacceptable")


@pytest.mark.parametrize("limit", [("limit_predict_batches", "2"), ("fast_dev_run", "true")])
def test_predict_answers_every_row_or_says_that_it_would_not(finished, tmp_path, capsys, limit):
    config, runs_dir = finished
    table = tmp_path / "out.tsv"
    options = ("--ckpt_path", "last", "--output", str(table), f"--trainer.{limit[0]}", limit[1])
    assert run("predict", config, runs_dir, *options) == 2
    assert f"trainer.{limit[0]} is" in capsys.readouterr().err
    assert not table.exists()
