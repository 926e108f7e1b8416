import json
import math
import time
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback

from callbacks.divergence import Divergence
from callbacks.health import CollapseDetection
from callbacks.progress import EpochLines
from callbacks.rank_logging import RankLogging
from callbacks.results import Results
from callbacks.training_log import TrainingLog
from callbacks.update_norms import UpdateNorms
from lora import AdaptiveLoRAXS, LoRAXS
from tests import tiny


def results(folder, values, name="val/accuracy") -> Results:
    """Results after epochs with these values of the metric; None for an epoch that wasn't validated."""
    made = Results(folder, "a_run", 7)
    for epoch, value in enumerate(values):
        made.validations.append({"epoch": epoch} | ({name: value} if value is not None else {}))
    return made


@pytest.mark.parametrize(
    ("values", "best", "epoch", "last"),
    [
        ([0.2, 0.6, 0.4], 0.6, 1, 0.4),
        ([0.6, 0.6, 0.6], 0.6, 0, 0.6),  # the first of equals, as best.ckpt has it
        ([-0.3, -0.1], -0.1, 1, -0.1),
        ([0.0], 0.0, 0, 0.0),
        ([None, 0.3, 0.2, None], 0.3, 1, None),
        ([], None, None, None),
        ([None], None, None, None),
    ],
)
def test_best_and_last_of_the_metric(tmp_path, values, best, epoch, last):
    module = SimpleNamespace(higher_is_better=True)
    assert results(tmp_path, values).metric(module, "val/accuracy") == {
        "name": "accuracy",
        "higher_is_better": True,
        "best": best,
        "best_epoch": epoch,
        "last": last,
    }


@pytest.mark.parametrize(
    ("values", "best", "epoch"),
    [
        ([30.0, 20.0, 25.0], 20.0, 1),
        ([20.0, 20.0], 20.0, 0),  # the first of equals, as best.ckpt has it
        ([math.nan, 31.0, None], 31.0, 1),
        ([math.nan], None, None),
    ],
)
def test_the_best_perplexity_is_the_smallest(tmp_path, values, best, epoch):
    module = SimpleNamespace(higher_is_better=False)
    metric = results(tmp_path, values, "val/perplexity").metric(module, "val/perplexity")
    assert (metric["name"], metric["best"], metric["best_epoch"]) == ("perplexity", best, epoch)
    assert metric["higher_is_better"] is False


@pytest.mark.parametrize(
    ("diverged_at", "shortfall", "collapsed", "status"),
    [
        (None, None, False, "finished"),
        (None, None, True, "collapsed"),
        (12, None, False, "diverged"),
        (12, "9 of 8", True, "diverged"),
        (None, "9 of 8", True, "budget_missed"),
    ],
)
def test_status(tmp_path, diverged_at, shortfall, collapsed, status):
    divergence, detection = Divergence(), CollapseDetection()
    divergence.diverged_at, detection.collapsed = diverged_at, collapsed
    trainer = SimpleNamespace(callbacks=[divergence, detection])
    module = SimpleNamespace(adapter=SimpleNamespace(shortfall=lambda: shortfall))
    assert results(tmp_path, []).status(trainer, module) == status
    if shortfall is None:
        assert results(tmp_path, []).status(trainer, SimpleNamespace(adapter=None)) == status


def test_figures_survive_a_checkpoint(tmp_path):
    before = results(tmp_path, [0.2, 0.6])
    before._counts, before._training_seconds, before._wall_seconds = {"rows": 80, "tokens": 500}, 12.0, 100.0
    again = results(tmp_path, [])
    again.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert again.validations == before.validations
    assert again._counts == {"rows": 80, "tokens": 500}
    assert again._training_seconds == 12.0
    assert 100.0 <= again.wall_seconds < 110.0


def test_every_code_that_trained_a_run_is_told(tmp_path, monkeypatch):
    versions = []
    state: dict = {}
    for code in ("aaa", "aaa", "bbb-dirty", None):  # resumed by the same code, by another, by one without a version
        monkeypatch.setattr("callbacks.results.code_version", lambda code=code: code)
        part = results(tmp_path, [])
        if state:
            part.load_state_dict(json.loads(json.dumps(state)))
        state = part.state_dict()
        versions.append(part._versions()["rankwise"])
    assert versions == ["aaa", "aaa", "aaa, then bbb-dirty", "aaa, then bbb-dirty"]


