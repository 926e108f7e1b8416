"""Epochs that end within an accumulated step, or without a validation, are refused before the first step."""

import pytest

from callbacks.run_ends import ValidatedEpochs
from common.errors import InputError
from lora import LoRAXS
from tests import tiny


def fit(backbone, cola, **settings):
    trainer = tiny.make_trainer(ValidatedEpochs(), **settings)  # the module brings WholeSteps
    trainer.fit(tiny.make_module(backbone, LoRAXS(4)), datamodule=tiny.make_data(backbone, cola))
    return trainer


def test_an_epochs_end_without_a_validation_is_refused(tiny_bert, cola_folder):
    for interval in (2, 0.5, "00:00:10:00", 5):
        often = {"check_val_every_n_epoch": None} if interval == 5 else {}
        with pytest.raises(InputError, match="an epoch of 5 batches may end without a validation"):
            fit(tiny_bert, cola_folder, val_check_interval=interval, **often)


@pytest.mark.parametrize("limit", [3, 0.5])
def test_a_limit_within_an_accumulated_step_is_refused(tiny_bert, cola_folder, limit):
    with pytest.raises(InputError, match=r"leaves \d batches, and .*accumulate_grad_batches is 2.*a multiple of 2"):
        fit(tiny_bert, cola_folder, accumulate_grad_batches=2, limit_train_batches=limit)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        *(({"val_check_interval": interval}, 5) for interval in (1, 5, 0.2)),
        ({"check_val_every_n_epoch": 2, "max_epochs": 2}, 10),
        ({"val_check_interval": 0.5, "limit_val_batches": 0}, 5),
        ({"val_check_interval": 2, "limit_train_batches": 4}, 4),
        ({"limit_train_batches": 3}, 3),
        ({"accumulate_grad_batches": 2}, 5),  # the sampler fills the last step
        ({"accumulate_grad_batches": 2, "limit_train_batches": 4}, 2),
        ({"accumulate_grad_batches": 2, "fast_dev_run": 1}, 1),
    ],
)
def test_whole_epochs_train(tiny_bert, cola_folder, settings, steps):
    assert fit(tiny_bert, cola_folder, **settings).global_step == steps
