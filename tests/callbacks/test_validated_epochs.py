"""Epochs that end without a validation are refused before the first step."""

import pytest

from callbacks.validated_epochs import ValidatedEpochs
from common.errors import InputError
from lora import LoRAXS
from tests import tiny


def fit(backbone, cola, **settings):
    trainer = tiny.make_trainer(ValidatedEpochs(), **settings)
    trainer.fit(tiny.make_module(backbone, LoRAXS(4)), datamodule=tiny.make_data(backbone, cola))
    return trainer


@pytest.mark.parametrize(
    "settings",
    [
        {"val_check_interval": 2},  # of 5 batches
        {"val_check_interval": 0.5},
        {"val_check_interval": "00:00:10:00"},
        {"val_check_interval": 5, "check_val_every_n_epoch": None},
    ],
)
def test_an_epochs_end_without_a_validation_is_refused(tiny_bert, cola_folder, settings):
    with pytest.raises(InputError, match="an epoch of 5 batches may end without a validation"):
        fit(tiny_bert, cola_folder, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"val_check_interval": 1},
        {"val_check_interval": 5},
        {"val_check_interval": 0.2},
        {"check_val_every_n_epoch": 2, "max_epochs": 2},
        {"val_check_interval": 0.5, "limit_val_batches": 0},
        {"val_check_interval": 2, "limit_train_batches": 4},
    ],
)
def test_other_intervals_train(tiny_bert, cola_folder, settings):
    trainer = fit(tiny_bert, cola_folder, **settings)
    assert trainer.global_step == trainer.max_epochs * trainer.num_training_batches
