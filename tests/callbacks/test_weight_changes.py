"""How far full fine-tuning has moved the weights."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from callbacks.weight_changes import WeightChanges
from common.errors import InputError
from lora import LoRA
from tests import tiny


def run(backbone, cola, *callbacks, adapter=None):
    torch.manual_seed(0)
    module = tiny.make_module(backbone, adapter, learning_rate=1e-2)
    trainer = tiny.fit(module, tiny.make_data(backbone, cola), *callbacks, max_epochs=2)
    return module, {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_changes_are_those_of_every_linear_layer_of_the_backbone(tiny_bert, cola_folder):
    module, _ = run(tiny_bert, cola_folder, WeightChanges())
    start = AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    expected, before = {}, {}
    for name, layer in start.bert.named_modules():
        if isinstance(layer, torch.nn.Linear):
            path = f"bert.{name}"
            expected[path] = (module.model.get_submodule(path).weight - layer.weight).norm().item()
            before[path] = layer.weight.norm().item()
    assert module.record.update_norms["initial"] is None  # nothing has changed yet
    final = module.record.update_norms["final"]
    assert final["layers"] == pytest.approx(expected)
    assert min(expected.values()) > 0
    assert final["total"] == pytest.approx(sum(change**2 for change in expected.values()) ** 0.5)
    assert final["relative"] == pytest.approx(final["total"] / sum(norm**2 for norm in before.values()) ** 0.5)


def test_looking_changes_nothing(tiny_bert, cola_folder):
    (module, metrics), (expected, expected_metrics) = (
        run(tiny_bert, cola_folder, *callbacks) for callbacks in ([WeightChanges()], [])
    )
    assert metrics == expected_metrics
    for one, other in zip(module.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_adapter_is_refused(tiny_bert, cola_folder):
    with pytest.raises(InputError, match=r"WeightChanges is given with the adapter LoRA, .*update_norms"):
        run(tiny_bert, cola_folder, WeightChanges(), adapter=LoRA(2, 8.0))
