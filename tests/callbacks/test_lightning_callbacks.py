"""Lightning's own callbacks: refused where they break a run's meaning; what EarlyStopping stops stays stopped."""

import json
import shutil

import pytest
from lightning.pytorch import callbacks

from common.errors import InputError
from tests import tiny
from tests.command_line import CrashError, differences, outcome, run, write_config

EARLY = {"monitor": "val/loss", "min_delta": 1e6, "patience": 1}  # stops after the second of three epochs


Averages = type("Averages", (callbacks.EMAWeightAveraging,), {})
Unfreezing = type("Unfreezing", (callbacks.BaseFinetuning,), {})


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: callbacks.GradientAccumulationScheduler({0: 2}), "accumulate_grad_batches"),
        (callbacks.BatchSizeFinder, r"data\.batch_size"),
        (callbacks.LearningRateFinder, "sweep"),
        (lambda: callbacks.StochasticWeightAveraging(1e-3), "schedule"),
        (callbacks.WeightAveraging, "schedule"),
        (Averages, "schedule"),
        (lambda: callbacks.ModelPruning("l1_unstructured"), "AdaptiveLoRAXS"),
        (callbacks.BackboneFinetuning, "model.adapter"),
        (Unfreezing, "model.adapter"),
    ],
)
def test_a_callback_that_breaks_a_runs_meaning_is_refused(tiny_bert, cola_folder, make, advice):
    callback = make()
    module = tiny.make_module(tiny_bert)
    with pytest.raises(InputError, match=rf"holds a {type(callback).__name__}, .*{advice}"):
        tiny.make_trainer(callback).fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))
    assert module.model is None


@pytest.mark.parametrize("kind", [callbacks.EarlyStopping, callbacks.ModelCheckpoint])
def test_a_figure_that_no_validation_gives_is_refused_before_an_epoch_is_trained(tiny_bert, cola_folder, kind):
    module = tiny.make_module(tiny_bert)
    trainer = tiny.make_trainer(kind(monitor="val/none"), enable_checkpointing=True)
    with pytest.raises(InputError, match=r"monitor is 'val/none'.*val/matthews_correlation"):
        trainer.fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))
    assert module.model is None


def writer(kind="ModelCheckpoint", **settings):
    content = {"class_path": f"lightning.pytorch.callbacks.{kind}", "init_args": settings}
    return f"--trainer.callbacks={json.dumps([content])}"


def test_a_callback_that_writes_about_errors_writes_nothing_over_the_runs_own(tiny_bert, cola_folder, tmp_path, capsys):
    config, own = write_config(tmp_path, tiny_bert, cola_folder), tmp_path / "tiny" / "checkpoints"
    assert run("fit", config, tmp_path, writer("OnExceptionCheckpoint", dirpath=str(own), filename="last")) == 2
    assert f"OnExceptionCheckpoint that writes last.ckpt in {own}" in capsys.readouterr().err
    assert not own.exists()


@pytest.mark.parametrize("settings", [{"filename": "best"}, {"save_last": True}])
def test_a_callback_that_would_write_over_the_runs_own_checkpoints_is_refused(
    tiny_bert, cola_folder, tmp_path, settings, capsys
):
    config = write_config(tmp_path, tiny_bert, cola_folder)
    assert run("fit", config, tmp_path, writer(**settings)) == 2
    name = settings.get("filename", "last")
    assert f"ModelCheckpoint that writes {name}.ckpt in {tmp_path / 'tiny'}" in capsys.readouterr().err
    assert not (tmp_path / "tiny" / "checkpoints").exists()
    elsewhere = writer(**settings, dirpath=str(tmp_path / "mine"))
    assert run("fit", config, tmp_path, elsewhere, "--trainer.max_epochs=1") == 0
    assert (tmp_path / "mine" / f"{name}.ckpt").exists()


def early(*others, **settings):
    stop = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {**EARLY, **settings}}
    return f"--trainer.callbacks={json.dumps([*others, stop])}"


@pytest.fixture(scope="module")
def stopped(tiny_bert, cola_folder, tmp_path_factory):
    """A config, and the runs folder of a run that was stopped after its second epoch."""
    runs_dir = tmp_path_factory.mktemp("stopped")
    config = write_config(runs_dir, tiny_bert, cola_folder)
    assert run("fit", config, runs_dir, early(), "--trainer.max_epochs=4") == 0
    return config, runs_dir


@pytest.fixture
def copy(stopped, tmp_path):
    """The same in a folder of the test's own, and what it came to."""
    shutil.copytree(stopped[1] / "tiny", tmp_path / "tiny")
    return stopped[0], tmp_path, outcome(tmp_path / "tiny")


def test_a_run_that_was_stopped_early_is_trained_no_further(copy, capsys):
    config, runs_dir, expected = copy
    assert len(expected["results"]["val_losses"]) == 2 and expected["checkpoints"]["last.ckpt"]["epoch"] == 1
    assert run("fit", config, runs_dir, early(), "--trainer.max_epochs=4", "--ckpt_path", "last") == 0
    assert "EarlyStopping stopped this run after epoch 2" in capsys.readouterr().out
    assert differences(expected, outcome(runs_dir / "tiny")) == []


def test_more_patience_goes_on_and_ends_like_a_run_that_had_it(copy, tmp_path):
    config, runs_dir, _ = copy
    patient = (early(patience=9), "--trainer.max_epochs=4")
    assert run("fit", config, tmp_path / "whole", *patient) == 0
    assert run("fit", config, runs_dir, *patient, "--ckpt_path", "last") == 0
    whole, parts = outcome(tmp_path / "whole" / "tiny"), outcome(runs_dir / "tiny")
    assert len(parts["results"]["val_losses"]) == 4
    assert differences(whole, parts) == []


def test_a_killed_run_stops_where_an_undisturbed_one_does(copy, tmp_path):
    config, _, expected = copy
    crash = {"class_path": "tests.command_line.CrashAt", "init_args": {"hook": "batch_start", "step": 8}}
    killed = (tmp_path / "killed", "--trainer.max_epochs=4")
    with pytest.raises(CrashError):
        run("fit", config, *killed, early(crash), "--checkpoint_every_n_minutes=0")
    assert run("fit", config, *killed, early(), "--ckpt_path", "last") == 0
    assert differences(expected, outcome(tmp_path / "killed" / "tiny")) == []
