"""What a checkpoint holds, and which ones a module refuses."""

import pytest
import torch

from callbacks.checkpoints import read_checkpoint
from common.errors import InputError
from common.files import write_whole
from lightning_modules import PEFTAdapter
from lora import AdaptiveLoRAXS, LoRA, LoRAXS, NestedLoRA
from tests import tiny

RATES = {"learning_rate": 1e-2, "allocation_learning_rate": 2e-2}


def adaptive(**settings):
    return AdaptiveLoRAXS(**{"rank_min": 1, "rank_max": 4, "rank_average": 2.5, "initial_std": 0.1, **settings})


@pytest.fixture(scope="session")
def trained(tiny_bert, cola_folder, tmp_path_factory):
    """A module after one epoch, its checkpoint, and the validation figures of that moment."""
    torch.manual_seed(0)
    module, data = tiny.make_module(tiny_bert, adaptive(), **RATES), tiny.make_data(tiny_bert, cola_folder)
    trainer = tiny.make_trainer()
    trainer.fit(module, datamodule=data)
    path = tmp_path_factory.mktemp("trained") / "some.ckpt"
    trainer.save_checkpoint(path)
    (figures,) = trainer.validate(module, datamodule=data, verbose=False)
    return module, path, figures


def loaded(module, path, backbone, cola, **data):
    """The module with the checkpoint's weights, and its validation figures."""
    figures = tiny.make_trainer().validate(
        module, datamodule=tiny.make_data(backbone, cola, **data), ckpt_path=str(path), verbose=False
    )
    return module, figures[0]


def peft_lora(**settings):
    return PEFTAdapter("lora", {"r": 4, **settings})


def edited(path, tmp_path, change):
    """The checkpoint after `change(content)`."""
    content = read_checkpoint(path)
    change(content)
    write_whole(tmp_path / "edited.ckpt", lambda file: torch.save(content, file))
    return tmp_path / "edited.ckpt"


def test_a_checkpoint_holds_what_trains_and_no_frozen_weight(trained):
    module, path, _ = trained
    state = torch.load(path, weights_only=True)["state_dict"]
    weights = {key for key, value in state.items() if isinstance(value, torch.Tensor) and key != "epoch_loss"}
    trainable = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert weights == trainable
    assert trainable == {
        "adapter.R",
        "adapter.rank_allocation.weights",
        "model.classifier.weight",
        "model.classifier.bias",
    }
    assert all(torch.equal(state[name], module.state_dict()[name]) for name in trainable)
    assert path.stat().st_size < 60_000


def test_full_fine_tuning_keeps_every_weight(tiny_bert, cola_folder, tmp_path):
    module, data = tiny.make_module(tiny_bert), tiny.make_data(tiny_bert, cola_folder)
    trainer = tiny.make_trainer(limit_train_batches=1)
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(tmp_path / "full.ckpt")
    state = read_checkpoint(tmp_path / "full.ckpt")["state_dict"]
    assert set(state) == set(module.state_dict())
    again, _ = loaded(tiny.make_module(tiny_bert), tmp_path / "full.ckpt", tiny_bert, cola_folder)
    assert all(torch.equal(ours, state[name]) for name, ours in again.state_dict().items() if "loss" not in name)


def test_a_loaded_module_equals_the_trained_one(trained, tiny_bert, cola_folder):
    module, path, figures = trained
    torch.manual_seed(99)  # another random head and allocation, to be replaced
    again, their_figures = loaded(tiny.make_module(tiny_bert, adaptive()), path, tiny_bert, cola_folder)
    ours, theirs = dict(module.named_parameters()), dict(again.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.adapter.discrete_ranks() == module.adapter.discrete_ranks()
    assert again.rank_allocation.alpha == module.rank_allocation.alpha
    assert their_figures == figures


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (lambda: LoRAXS(4), "the checkpoint's adapter is 'AdaptiveLoRAXS', this run's is 'LoRAXS'"),
        (lambda: None, "adapter is 'AdaptiveLoRAXS', this run's is 'full fine-tuning'"),
        (lambda: adaptive(targets=["query"]), "the checkpoint's layers is .*query"),
        (lambda: adaptive(rank_max=5), "other frozen factors"),
        (lambda: adaptive(factors="random"), "other frozen factors"),
        # the same tensors, but another update: evaluated, or exported, they would say something else without a word
        (lambda: adaptive(lora_alpha=160.0), r"the checkpoint's scale \(.*\) is 4.0, this run's is 40.0"),
        (lambda: adaptive(scaling="constant"), "the checkpoint's scale .* is 4.0, this run's is 16.0"),
        (
            lambda: adaptive(allocation="bounded"),
            "the checkpoint's allocation .* is 'softmax', this run's is 'bounded'",
        ),
        (lambda: adaptive(rank_min=2), "the checkpoint's rank_min .* is 1, this run's is 2"),
        (lambda: adaptive(rounding="plain"), "the checkpoint's rounding .* is 'budgeted', this run's is 'plain'"),
    ],
    ids=["kind", "none", "layers", "rank", "factors", "alpha", "scaling", "allocation", "rank_min", "rounding"],
)
def test_another_adapter_is_refused(trained, tiny_bert, cola_folder, adapter, message):
    with pytest.raises(InputError, match=message):
        loaded(tiny.make_module(tiny_bert, adapter()), trained[1], tiny_bert, cola_folder)


