import math

import pytest
import torch
from lightning.pytorch import Callback

from callbacks.alpha_growth import AlphaGrowth
from callbacks.budget_schedule import BudgetSchedule
from callbacks.rank_discretisation import RankDiscretisation
from lora import AdaptiveLoRAXS
from tests import tiny

STEPS = 5  # per epoch


class Phases(Callback):
    """Notes which masks are used, the weights and their Adam momentum, step by step."""

    def __init__(self):
        self.training, self.validation, self.weights, self.momenta = [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        allocation = pl_module.rank_allocation
        self.training.append(hard(pl_module))
        self.weights.append(allocation.weights.detach().clone())
        state = trainer.optimizers[0].state[allocation.weights]
        self.momenta.append(state["exp_avg"].clone() if state else None)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.validation.append(hard(pl_module))


def hard(pl_module) -> bool:
    """Whether the cores in use are R cut to the discrete rank: read from the layers, not from the phase."""
    adapter = pl_module.adapter
    layers = [module for module in pl_module.model.modules() if type(module).__name__ == "LoRAXSLinear"]
    expected = torch.zeros(len(layers), 4, 4)
    for layer, rank in enumerate(adapter.discrete_ranks().values()):
        expected[layer, :rank, :rank] = 1
    used = torch.stack([layer.core.detach() for layer in layers]) != 0
    return torch.equal(used, expected.bool())


def fit(backbone, cola, discretisation, *callbacks, epochs=3, **settings):
    torch.manual_seed(0)
    adapter = AdaptiveLoRAXS(1, 4, 2.5, allocation="bounded", initial_std=0.1)
    module = tiny.make_module(backbone, adapter, learning_rate=1e-2, allocation_learning_rate=0.05)
    phases = Phases()
    trainer = tiny.make_trainer(*callbacks, AlphaGrowth(), discretisation, phases, **{"max_epochs": epochs, **settings})
    trainer.fit(module, datamodule=tiny.make_data(backbone, cola))
    return module, phases, trainer


@pytest.mark.parametrize(("last", "soft_epochs"), [(0, 3), (1, 2), (9, 0)])
def test_masks_are_soft_in_training_and_hard_in_validation_and_in_the_last_epochs(
    tiny_bert, cola_folder, last, soft_epochs
):
    module, phases, _ = fit(tiny_bert, cola_folder, RankDiscretisation(last))
    assert phases.training == [False] * STEPS * soft_epochs + [True] * STEPS * (3 - soft_epochs)
    assert phases.validation == [True] * 3
    assert module.rank_allocation.is_discrete == (soft_epochs < 3)
    _, phases, _ = fit(tiny_bert, cola_folder, RankDiscretisation(last), val_check_interval=2)  # within epochs
    assert phases.training == [False] * STEPS * soft_epochs + [True] * STEPS * (3 - soft_epochs)
    assert phases.validation == [True] * 6


def test_ranks_that_are_discrete_from_the_start_follow_the_schedules_budget(tiny_bert, cola_folder):
    used = tiny.notes(lambda module: float(module.rank_allocation.masks().detach().sum()), "on_train_batch_end")
    for sanity in (0, 1):
        schedule = BudgetSchedule(100.0, 100.0)
        fit(tiny_bert, cola_folder, RankDiscretisation(9), schedule, used, epochs=1, num_sanity_val_steps=sanity)
    assert 80 < used.seen[0] <= 100  # not the adapter's 50
    assert used.seen == used.seen[:1] * 2 * STEPS


def test_allocation_weights_move_before_the_last_epochs_and_rest_in_them(tiny_bert, cola_folder):
    _, phases, _ = fit(tiny_bert, cola_folder, RankDiscretisation(1))
    moved = [not torch.equal(before, after) for before, after in zip(phases.weights, phases.weights[1:])]
    assert moved == [True] * (2 * STEPS - 1) + [False] * STEPS
    assert float(phases.momenta[2 * STEPS - 1].abs().max()) > 0  # momentum alone would have moved them
    assert all(torch.equal(phases.momenta[2 * STEPS - 1], momentum) for momentum in phases.momenta[2 * STEPS :])


def test_cores_and_head_go_on_training_in_the_last_epochs(tiny_bert, cola_folder):
    def core_and_head(module):
        return module.adapter.R.detach().clone(), module.model.classifier.weight.detach().clone()

    start = tiny.notes(core_and_head, "on_train_epoch_start")
    module, _, _ = fit(tiny_bert, cola_folder, RankDiscretisation(1), start)
    R, head = start.seen[-1]
    used = module.rank_allocation.masks().detach() > 0
    assert bool((module.adapter.R != R)[used].all())
    assert not torch.equal(module.model.classifier.weight, head)


def test_validation_and_test_alone_use_the_discrete_ranks(tiny_bert, cola_folder):
    module, _, _ = fit(tiny_bert, cola_folder, RankDiscretisation(0), epochs=1)
    data = tiny.make_data(tiny_bert, cola_folder)
    for verb in ("validate", "test", "predict"):
        used = tiny.notes(hard, *(f"on_{kind}_batch_end" for kind in ("validation", "test", "predict")))
        getattr(tiny.make_trainer(used), verb)(module, datamodule=data)
        assert used.seen == [True]
        assert not module.rank_allocation.is_discrete  # as it was before


def test_ranks_that_are_discrete_for_good_do_not_follow_the_budget(tiny_bert, cola_folder):
    def used(module):
        return module.rank_allocation.is_discrete and module.rank_allocation.masks().detach().sum().item()

    noted = tiny.notes(used, "on_train_batch_end")
    module, _, _ = fit(tiny_bert, cola_folder, RankDiscretisation(2), BudgetSchedule(30.0, 100.0, 0, 3), noted)
    seen = [area for area in noted.seen if area]
    assert len(seen) == 2 * STEPS and len(set(seen)) == 1
    assert math.isclose(module.rank_allocation.budget, 30.0 + 70.0 / 3)  # what the first epoch left
    assert seen[0] <= module.rank_allocation.budget
