from types import SimpleNamespace

import pytest
import torch

from callbacks.health import AllocationMovement, CollapseDetection
from callbacks.training_record import TrainingRecord
from lora import LoRAXS
from lora.rank_allocation import RankAllocation
from tests import tiny


def validated(answers, epochs=None, sanity=False) -> TrainingRecord:
    """The record after validations with these constant answers (None: answers differed), by default one per epoch."""
    record = TrainingRecord()
    for epoch, answer in zip(epochs or range(len(answers)), answers, strict=True):
        data = SimpleNamespace(validation_names=("val",))
        module = SimpleNamespace(data=data, record=record, constant_answer=lambda split, answer=answer: answer)
        CollapseDetection().on_validation_epoch_end(
            SimpleNamespace(sanity_checking=sanity, current_epoch=epoch), module
        )
    return record


def test_a_collapse_is_said_and_recorded(capsys):
    record = validated([None, "'acceptable'", None])
    assert "after epoch 2 the model answers 'acceptable' for every validation row" in capsys.readouterr().err
    assert record.collapsed_epochs == [1]
    assert not record.collapsed  # it has recovered
    assert validated([None, "'x'"]).collapsed


@pytest.mark.parametrize(("answers", "expected"), [(["'x'", "'x'"], [0]), (["'x'", None], []), ([None, "'x'"], [0])])
def test_of_two_validations_within_an_epoch_the_last_one_counts(answers, expected):
    assert validated(answers, epochs=[0, 0]).collapsed_epochs == expected


@pytest.mark.parametrize(("bias", "collapsed"), [(100.0, True), (0.0, False)])
def test_a_model_with_one_answer_is_a_collapse(tiny_bert, cola_folder, capsys, bias, collapsed):
    module, data = tiny.make_module(tiny_bert, LoRAXS(4)), tiny.make_data(tiny_bert, cola_folder)
    data.evaluation_batch_size = 5
    tiny.make_trainer(limit_train_batches=1, limit_val_batches=0).fit(module, datamodule=data)
    with torch.no_grad():
        module.model.classifier.weight.mul_(500)  # answers differ, and not by rounding
        module.model.classifier.bias.copy_(torch.tensor([0.0, 1e4 * bias]))
        if not collapsed:
            _centre(module, data)
    for _ in range(2):  # nothing of the first validation may hide in the second
        tiny.make_trainer(CollapseDetection()).validate(module, datamodule=data, verbose=False)
        assert module.record.collapsed == collapsed
    assert ("answers 'acceptable' for every validation row" in capsys.readouterr().err) == collapsed


def _centre(module, data):
    """Moves the bias so that half of the validation rows get either answer."""
    module.eval()
    batches = list(data.val_dataloader()[0])
    logits = torch.cat([module(batch["inputs"]) for batch in batches])
    module.model.classifier.bias[0] += (logits[:, 1] - logits[:, 0]).median() + 1e-3


def test_a_regression_that_gives_one_value_is_a_collapse(tiny_bert, tmp_path, capsys):
    folder = tiny.save_pairs(tmp_path / "stsb", ("sentence1", "sentence2"), lambda row: row % 6 * 0.9)
    module, data = tiny.make_module(tiny_bert, LoRAXS(4)), tiny.make_data(tiny_bert, str(folder), "stsb")
    tiny.make_trainer(limit_train_batches=1, limit_val_batches=0).fit(module, datamodule=data)
    with torch.no_grad():
        module.model.classifier.weight.zero_()
        module.model.classifier.bias.fill_(2.5)
    tiny.make_trainer(CollapseDetection()).validate(module, datamodule=data, verbose=False)
    assert "answers 2.500 for every validation row" in capsys.readouterr().err


def trained(change):
    """The detector after a training in which `change` happened to the weights."""
    torch.manual_seed(0)
    allocation = RankAllocation(torch.ones(8), 2, 1, 9, 8 * 16.0)
    module, callback = SimpleNamespace(rank_allocation=allocation), AllocationMovement()
    callback.on_train_start(None, module)
    with torch.no_grad():
        change(allocation.weights)
    callback.on_train_end(None, module)
    return callback


def test_an_allocation_without_effect_is_said(capsys):
    trained(lambda weights: weights.add_(1e-8))
    assert "have not moved: these ranks are the initial ones" in capsys.readouterr().err
    trained(lambda weights: weights.add_(0.5))  # the same for all: softmax does not see it
    assert "moved, but no layer's discrete rank changed" in capsys.readouterr().err


def test_movement_is_measured_from_the_first_start_not_from_the_resumption(capsys):
    first = trained(lambda weights: weights.copy_(weights.flip(0)))
    assert capsys.readouterr().err == ""
    again = AllocationMovement()
    again.load_state_dict(first.state_dict())
    allocation = RankAllocation(torch.ones(8), 2, 1, 9, 8 * 16.0)
    with torch.no_grad():
        allocation.weights.copy_(first.state_dict()["start"].flip(0))  # where the first part ended
    again.on_train_start(None, SimpleNamespace(rank_allocation=allocation))
    again.on_train_end(None, SimpleNamespace(rank_allocation=allocation))
    assert capsys.readouterr().err == ""
