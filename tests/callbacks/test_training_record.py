"""The record of a fit, and what checkpoints hold of it."""

from dataclasses import asdict

import pytest
import torch

from callbacks.checkpoints import read_checkpoint
from callbacks.health import CollapseDetection
from callbacks.progress import TrainingLog
from callbacks.rank_logging import RankLogging
from callbacks.training_record import TrainingRecord
from callbacks.update_norms import UpdateNorms
from lora import AdaptiveLoRAXS
from tests import tiny


def fit(backbone, cola, epochs, **settings):
    torch.manual_seed(0)
    module = tiny.make_module(backbone, AdaptiveLoRAXS(1, 4, 2.5))
    trainer = tiny.make_trainer(TrainingLog(), CollapseDetection(), RankLogging(), UpdateNorms(), max_epochs=epochs)
    trainer.fit(module, datamodule=tiny.make_data(backbone, cola), **settings)
    return module, trainer


def kept(record) -> dict:
    return {k: v for k, v in asdict(record).items() if k not in ("diverged_at", "has_diverged", "step_loss")}


@pytest.fixture(scope="module")
def interrupted(tiny_bert, cola_folder, tmp_path_factory):
    """A module after one epoch, and its checkpoint."""
    module, trainer = fit(tiny_bert, cola_folder, 1)
    path = tmp_path_factory.mktemp("record") / "one.ckpt"
    trainer.save_checkpoint(path)
    return module, path


def test_every_part_survives_a_checkpoint():
    record = TrainingRecord(
        [0.5], True, [0], 3, [{"step": 0, "ranks": [1.0]}], {"total": 0.0}, {"total": 2.0}, diverged_at=7
    )
    checkpoint: dict = {"callbacks": {}}
    record.save(checkpoint)
    record.train_losses.append(0.25)  # the checkpoint is of the moment before
    again = TrainingRecord.of(checkpoint)
    assert kept(again) == kept(record) | {"train_losses": [0.5]}
    assert again.diverged_at is None


def test_a_new_fit_has_a_new_record_and_weights_alone_bring_none(tiny_bert, cola_folder, interrupted):
    module, path = interrupted
    before = module.record
    module.load_checkpoint(read_checkpoint(path))
    assert module.record is before
    tiny.make_trainer(TrainingLog()).fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))
    assert len(module.record.train_losses) == 1
    assert before.train_losses and module.record is not before
