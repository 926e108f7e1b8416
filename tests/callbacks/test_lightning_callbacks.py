"""Lightning's own callbacks: refused where they break a run's meaning; what EarlyStopping stops stays stopped."""

import json

import pytest
from lightning.pytorch import callbacks

from common.errors import InputError
from tests import tiny
from tests.command_line import CrashError, differences, outcome, run, write_config

EARLY = {"monitor": "val/loss", "min_delta": 1e6, "patience": 1}  # stops after the second of three epochs


class Averages(callbacks.EMAWeightAveraging):
    pass


class Unfreezing(callbacks.BaseFinetuning):
    pass


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


def test_the_command_line_refuses_it_in_one_message_and_leaves_nothing(tiny_bert, cola_folder, tmp_path, capsys):
    config = write_config(tmp_path, tiny_bert, cola_folder)
    finder = json.dumps({"class_path": "lightning.pytorch.callbacks.BatchSizeFinder"})
    assert run("fit", config, tmp_path, f"--trainer.callbacks={finder}") == 2
    error = capsys.readouterr().err
    assert "holds a BatchSizeFinder" in error and "Traceback" not in error
    assert not (tmp_path / "tiny").exists()


def early(*others, **settings):
    stop = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {**EARLY, **settings}}
    return f"--trainer.callbacks={json.dumps([*others, stop])}"


@pytest.fixture(scope="module")
def config(tiny_bert, cola_folder, tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("config"), tiny_bert, cola_folder)


@pytest.mark.parametrize("settings", [{}, {"stopping_threshold": 1e6}])  # the second: after the first epoch
def test_a_run_that_was_stopped_early_is_trained_no_further(config, tmp_path, capsys, settings):
    assert run("fit", config, tmp_path, early(**settings)) == 0
    stopped = outcome(tmp_path / "tiny")
    epochs = 1 if settings else 2
    assert (
        len(stopped["results"]["val_losses"]) == epochs and stopped["checkpoints"]["last.ckpt"]["epoch"] == epochs - 1
    )
    capsys.readouterr()
    assert run("fit", config, tmp_path, early(**settings), "--ckpt_path", "last") == 0
    assert f"EarlyStopping stopped this run after epoch {epochs - 1}" in capsys.readouterr().out
    assert differences(stopped, outcome(tmp_path / "tiny")) == []


def test_more_patience_goes_on_and_ends_like_a_run_that_had_it(config, tmp_path):
    patient = (early(patience=9), "--trainer.max_epochs=4")
    assert run("fit", config, tmp_path / "whole", *patient) == 0
    assert run("fit", config, tmp_path / "parts", early(), "--trainer.max_epochs=4") == 0
    assert run("fit", config, tmp_path / "parts", *patient, "--ckpt_path", "last") == 0
    whole, parts = outcome(tmp_path / "whole" / "tiny"), outcome(tmp_path / "parts" / "tiny")
    assert len(parts["results"]["val_losses"]) == 4
    assert differences(whole, parts) == []


@pytest.mark.parametrize("step", [3, 8])
def test_a_killed_run_stops_where_an_undisturbed_one_does(config, tmp_path, step):
    crash = {"class_path": "tests.command_line.CrashAt", "init_args": {"hook": "batch_start", "step": step}}
    assert run("fit", config, tmp_path / "whole", early()) == 0
    with pytest.raises(CrashError):
        run("fit", config, tmp_path / "killed", early(crash), "--checkpoint_every_n_minutes=0")
    assert run("fit", config, tmp_path / "killed", early(), "--ckpt_path", "last") == 0
    assert differences(outcome(tmp_path / "whole" / "tiny"), outcome(tmp_path / "killed" / "tiny")) == []