def run(backbone, cola, folder, adapter, epochs=2, **rates):
    """The summary of a real run."""
    torch.manual_seed(0)
    module, data = tiny.make_module(backbone, adapter, **rates), tiny.make_data(backbone, cola)
    made = Results(folder, "a_run", 7)
    log = TrainingLog(every_n_steps=1)
    trainer = tiny.make_trainer(
        made, log, Divergence(), CollapseDetection(), RankLogging(), UpdateNorms(), max_epochs=epochs
    )
    trainer.fit(module, datamodule=data)
    return made.summary(trainer, module), made, trainer, module


def test_the_summary_of_a_run(tiny_bert, cola_folder, tmp_path):
    adapter = AdaptiveLoRAXS(1, 4, 2.5, allocation="bounded")
    summary, made, trainer, module = run(tiny_bert, cola_folder, tmp_path, adapter)
    ranks = module.adapter.discrete_ranks()
    assert summary["data"] == {
        "name": "glue/cola",
        "train_rows": 40,
        "validation_rows": 12,
        "test_rows": 12,
        "truncated_rows": {"train": 0, "validation": 0, "test": 0},
    }
    assert (summary["run_name"], summary["seed"], summary["backbone"]) == ("a_run", 7, tiny_bert)
    assert summary["adapter"] == "AdaptiveLoRAXS"
    assert summary["metric"]["name"] == "matthews_correlation"
    assert summary["trainable_parameters"] == {"adapter": 128, "allocation": 8, "head": 34, "total": 170}
    assert summary["budget"] == {"requested": 50.0, "used": float(sum(rank**2 for rank in ranks.values()))}
    assert math.isclose(summary["average_rank"], sum(ranks.values()) / 8)
    assert len(summary["train_losses"]) == len(summary["val_losses"]) == len(summary["validations"]) == 2
    assert summary["best_val_loss"] == min(summary["val_losses"])
    assert summary["val_losses"][-1] == pytest.approx(float(trainer.callback_metrics["val/loss"]))
    assert summary["throughput"]["train_rows"] == 80  # two epochs of 40
    assert summary["throughput"]["train_samples_per_second"] == pytest.approx(80 / made._training_seconds)
    assert summary["status"] in ("finished", "collapsed")
    assert summary["peak_memory_bytes"] > 50e6


