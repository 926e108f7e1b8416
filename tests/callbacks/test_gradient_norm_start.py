"""A rank allocation that starts from gradient norms."""

import pytest
import torch
from lightning.pytorch import Callback

from callbacks.divergence import Divergence
from callbacks.gradient_norm_start import GradientNormStart
from callbacks.rank_discretisation import RankDiscretisation
from common.errors import InputError
from lora import AdaptiveLoRAXS, LoRAXS
from tests import tiny


class Watch(Callback):
    """Notes R's gradients, and the weights each step begins with."""

    def __init__(self):
        self.gradients, self.weights = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.weights.append(pl_module.rank_allocation.weights.detach().clone())

    def on_after_backward(self, trainer, pl_module):
        self.gradients.append(pl_module.adapter.R.grad.clone())


def test_weights_become_the_standardised_logs_of_the_gradient_norms(tiny_bert, cola_folder):
    watch = Watch()
    module = tiny.make_module(tiny_bert, AdaptiveLoRAXS(1, 4, 2.0), allocation_learning_rate=0.0)
    trainer = tiny.make_trainer(watch, GradientNormStart(3), max_epochs=1)
    trainer.fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))
    norms = [
        sum(float((g[layer] ** 2).sum()) for g in watch.gradients[:3]) ** 0.5 for layer in range(len(module.adapter.R))
    ]
    logs = torch.tensor(norms).log()
    torch.testing.assert_close(watch.weights[3], (logs - logs.mean()) / logs.std(), rtol=1e-4, atol=1e-5)
    assert torch.equal(watch.weights[0], watch.weights[2])
    assert not torch.equal(watch.weights[2], watch.weights[3])
    assert torch.equal(watch.weights[3], watch.weights[-1])


def test_a_step_that_was_left_out_does_not_count(tiny_bert, cola_folder):
    class Spoil(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 1:
                batch["weights"] = batch["weights"] * float("nan")

    watch = Watch()
    module = tiny.make_module(tiny_bert, AdaptiveLoRAXS(1, 4, 2.0), allocation_learning_rate=0.0)
    trainer = tiny.make_trainer(Spoil(), watch, GradientNormStart(3), Divergence(skip_at_most=1), max_epochs=1)
    trainer.fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))
    logs = sum((watch.gradients[step] ** 2).sum(dim=(1, 2)) for step in (0, 2)).sqrt().log()
    torch.testing.assert_close(watch.weights[3], (logs - logs.mean()) / logs.std(), rtol=1e-4, atol=1e-5)


def test_a_single_layer_gets_a_weight_of_zero(tiny_bert, cola_folder):
    adapter = AdaptiveLoRAXS(1, 4, 2.0, targets=["layer.0.attention.self.query"])
    module = tiny.make_module(tiny_bert, adapter, allocation_learning_rate=0.0)
    trainer = tiny.make_trainer(GradientNormStart(3), max_epochs=1)
    trainer.fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))
    assert module.rank_allocation.weights.tolist() == [0.0]


@pytest.mark.parametrize(("steps", "discrete", "soft"), [(11, 0, 10), (6, 1, 5), (1, 2, 0)])
def test_more_steps_than_train_soft_masks_are_refused(tiny_bert, cola_folder, steps, discrete, soft):
    module = tiny.make_module(tiny_bert, AdaptiveLoRAXS(1, 4, 2.0))
    trainer = tiny.make_trainer(GradientNormStart(steps), RankDiscretisation(discrete), max_epochs=2)
    with pytest.raises(InputError, match=f"steps is {steps}, but only {soft} steps train soft masks"):
        trainer.fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))


def test_sums_travel_with_the_checkpoint():
    first, second = GradientNormStart(4), GradientNormStart(4)
    first._squares = torch.tensor([1.0, 2.0])
    second.load_state_dict(first.state_dict())
    assert torch.equal(second._squares, torch.tensor([1.0, 2.0]))


def test_it_needs_an_allocation_over_cores_and_a_step(tiny_bert, cola_folder):
    with pytest.raises(InputError, match="steps is 0; allowed: 1 or more"):
        GradientNormStart(0)
    module = tiny.make_module(tiny_bert, LoRAXS(4))
    with pytest.raises(InputError, match=r"GradientNormStart is given with the adapter LoRAXS"):
        tiny.make_trainer(GradientNormStart(3), max_epochs=1).fit(
            module, datamodule=tiny.make_data(tiny_bert, cola_folder)
        )
