"""Evaluation goes through merged weights: the same answers, and training never notices."""

import copy

import pytest
import torch
from lightning.pytorch import Callback

from lightning_modules.peft_adapter import PEFTAdapter
from lora import AdaptiveLoRAXS, LoRA, LoRAXS, NestedLoRA
from lora.adapter import Adapter
from lora.layers import AdaptedLinear
from tests import tiny

ADAPTERS = {
    "adaptive": lambda: AdaptiveLoRAXS(rank_min=1, rank_max=4, rank_average=2, initial_std=0.5),
    "fixed": lambda: LoRAXS(4, initial_std=0.5),
    "lora": lambda: LoRA(3, lora_alpha=6),
    "nested": lambda: NestedLoRA(rank_min=1, rank_max=4, lora_alpha=6),
}


class Spy(Callback):
    """Notes whether layers are merged, at the first batch of each evaluation and of each training epoch."""

    def __init__(self):
        self.evaluating, self.training = [], []

    def on_validation_batch_start(self, trainer, pl_module, *arguments):
        self.evaluating.append(merged(pl_module))

    def on_test_batch_start(self, trainer, pl_module, *arguments):
        self.evaluating.append(merged(pl_module))

    def on_train_batch_start(self, trainer, pl_module, *arguments):
        self.training.append(merged(pl_module))


def merged(module):
    return {layer._merged is not None for layer in module.modules() if isinstance(layer, AdaptedLinear)}


def fit(backbone, folder, make_adapter, *callbacks, **settings):
    torch.manual_seed(0)
    module = tiny.make_module(backbone, make_adapter(), learning_rate=1e-2)
    data = tiny.make_data(backbone, folder)
    trainer = tiny.fit(module, data, *callbacks, max_epochs=2, **settings)
    return module, data, trainer


@pytest.mark.parametrize("kind", ADAPTERS)
def test_only_evaluations_are_merged_and_weights_stay_bit_by_bit(kind, tiny_bert, cola_folder):
    spy = Spy()
    module, data, trainer = fit(tiny_bert, cola_folder, ADAPTERS[kind], spy)
    before = copy.deepcopy(module.state_dict())
    trainer.validate(module, datamodule=data, verbose=False)
    assert spy.evaluating and all(found == {True} for found in spy.evaluating)
    assert spy.training and all(found == {False} for found in spy.training)
    assert merged(module) == {False}
    after = module.state_dict()
    assert before.keys() == after.keys()
    same = [torch.equal(before[key], after[key]) for key in before if isinstance(before[key], torch.Tensor)]
    assert all(same)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_figures_and_training_are_those_without_merging(kind, tiny_bert, cola_folder, monkeypatch):
    ours, data, trainer = fit(tiny_bert, cola_folder, ADAPTERS[kind])
    (with_merging,) = trainer.validate(ours, datamodule=data, verbose=False)
    monkeypatch.setattr(Adapter, "merge", lambda self: None)
    apart, data, trainer = fit(tiny_bert, cola_folder, ADAPTERS[kind])
    (without,) = trainer.validate(apart, datamodule=data, verbose=False)
    for first, second in zip(ours.parameters(), apart.parameters(), strict=True):
        assert torch.equal(first, second)
    assert with_merging.keys() == without.keys()
    assert all(with_merging[name] == pytest.approx(without[name], abs=1e-5) for name in without)


def test_16_bits_and_other_libraries_evaluate_apart(tiny_bert, cola_folder):
    spy = Spy()
    fit(tiny_bert, cola_folder, ADAPTERS["adaptive"], spy, precision="bf16-mixed")
    assert spy.evaluating and all(found == {False} for found in spy.evaluating)
    pytest.importorskip("peft")
    spy = Spy()
    fit(tiny_bert, cola_folder, lambda: PEFTAdapter("lora", {"r": 2}), spy)
    assert spy.evaluating and all(found == set() for found in spy.evaluating)