class Slow(Callback):
    """Makes steps and validation take a known time: 5 × 0.02 s per epoch, and 0.2 s."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        time.sleep(0.02)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        time.sleep(0.2)


@pytest.mark.parametrize("validation_batches", [0, 1])
def test_training_time_leaves_evaluation_out_and_needs_none(tiny_bert, cola_folder, tmp_path, validation_batches):
    module, data = tiny.make_module(tiny_bert, LoRAXS(4)), tiny.make_data(tiny_bert, cola_folder)
    made = Results(tmp_path, "a_run", 7)
    started = time.monotonic()
    trainer = tiny.make_trainer(made, Slow(), max_epochs=2, limit_val_batches=validation_batches)
    trainer.fit(module, datamodule=data)
    evaluating = 0.4 * validation_batches
    assert 0.2 <= made._training_seconds <= time.monotonic() - started - evaluating
    assert len(made.validations) == 2


def test_the_files_of_a_run(tiny_bert, cola_folder, tmp_path):
    adapter = AdaptiveLoRAXS(1, 4, 2.5)
    summary, made, trainer, module = run(tiny_bert, cola_folder, tmp_path, adapter)
    ranks = module.adapter.discrete_ranks()
    made.write(summary, trainer, module, ranks)
    assert {path.name for path in tmp_path.iterdir()} == {"ranks.json", "rank_map.png", "results.json"}
    written = json.loads((tmp_path / "ranks.json").read_text())
    assert written["layers"] == ranks
    assert [(moment["epoch"], moment["step"]) for moment in written["history"]] == [(0, 0), (0, 5), (1, 10)]
    assert all(len(moment["ranks"]) == 8 for moment in written["history"])
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(summary))


@pytest.mark.parametrize(("adapter", "rank"), [(lambda: LoRAXS(3), 3), (lambda: None, None)])
def test_without_allocation_there_is_no_budget(tiny_bert, cola_folder, tmp_path, adapter, rank):
    summary, made, trainer, module = run(tiny_bert, cola_folder, tmp_path, adapter(), epochs=1)
    assert (summary["budget"], summary["average_rank"]) == (None, rank)
    made.write(summary, trainer, module, {})
    assert {path.name for path in tmp_path.iterdir()} == {"ranks.json", "results.json"}


def test_training_loss_is_the_mean_over_the_rows_of_the_epoch(tiny_bert, cola_folder, tmp_path):
    losses = []

    class Loss(TrainingLog):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append((float(outputs["loss"]), batch["real_rows"]))

    module, data = tiny.make_module(tiny_bert, LoRAXS(4)), tiny.make_data(tiny_bert, cola_folder, batch_size=12)
    log = Loss()
    tiny.make_trainer(log).fit(module, datamodule=data)  # 12, 12, 12 and 4 rows
    assert [rows for _, rows in losses] == [12, 12, 12, 4]
    assert log.train_losses == [pytest.approx(sum(loss * rows for loss, rows in losses) / 40, rel=1e-5)]


class Logged(TrainingLog):
    """Keeps what would be logged."""

    def __init__(self):
        super().__init__(1)
        self.logged = []

    def _log(self, trainer, metrics):
        self.logged.append(metrics)


def test_the_logged_loss_is_that_of_the_global_batch_whatever_the_accumulation(tmp_path, tmp_path_factory):
    backbone = str(tiny.save_tiny_bert(tmp_path_factory.mktemp("still"), dropout=0.0))
    folder, curves = str(tiny.save_cola(tmp_path, train=41)), []
    for accumulate in (1, 4):  # the last of 41 rows is a batch alone: three of its four parts are empty
        torch.manual_seed(0)
        log, module = Logged(), tiny.make_module(backbone, LoRAXS(4))
        trainer = tiny.make_trainer(log, accumulate_grad_batches=accumulate, limit_val_batches=0)
        trainer.fit(module, datamodule=tiny.make_data(backbone, folder))
        curves.append([entry["train/loss"] for entry in log.logged[:-1]])
    assert len(curves[0]) == 6
    assert curves[1] == pytest.approx(curves[0], abs=1e-4)


def test_an_epoch_without_a_validation_has_no_figures_of_an_earlier_one(tiny_bert, cola_folder, tmp_path, capsys):
    made, module = Results(tmp_path, "a_run", 7), tiny.make_module(tiny_bert, LoRAXS(4))
    settings = {"max_epochs": 3, "check_val_every_n_epoch": 2, "num_sanity_val_steps": 1}
    log = TrainingLog()
    trainer = tiny.make_trainer(log, made, EpochLines(log), **settings)
    trainer.fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))
    assert [len(entry) > 1 for entry in made.validations] == [False, True, False]
    assert ["val loss" in line for line in capsys.readouterr().out.splitlines()] == [False, True, False]


def test_an_epoch_without_a_finite_loss_has_no_mean(tiny_bert, cola_folder, capsys):
    class Nothing(LoRAXS):
        def refresh(self):
            super().refresh()
            self.adapted_layers[0].core = self.adapted_layers[0].core * float("nan")

    log, module = Logged(), tiny.make_module(tiny_bert, Nothing(4))
    trainer = tiny.make_trainer(Divergence(), log, EpochLines(log), limit_val_batches=0)
    trainer.fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))
    assert [math.isnan(loss) for loss in log.train_losses] == [True]
    assert "train loss nan" in capsys.readouterr().out


def test_the_device_is_the_one_that_trained(tiny_bert, cola_folder, tmp_path, monkeypatch):
    """After training Lightning moves the module to the CPU: what it is on by then says nothing."""
    _, made, trainer, module = run(tiny_bert, cola_folder, tmp_path, LoRAXS(3), epochs=1)
    monkeypatch.setattr(type(trainer.strategy), "root_device", property(lambda strategy: torch.device("cuda:3")))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {torch.device("cuda:3"): 12345}.get)
    monkeypatch.setattr(torch.cuda, "get_device_name", {torch.device("cuda:3"): "a GPU"}.get)
    summary = made.summary(trainer, module)
    assert (summary["device"], summary["device_name"], summary["peak_memory_bytes"]) == ("cuda:3", "a GPU", 12345)
