"""Update norms over a run: what is logged when, and what results.json gets."""

import pytest
import torch
from lightning.pytorch.loggers import Logger

from callbacks.update_norms import UpdateNorms
from lora import LoRA
from tests import tiny


class Log(Logger):
    """Keeps what is logged."""

    name = version = ""

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, {name: value for name, value in metrics.items() if name.startswith("update_norm/")}))

    def log_hyperparams(self, params, *args, **kwargs):
        pass


def run(backbone, cola, adapter, **settings):
    torch.manual_seed(0)
    log, module = Log(), tiny.make_module(backbone, adapter, learning_rate=1e-2)
    trainer = tiny.make_trainer(UpdateNorms(every_n_steps=2), logger=log, limit_val_batches=0, **settings)
    trainer.fit(module, datamodule=tiny.make_data(backbone, cola))
    return module, [row for row in log.rows if row[1]]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_norms_are_logged_before_the_first_step_and_at_the_interval(tiny_bert, cola_folder, accumulate):
    module, rows = run(tiny_bert, cola_folder, LoRA(2, 8.0), accumulate_grad_batches=accumulate)
    assert [step for step, _ in rows] == [0, 1, 3]
    names = {f"update_norm/{name}" for name in module.adapter.layer_names}
    assert all(set(row) == {*names, "update_norm/total", "update_norm/relative_total"} for _, row in rows)
    totals = [row["update_norm/total"] for _, row in rows]
    assert totals[0] == module.record.initial_norms["total"] == 0.0
    assert totals[-1] > 0.0


def test_the_summary_holds_the_norms_before_and_after_training(tiny_bert, cola_folder):
    module, _ = run(tiny_bert, cola_folder, LoRA(2, 8.0, initialization="both_gaussian"))
    summary, adapter = module.record.update_norms, module.adapter
    for name, A, B in zip(adapter.layer_names, adapter.A.values(), adapter.B.values(), strict=True):
        update = torch.linalg.matrix_norm(4.0 * B @ A).item()
        assert summary["final"]["layers"][name] == pytest.approx(update, rel=1e-4)
        frozen = torch.linalg.matrix_norm(module.model.get_submodule(name).base.weight).item()
        assert summary["final"]["relative_layers"][name] == pytest.approx(update / frozen, rel=1e-4)
    assert summary["initial"]["total"] > 1
    assert summary["initial"]["layers"] != summary["final"]["layers"]


def test_full_fine_tuning_has_no_norms(tiny_bert, cola_folder):
    module, rows = run(tiny_bert, cola_folder, None)
    assert module.record.update_norms is None
    assert rows == []
