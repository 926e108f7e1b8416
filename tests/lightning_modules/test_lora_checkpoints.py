"""What a checkpoint of LoRA holds, above all when the head's random start is frozen under its adapter."""

import pytest
import torch

from callbacks.checkpoints import read_checkpoint
from common.errors import InputError
from lora import AdaptiveLoRA, LoRA
from tests import tiny


def fitted(backbone, cola, adapter, path):
    torch.manual_seed(0)
    module, data = tiny.make_module(backbone, adapter, learning_rate=0.05), tiny.make_data(backbone, cola)
    trainer = tiny.make_trainer()
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(path)
    return module, trainer.validate(module, datamodule=data, verbose=False)[0]


def figures(backbone, cola, adapter, path):
    torch.manual_seed(99)  # another random head
    module, data = tiny.make_module(backbone, adapter), tiny.make_data(backbone, cola)
    trainer = tiny.make_trainer()
    return module, trainer.validate(module, datamodule=data, ckpt_path=str(path), verbose=False)[0]


@pytest.mark.parametrize("wrap_head", [False, True])
def test_a_round_trip_gives_the_same_weights_and_figures(tiny_bert, cola_folder, tmp_path, wrap_head):
    make = lambda: LoRA(3, 8.0, targets="attention", wrap_head=wrap_head)  # noqa: E731
    module, expected = fitted(tiny_bert, cola_folder, make(), tmp_path / "a.ckpt")
    again, seen = figures(tiny_bert, cola_folder, make(), tmp_path / "a.ckpt")
    assert seen == expected
    ours, theirs = dict(module.named_parameters()), dict(again.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_wrapped_heads_frozen_start_is_kept_and_no_other_frozen_weight(tiny_bert, cola_folder, tmp_path):
    module, _ = fitted(tiny_bert, cola_folder, LoRA(3, 8.0, targets=["query"], wrap_head=True), tmp_path / "a.ckpt")
    state = read_checkpoint(tmp_path / "a.ckpt")["state_dict"]
    layers = [f"bert/encoder/layer/{n}/attention/self/query" for n in range(2)]
    factors = {f"adapter.{side}.{layer}" for side in "AB" for layer in [*layers, "classifier"]}
    frozen = {"model.classifier.base.weight", "model.classifier.base.bias"}
    assert {key for key, value in state.items() if isinstance(value, torch.Tensor)} - {"epoch_loss"} == factors | frozen
    counts = module.parameter_counts()
    assert counts == {"head": 0, "adapter": 2 * 3 * 32 + 3 * 18, "allocation": 0, "total": 2 * 3 * 32 + 3 * 18}
    assert {name for name, parameter in module.named_parameters() if parameter.requires_grad} == factors


def test_the_frozen_start_does_not_move_in_training(tiny_bert, cola_folder, tmp_path):
    module, _ = fitted(tiny_bert, cola_folder, LoRA(3, 8.0, wrap_head=True), tmp_path / "a.ckpt")
    torch.manual_seed(0)
    start = tiny.make_module(tiny_bert, LoRA(3, 8.0, wrap_head=True))
    tiny.make_trainer(limit_train_batches=0).fit(start, datamodule=tiny.make_data(tiny_bert, cola_folder))
    ours, theirs = module.model.classifier.base, start.model.classifier.base
    assert torch.equal(ours.weight, theirs.weight)
    assert not torch.equal(module.adapter.B["classifier"], start.adapter.B["classifier"])


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (lambda: LoRA(4, 8.0, targets=["query"]), r"shape of adapter\.[AB]\.bert/encoder/layer/\d.* is \("),
        (lambda: LoRA(3, 8.0, targets=["value"]), "the checkpoint's layers is"),
        (lambda: LoRA(3, 8.0, targets=["query"], wrap_head=True), "the checkpoint's layers is"),
        (lambda: AdaptiveLoRA(1, 3, 2, lora_alpha=8.0), "the checkpoint's adapter is 'LoRA'"),
    ],
    ids=["rank", "layers", "head", "kind"],
)
def test_a_checkpoint_of_other_settings_is_refused(tiny_bert, cola_folder, tmp_path, adapter, message):
    fitted(tiny_bert, cola_folder, LoRA(3, 8.0, targets=["query"]), tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=message):
        figures(tiny_bert, cola_folder, adapter(), tmp_path / "a.ckpt")
