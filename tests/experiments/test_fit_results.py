"""What a fit came to: every figure against what the run itself says."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from jsonargparse import Namespace

from callbacks.divergence import Divergence
from callbacks.health import CollapseDetection
from callbacks.progress import TrainingLog
from callbacks.rank_logging import RankLogging
from callbacks.results import Results
from callbacks.update_norms import UpdateNorms
from experiments.fit_results import best_of, status, summarise, versions, write_files
from experiments.results import Metric
from lora import AdaptiveLoRAXS, LoRAXS
from tests import tiny

SETTINGS = Namespace(run_name="a_run", seed_everything=7)


@pytest.mark.parametrize(
    ("higher_is_better", "values", "best", "epoch", "last"),
    [
        (True, [0.2, 0.6, 0.4], 0.6, 1, 0.4),
        (True, [0.6, 0.6, 0.6], 0.6, 0, 0.6),  # the first of equals, as best.ckpt has it
        (True, [-0.3, -0.1], -0.1, 1, -0.1),
        (True, [0.0], 0.0, 0, 0.0),
        (True, [None, 0.3, 0.2, None], 0.3, 1, None),
        (True, [], None, None, None),
        (True, [None], None, None, None),
        (False, [30.0, 20.0, 25.0], 20.0, 1, 25.0),
        (False, [20.0, 20.0], 20.0, 0, 20.0),
        (False, [math.nan, 31.0, None], 31.0, 1, None),
        (False, [math.nan], None, None, None),
    ],
)
def test_best_and_last_of_the_metric(higher_is_better, values, best, epoch, last):
    validations = [{"epoch": place} | ({"val/f1": v} if v is not None else {}) for place, v in enumerate(values)]
    found = best_of(validations, "val/f1", higher_is_better)
    assert found == Metric(name="f1", higher_is_better=higher_is_better, best=best, best_epoch=epoch, last=last)


@pytest.mark.parametrize(
    ("diverged", "shortfall", "collapsed", "expected"),
    [
        (False, None, False, "finished"),
        (False, None, True, "collapsed"),
        (True, None, False, "diverged"),
        (True, "9 of 8", True, "diverged"),
        (False, "9 of 8", True, "budget_missed"),
    ],
)
def test_status(diverged, shortfall, collapsed, expected):
    adapter = SimpleNamespace(shortfall=lambda: shortfall)
    assert status(SimpleNamespace(adapter=adapter), diverged, collapsed) == expected
    if shortfall is None:
        assert status(SimpleNamespace(adapter=None), diverged, collapsed) == expected


def test_every_version_of_the_code_is_told():
    assert versions(["aaa", "bbb-dirty"])["rankwise"] == "aaa, then bbb-dirty"
    assert "rankwise" not in versions([])


def run(backbone, cola, adapter, epochs=2):
    """A real run and its results."""
    torch.manual_seed(0)
    module, data = tiny.make_module(backbone, adapter), tiny.make_data(backbone, cola)
    figures = Results()
    others = [TrainingLog(every_n_steps=1), Divergence(), CollapseDetection(), RankLogging(), UpdateNorms()]
    trainer = tiny.fit(module, data, figures, *others, max_epochs=epochs)
    return summarise(SETTINGS, figures, trainer, module), figures, trainer, module


def test_results_of_a_run_and_its_files(tiny_bert, cola_folder, tmp_path):
    results, figures, trainer, module = run(tiny_bert, cola_folder, AdaptiveLoRAXS(1, 4, 2.5, allocation="bounded"))
    ranks = module.adapter.discrete_ranks()
    written = results.as_plain()
    assert (results.run_name, results.seed, results.backbone) == ("a_run", 7, tiny_bert)
    assert results.adapter == "AdaptiveLoRAXS" and len(results.validations) == 2
    assert results.best_val_loss == min(results.val_losses)
    assert results.val_losses[-1] == pytest.approx(float(trainer.callback_metrics["val/loss"]))
    assert results.throughput.train_rows == 80  # two epochs of 40
    assert results.throughput.train_samples_per_second == pytest.approx(80 / figures.training_seconds)
    assert results.status in ("finished", "collapsed")
    assert results.peak_memory_bytes > 50e6
    write_files(tmp_path, results, ranks, module)
    assert {path.name for path in tmp_path.iterdir()} == {"ranks.json", "rank_map.png", "results.json"}
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(written))


@pytest.mark.parametrize(("adapter", "rank"), [(lambda: LoRAXS(3), 3), (lambda: None, None)])
def test_without_allocation_there_is_no_budget(tiny_bert, cola_folder, tmp_path, adapter, rank):
    results, _, _, module = run(tiny_bert, cola_folder, adapter(), epochs=1)
    assert (results.budget, results.average_rank) == (None, rank)
    write_files(tmp_path, results, {}, module)
    assert {path.name for path in tmp_path.iterdir()} == {"ranks.json", "results.json"}


def test_the_device_is_the_one_that_trained(tiny_bert, cola_folder, monkeypatch):
    """After training Lightning moves the module to the CPU: what it is on by then says nothing."""
    _, figures, trainer, module = run(tiny_bert, cola_folder, LoRAXS(3), epochs=1)
    monkeypatch.setattr(type(trainer.strategy), "root_device", property(lambda strategy: torch.device("cuda:3")))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {torch.device("cuda:3"): 12345}.get)
    monkeypatch.setattr(torch.cuda, "get_device_name", {torch.device("cuda:3"): "a GPU"}.get)
    results = summarise(SETTINGS, figures, trainer, module)
    assert (results.device, results.device_name, results.peak_memory_bytes) == ("cuda:3", "a GPU", 12345)
