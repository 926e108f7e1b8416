"""A run as an object: trained, found again, resumed, evaluated, predicted with and loaded, from Python and by name."""

import csv
import json
import shutil

import pytest
import torch
from sklearn.metrics import accuracy_score, matthews_corrcoef

import cli
from callbacks import checkpoints
from common.errors import InputError
from experiments.export_formats import ExportOptions
from experiments.results import RunResults
from experiments.run import Run
from lightning_modules.native_adapter import NativeAdapter
from tests.command_line import differences, outcome


@pytest.fixture(scope="module")
def trained(tmp_path_factory, finished_run):
    """A run called `tiny`, trained from Python with the config.yaml of a finished one, and what `train` gave back."""
    saved = finished_run[1] / "tiny" / "config.yaml"
    made = Run.new(str(saved), {"runs_dir": str(tmp_path_factory.mktemp("runs"))})
    return made, made.train()


def test_python_trains_what_the_command_line_trains_and_a_saved_config_runs_again_unchanged(trained, finished_run):
    made, results = trained
    assert differences(outcome(finished_run[1] / "tiny"), outcome(made.folder.path)) == []
    assert isinstance(results, RunResults)
    assert made.results.as_plain() == json.loads(json.dumps(results.as_plain()))


def test_an_opened_run_repeats_its_figures_and_takes_other_settings(trained, tmp_path):
    made, results = trained
    again = Run.open(str(made.folder.path), options=["--data.evaluation_batch_size", "3"])
    assert again.settings.values.data.init_args.evaluation_batch_size == 3
    assert again.settings.changed({"data.evaluation_batch_size": 64}).plain == made.settings.plain
    key = "matthews_correlation"
    assert again.evaluate("test")[f"test/{key}"] == pytest.approx(results.test[key], abs=1e-6)
    assert again.evaluate("validation", "last")[f"val/{key}"] == pytest.approx(results.metric.last, abs=1e-6)
    with pytest.raises(InputError, match="no row of the test split was evaluated"):
        Run.open(str(made.folder.path), options=["--trainer.limit_test_batches", "0"]).evaluate()
    table = again.predict("best", str(tmp_path / "table.tsv"))
    assert len(table.read_text().splitlines()) == 1 + results.data.test_rows
    loaded = again.load("best")
    assert loaded.epoch == results.metric.best_epoch
    assert loaded.metrics()[f"val/{key}"] == results.metric.best
    exported = again.export("native", tmp_path / "native", options=ExportOptions(without_head=True))
    native = NativeAdapter.read(exported)
    assert (native.lacks_head, set(native.layer_names)) == (True, set(loaded.module.adapter.layer_names))
    for kind, options in (("merged", ExportOptions(with_factors=True)), ("onnx", ExportOptions())):
        with pytest.raises(InputError, match=kind):
            again.export(kind, tmp_path / kind, options=options)
    with pytest.raises(InputError, match="already holds a run"):
        again.train()


def test_a_run_can_be_named_instead_of_described(trained, capsys):
    made, results = trained
    figure = f"{results.test['matthews_correlation']:.4f}"
    for named in ([str(made.folder.path)], ["tiny", "--runs_dir", str(made.folder.path.parent)]):
        assert cli.main(["test", *named]) == 0
        assert figure in capsys.readouterr().out
    assert cli.main(["validate", str(made.folder.path), "--ckpt_path", "last"]) == 0
    assert f"{results.metric.last:.4f}" in capsys.readouterr().out
    assert cli.main(["predict", str(made.folder.path), "--data.batch_size=4"]) == 0
    assert (made.folder.path / "predictions.tsv").is_file()
    assert cli.main(["test", str(made.folder.path.parent / "tinny")]) == 2
    assert "there is tiny" in capsys.readouterr().err
    assert cli.main(["test", str(made.folder.path), "--export", "x"]) == 2


def test_a_resumption_reads_each_checkpoint_once(trained, monkeypatch, tmp_path):
    shutil.copytree(trained[0].folder.path, tmp_path / "tiny")
    read: list[str] = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda path, **how: read.append(path.name) or load(path, **how))
    assert checkpoints.torch is torch
    longer = Run.open("tiny", str(tmp_path), ["--trainer.max_epochs", "4"])
    resumed = longer.resume()
    assert len(resumed.train_losses) == 4
    assert sorted(read) == ["best.ckpt", "last.ckpt"]


@pytest.mark.slow
def test_predictions_give_the_reported_test_figures(trained):
    made, results = trained
    lines = made.predict().read_text().splitlines()
    rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    labels, predictions = ([row[name] for row in rows] for name in ("label", "prediction"))
    test = results.test
    assert test["matthews_correlation"] == pytest.approx(matthews_corrcoef(labels, predictions), abs=1e-6)
    assert test["accuracy"] == pytest.approx(accuracy_score(labels, predictions), abs=1e-6)


@pytest.mark.parametrize("limit", [("limit_predict_batches", "2"), ("fast_dev_run", "true")])
def test_predict_answers_every_row_or_says_that_it_would_not(trained, tmp_path, capsys, limit):
    made, _ = trained
    table = tmp_path / "out.tsv"
    options = ("--ckpt_path", "last", "--output", str(table), f"--trainer.{limit[0]}", limit[1])
    assert cli.main(["predict", str(made.folder.path), *options]) == 2
    assert f"trainer.{limit[0]} is" in capsys.readouterr().err
    assert not table.exists()
