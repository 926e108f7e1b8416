import json
import math
import time

import pytest
import torch

from callbacks.progress import EpochLines, TrainingLog
from callbacks.results import Results
from lora import LoRAXS
from tests import tiny


def test_figures_survive_a_checkpoint():
    before, again = Results(), Results()
    before.validations = [{"epoch": 0, "val/accuracy": 0.2}, {"epoch": 1}]
    before.train_rows, before.train_tokens = 80, 500
    before.training_seconds, before._wall_seconds = 12.0, 100.0
    again.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert again.validations == before.validations
    assert (again.train_rows, again.train_tokens, again.training_seconds) == (80, 500, 12.0)
    assert 100.0 <= again.wall_seconds < 110.0


def test_every_code_that_trained_a_run_is_told(monkeypatch):
    found, state = [], {}
    for code in ("aaa", "aaa", "bbb-dirty", None):  # resumed by the same code, by another, by one without a version
        monkeypatch.setattr("callbacks.results.code_version", lambda code=code: code)
        part = Results()
        if state:
            part.load_state_dict(json.loads(json.dumps(state)))
        state = part.state_dict()
        found.append(part.code)
    assert found == [["aaa"], ["aaa"], ["aaa", "bbb-dirty"], ["aaa", "bbb-dirty"]]


# Steps and validation take a known time: 5 × 0.02 s per epoch, and 0.2 s.
SLOW = (
    tiny.at("on_train_batch_start", lambda *_: time.sleep(0.02)),
    tiny.at("on_validation_batch_start", lambda *_: time.sleep(0.2)),
)


@pytest.mark.parametrize("validation_batches", [0, 1])
def test_training_time_leaves_evaluation_out_and_needs_none(tiny_bert, cola_folder, tmp_path, validation_batches):
    module, data = tiny.make_module(tiny_bert, LoRAXS(4)), tiny.make_data(tiny_bert, cola_folder)
    made = Results()
    started = time.monotonic()
    tiny.fit(module, data, made, *SLOW, max_epochs=2, limit_val_batches=validation_batches)
    evaluating = 0.4 * validation_batches
    assert 0.2 <= made.training_seconds <= time.monotonic() - started - evaluating
    assert len(made.validations) == 2


def test_training_loss_is_the_mean_over_the_rows_of_the_epoch(tiny_bert, cola_folder, tmp_path):
    losses = []

    class Loss(TrainingLog):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append((float(outputs["loss"]), batch["real_rows"]))

    module, data = tiny.make_module(tiny_bert, LoRAXS(4)), tiny.make_data(tiny_bert, cola_folder, batch_size=12)
    tiny.make_trainer(Loss()).fit(module, datamodule=data)  # 12, 12, 12 and 4 rows
    assert [rows for _, rows in losses] == [12, 12, 12, 4]
    assert module.record.train_losses == [pytest.approx(sum(loss * rows for loss, rows in losses) / 40, rel=1e-5)]


def test_the_logged_loss_is_that_of_the_global_batch_whatever_the_accumulation(tmp_path, tmp_path_factory):
    backbone = str(tiny.save_tiny_bert(tmp_path_factory.mktemp("still"), dropout=0.0))
    folder, curves = str(tiny.save_cola(tmp_path, train=41)), []
    for accumulate in (1, 4):  # the last of 41 rows is a batch alone: three of its four parts are empty
        torch.manual_seed(0)
        module, logged = tiny.make_module(backbone, LoRAXS(4)), []
        module.log_now = logged.append
        trainer = tiny.make_trainer(TrainingLog(1), accumulate_grad_batches=accumulate, limit_val_batches=0)
        trainer.fit(module, datamodule=tiny.make_data(backbone, folder))
        curves.append([entry["train/loss"] for entry in logged[:-1]])
    assert len(curves[0]) == 6
    assert curves[1] == pytest.approx(curves[0], abs=1e-4)


def test_an_epoch_without_a_validation_has_no_figures_of_an_earlier_one(tiny_bert, cola_folder, tmp_path, capsys):
    made, module = Results(), tiny.make_module(tiny_bert, LoRAXS(4))
    settings = {"max_epochs": 3, "check_val_every_n_epoch": 2, "num_sanity_val_steps": 1}
    tiny.fit(module, tiny.make_data(tiny_bert, cola_folder), TrainingLog(), made, EpochLines(), **settings)
    assert [len(entry) > 1 for entry in made.validations] == [False, True, False]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert ["val loss" in line for line in lines] == [False, True, False]


def test_an_epoch_without_a_finite_loss_has_no_mean(tiny_bert, cola_folder, capsys):
    class Nothing(LoRAXS):
        def refresh(self):
            super().refresh()
            self.adapted_layers[0].core = self.adapted_layers[0].core * float("nan")

    module = tiny.make_module(tiny_bert, Nothing(4))
    tiny.fit(module, tiny.make_data(tiny_bert, cola_folder), TrainingLog(), EpochLines(), limit_val_batches=0)
    assert [math.isnan(loss) for loss in module.record.train_losses] == [True]
    assert "train loss nan" in capsys.readouterr().out
