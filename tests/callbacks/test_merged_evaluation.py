"""Evaluation goes through merged weights: the same answers, and training never notices."""

import copy

import pytest
import torch

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


def merged(module):
    return {layer._merged is not None for layer in module.modules() if isinstance(layer, AdaptedLinear)}


def while_evaluating():
    """Notes whether layers are merged, at each batch of an evaluation."""
    return tiny.notes(merged, "on_validation_batch_start", "on_test_batch_start")


def fit(backbone, folder, make_adapter, *callbacks, **settings):
    torch.manual_seed(0)
    module = tiny.make_module(backbone, make_adapter(), learning_rate=1e-2)
    data = tiny.make_data(backbone, folder)
    trainer = tiny.fit(module, data, *callbacks, max_epochs=2, **settings)
    return module, data, trainer


@pytest.mark.parametrize("kind", ADAPTERS)
def test_only_evaluations_are_merged_and_weights_stay_bit_by_bit(kind, tiny_bert, cola_folder):
    evaluating, training = while_evaluating(), tiny.notes(merged, "on_train_batch_start")
    module, data, trainer = fit(tiny_bert, cola_folder, ADAPTERS[kind], evaluating, training)
    before = copy.deepcopy(module.state_dict())
    trainer.validate(module, datamodule=data, verbose=False)
    assert evaluating.seen and all(found == {True} for found in evaluating.seen)
    assert training.seen and all(found == {False} for found in training.seen)
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
    evaluating = while_evaluating()
    fit(tiny_bert, cola_folder, ADAPTERS["adaptive"], evaluating, precision="bf16-mixed")
    assert evaluating.seen and all(found == {False} for found in evaluating.seen)
    pytest.importorskip("peft")
    evaluating = while_evaluating()
    fit(tiny_bert, cola_folder, lambda: PEFTAdapter("lora", {"r": 2}), evaluating)
    assert evaluating.seen and all(found == set() for found in evaluating.seen)
