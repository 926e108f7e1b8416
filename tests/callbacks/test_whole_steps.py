"""Epochs that end within an accumulated step are refused before the first one."""

import pytest

from callbacks.whole_steps import WholeSteps
from common.errors import InputError
from lora import LoRAXS
from tests import tiny


def fit(backbone, cola, **settings):
    trainer = tiny.make_trainer(WholeSteps(), **settings)
    trainer.fit(tiny.make_module(backbone, LoRAXS(4)), datamodule=tiny.make_data(backbone, cola))
    return trainer.global_step


@pytest.mark.parametrize("limit", [3, 0.5])
def test_a_limit_within_an_accumulated_step_is_refused(tiny_bert, cola_folder, limit):
    with pytest.raises(InputError, match=r"leaves \d batches, and .*accumulate_grad_batches is 2.*a multiple of 2"):
        fit(tiny_bert, cola_folder, accumulate_grad_batches=2, limit_train_batches=limit)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"limit_train_batches": 4}, 2),
        ({}, 5),  # the sampler fills the last step
        ({"limit_train_batches": 3, "accumulate_grad_batches": 1}, 3),
        ({"fast_dev_run": 1}, 1),
    ],
)
def test_whole_steps_pass(tiny_bert, cola_folder, settings, steps):
    assert fit(tiny_bert, cola_folder, **{"accumulate_grad_batches": 2} | settings) == steps