@pytest.mark.parametrize(
    ("ours", "theirs", "scales"),
    [
        (lambda: LoRA(4, lora_alpha=8.0), lambda: LoRA(4, lora_alpha=80.0), ("2.0", "20.0")),
        (lambda: peft_lora(lora_alpha=8), lambda: peft_lora(lora_alpha=80), ("2.0", "20.0")),
        (lambda: NestedLoRA(1, 4, lora_alpha=8.0), lambda: NestedLoRA(1, 4, lora_alpha=80.0), ("2.0", "20.0")),
    ],
    ids=["lora", "peft", "nested"],
)
def test_another_scale_is_refused_whatever_the_adapter(tiny_bert, cola_folder, tmp_path, ours, theirs, scales):
    module, data = tiny.make_module(tiny_bert, ours()), tiny.make_data(tiny_bert, cola_folder)
    trainer = tiny.make_trainer(limit_train_batches=1, limit_val_batches=1)
    trainer.fit(module, datamodule=data)
    if isinstance(module.adapter, NestedLoRA):
        module.adapter.use_rank(2)  # a step's own scale is none of the checkpoint's
    trainer.save_checkpoint(path := tmp_path / "some.ckpt")
    with pytest.raises(InputError, match="the checkpoint's scale .* is {}, this run's is {}".format(*scales)):
        loaded(tiny.make_module(tiny_bert, theirs()), path, tiny_bert, cola_folder)
    loaded(tiny.make_module(tiny_bert, ours()), path, tiny_bert, cola_folder)


def test_a_checkpoint_that_notes_no_settings_is_still_taken(trained, tiny_bert, cola_folder, tmp_path):
    path = edited(trained[1], tmp_path, lambda content: content["rankwise"].pop("settings"))
    assert loaded(tiny.make_module(tiny_bert, adaptive()), path, tiny_bert, cola_folder)[1] == trained[2]


def test_another_backbone_is_refused_by_name(trained, cola_folder, tmp_path):
    other = str(tiny.save_tiny_bert(tmp_path / "other"))
    with pytest.raises(InputError, match="the checkpoint's backbone is"):
        loaded(tiny.make_module(other, adaptive()), trained[1], other, cola_folder)


def test_another_backbone_of_the_same_name_is_refused_by_its_factors(trained, tiny_bert, cola_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    other = tiny.save_tiny_bert(tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["encoder.layer.1.output.dense.weight"] *= -1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})

    def rename(content):
        content["rankwise"]["backbone"] = str(other)

    with pytest.raises(InputError, match="other frozen factors"):
        loaded(tiny.make_module(str(other), adaptive()), edited(trained[1], tmp_path, rename), str(other), cola_folder)


@pytest.mark.parametrize("key", ["adapter.R", "adapter.rank_allocation.weights", "model.classifier.bias"])
def test_a_missing_tensor_is_refused_by_name(trained, tiny_bert, cola_folder, tmp_path, key):
    path = edited(trained[1], tmp_path, lambda content: content["state_dict"].pop(key))
    with pytest.raises(InputError, match=f"the checkpoint lacks {key}"):
        loaded(tiny.make_module(tiny_bert, adaptive()), path, tiny_bert, cola_folder)


def test_another_shape_is_refused_by_name(trained, tiny_bert, cola_folder, tmp_path):
    def widen(content):
        content["state_dict"]["model.classifier.bias"] = torch.zeros(3)

    path = edited(trained[1], tmp_path, widen)
    with pytest.raises(InputError, match=r"shape of model.classifier.bias is \(3,\), this run's is \(2,\)"):
        loaded(tiny.make_module(tiny_bert, adaptive()), path, tiny_bert, cola_folder)


@pytest.mark.parametrize("change", [lambda c: c.pop("rankwise"), lambda c: c.update(rankwise={"adapter": "LoRA"})])
def test_a_checkpoint_of_another_program_is_refused(trained, tiny_bert, cola_folder, tmp_path, change):
    with pytest.raises(InputError):
        loaded(tiny.make_module(tiny_bert, adaptive()), edited(trained[1], tmp_path, change), tiny_bert, cola_folder)
