"""A model answers with the classes it was trained on, in their order: with others every answer would be another one."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import cli
from tests import tiny
from tests.command_line import run, write_config

KINDS = ("native", "peft", "merged")
SWAPPED, ONE_MORE = ["kind 1", "kind 0"], ["kind 0", "kind 1", "kind 2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_bert) -> Path:
    """A runs folder with a run of one epoch, `tiny`, on a table of two classes, and its exports."""
    runs_dir = tmp_path_factory.mktemp("classes")
    data = tiny.save_table(runs_dir / "data")
    shutil.copy(data / "train.csv", data / "test.csv")
    adapter = {"class_path": "lora.LoRA", "init_args": {"rank": 2, "lora_alpha": 4}}
    config = write_config(runs_dir, tiny_bert, str(data), adapter)
    content = yaml.safe_load(config.read_text())
    table = {"data_dir": str(data), "batch_size": 8, "max_length": 32, "validation_fraction": 0.2}
    content["data"] = {"class_path": "datamodules.TableDataModule", "init_args": table}
    config.write_text(yaml.safe_dump(content))
    (runs_dir / "rows.txt").write_text("a cat sees a dog\nthe bird sleeps\n")  # any names go with them
    assert run("fit", config, runs_dir, "--trainer.max_epochs", "1") == 0
    for kind in KINDS:
        assert cli.main(["export", str(runs_dir / "tiny"), "--format", kind]) == 0
    return runs_dir


def calls(folder: Path) -> dict[str, list[str]]:
    """Every way of using the run's weights."""
    named, exports = str(folder / "tiny"), folder / "tiny" / "exports"
    rows = ["--data.predict_file", str(folder / "rows.txt")]
    fit = ["fit", "--config", str(folder / "tiny.yaml"), "--runs_dir", str(folder), "--trainer.max_epochs", "2"]
    found = {
        "validate": ["validate", named],
        "predict": ["predict", named, *rows],
        "export": ["export", named, "--format", "native", "--output", str(folder / "out")],
        "resume": [*fit, "--ckpt_path", "last"],
    }
    for kind in KINDS:
        found[f"validate {kind}"] = ["validate", "--export", str(exports / kind)]
    found["predict peft"] = ["predict", "--export", str(exports / "peft"), *rows]
    for kind in ("native", "peft"):
        found[f"start from {kind}"] = [*fit, "--run_name", kind, "--model.init_from", str(exports / kind)]
    return found


@pytest.mark.parametrize("use", calls(Path()))
def test_other_classes_are_refused_and_the_same_are_taken(trained, tmp_path, capsys, use):
    shutil.copytree(trained, tmp_path / "runs")
    call = calls(tmp_path / "runs")[use]
    for other in (SWAPPED, ONE_MORE) if use.startswith("validate") else (SWAPPED,):
        assert cli.main([*call, "--data.label_names", json.dumps(other)]) == 2, other
        message = capsys.readouterr().err
        assert "kind 0" in message or "weights that fit" in message, message
    assert use.startswith("predict ") or cli.main(call) == 0  # exports predict in the next test


def test_exports_answer_where_the_training_rows_are_not(trained, tmp_path):
    shutil.move(trained / "data", tmp_path / "data")
    try:
        for kind in KINDS:
            exported, rows = trained / "tiny" / "exports" / kind, trained / "rows.txt"
            assert cli.main(["predict", "--export", str(exported), "--data.predict_file", str(rows)]) == 0
            header = (exported / "predictions.tsv").read_text().splitlines()[0]
            assert {"probability_kind 0", "probability_kind 1"} < set(header.split("\t"))
    finally:
        shutil.move(tmp_path / "data", trained / "data")


def test_another_folders_classes_are_refused_though_they_are_as_many(trained, tmp_path, capsys):
    shutil.copytree(trained / "data", data := tmp_path / "data")
    table = (data / "train.csv").read_text()
    (data / "train.csv").write_text(table.replace("kind 0", "good").replace("kind 1", "bad"))
    assert cli.main(["validate", str(trained / "tiny"), "--data.data_dir", str(data)]) == 2
    assert "bad, good" in capsys.readouterr().err


def test_other_test_rows_are_said_at_a_resume_and_taken(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "runs")
    data = tmp_path / "runs" / "data"
    rows = (data / "train.csv").read_text().splitlines()
    (data / "test.csv").write_text("\n".join(rows[:11]) + "\n")
    call = calls(tmp_path / "runs")["resume"]
    assert cli.main([*call, "--data.data_dir", str(data)]) == 0
    assert "The test split isn't what it was" in capsys.readouterr().err
    results = json.loads((tmp_path / "runs" / "tiny" / "results.json").read_text())
    assert results["data"]["test_rows"] == 10
