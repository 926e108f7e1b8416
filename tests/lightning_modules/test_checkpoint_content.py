"""What a checkpoint holds, that it gives back the same module, and which ones a module refuses."""

import pytest
import torch

from callbacks.checkpoints import read_checkpoint
from common.errors import InputError
from common.files import write_whole
from lightning_modules import PEFTAdapter
from lora import AdaptiveLoRA, AdaptiveLoRAXS, LoRA, LoRAXS, NestedLoRA
from tests import tiny

RATES = {"learning_rate": 1e-2, "allocation_learning_rate": 2e-2}


def adaptive(**settings):
    return AdaptiveLoRAXS(**{"rank_min": 1, "rank_max": 4, "rank_average": 2.5, "initial_std": 0.1, **settings})


def lora(**settings):
    return LoRA(**{"rank": 3, "lora_alpha": 8.0, "targets": "attention", **settings})


def nested(**settings):
    return NestedLoRA(1, 4, **settings)


def peft_lora(**settings):
    return PEFTAdapter("lora", {"r": 4, **settings})


MADE = {
    "adaptive": adaptive,
    "lora": lora,
    "wrapped head": lambda: lora(wrap_head=True),
    "queries": lambda: lora(targets=["query"]),
    "nested": lambda: nested(lora_alpha=8.0),
    "peft": lambda: peft_lora(lora_alpha=8),
    "full": lambda: None,
}


@pytest.fixture(scope="session")
def trained(tiny_bert, cola_folder, tmp_path_factory):
    """By name of the adapter: a module after one epoch, its checkpoint, and its validation figures; made when asked."""
    made = {}

    def train(name):
        if name not in made:
            torch.manual_seed(0)
            module, data = tiny.make_module(tiny_bert, MADE[name](), **RATES), tiny.make_data(tiny_bert, cola_folder)
            trainer = tiny.make_trainer()
            trainer.fit(module, datamodule=data)
            if name == "nested":
                module.adapter.use_rank(2)  # a step's own rank and scale are none of the checkpoint's
            trainer.save_checkpoint(path := tmp_path_factory.mktemp("trained") / "some.ckpt")
            made[name] = module, path, trainer.validate(module, datamodule=data, verbose=False)[0]
        return made[name]

    return train


@pytest.fixture
def load(tiny_bert, cola_folder):
    """A new module with a checkpoint's weights, and its validation figures."""

    def validate(adapter, path, backbone=tiny_bert):
        torch.manual_seed(99)  # another random head and allocation, to be replaced
        module, data = tiny.make_module(backbone, adapter), tiny.make_data(backbone, cola_folder)
        figures = tiny.make_trainer().validate(module, datamodule=data, ckpt_path=str(path), verbose=False)
        return module, figures[0]

    return validate


@pytest.fixture
def edited(trained, tmp_path):
    """The checkpoint of the adaptive adapter after `change(content)`."""

    def edit(change):
        content = read_checkpoint(trained("adaptive")[1])
        change(content)
        write_whole(tmp_path / "edited.ckpt", lambda file: torch.save(content, file))
        return tmp_path / "edited.ckpt"

    return edit


QUERIES = [f"bert/encoder/layer/{layer}/attention/self/query" for layer in range(2)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("adaptive", {"adapter.R", "adapter.rank_allocation.weights"}),
        ("queries", {f"adapter.{side}.{layer}" for side in "AB" for layer in QUERIES}),
    ],
)
def test_a_checkpoint_holds_what_trains_and_no_frozen_weight(trained, name, expected):
    module, path, _ = trained(name)
    state = torch.load(path, weights_only=True)["state_dict"]
    weights = {key for key, value in state.items() if isinstance(value, torch.Tensor)} - {"epoch_loss"}
    trainable = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert weights == trainable == expected | {"model.classifier.weight", "model.classifier.bias"}
    assert all(torch.equal(state[name], module.state_dict()[name]) for name in trainable)
    assert path.stat().st_size < 60_000


def test_a_wrapped_heads_frozen_start_is_kept_and_does_not_move(trained, tiny_bert, cola_folder):
    module, path, _ = trained("wrapped head")
    state = read_checkpoint(path)["state_dict"]
    frozen = {"model.classifier.base.weight", "model.classifier.base.bias"}
    trainable = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert {key for key, value in state.items() if isinstance(value, torch.Tensor)} - {
        "epoch_loss"
    } == trainable | frozen
    assert all(name.startswith("adapter.") for name in trainable)
    entries = sum(A.numel() for A in module.adapter.A.values()) + sum(B.numel() for B in module.adapter.B.values())
    assert module.parameter_counts() == {"head": 0, "adapter": entries, "allocation": 0, "total": entries}
    torch.manual_seed(0)
    start = tiny.make_module(tiny_bert, MADE["wrapped head"]())
    tiny.make_trainer(limit_train_batches=0).fit(start, datamodule=tiny.make_data(tiny_bert, cola_folder))
    assert torch.equal(module.model.classifier.base.weight, start.model.classifier.base.weight)
    assert not torch.equal(module.adapter.B["classifier"], start.adapter.B["classifier"])


def test_full_fine_tuning_keeps_every_weight(trained):
    module, path, _ = trained("full")
    assert set(read_checkpoint(path)["state_dict"]) == set(module.state_dict())


@pytest.mark.parametrize("name", MADE)
def test_a_loaded_module_equals_the_trained_one(trained, load, name):
    module, path, figures = trained(name)
    again, their_figures = load(MADE[name](), path)
    ours, theirs = dict(module.named_parameters()), dict(again.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    if name == "adaptive":
        assert again.adapter.discrete_ranks() == module.adapter.discrete_ranks()
        assert again.rank_allocation.alpha == module.rank_allocation.alpha
    if name != "nested":  # was evaluated at the rank of a step
        assert their_figures == figures


@pytest.mark.parametrize(
    ("name", "adapter", "message"),
    [
        ("adaptive", lambda: LoRAXS(4), "the checkpoint's adapter is 'AdaptiveLoRAXS', this run's is 'LoRAXS'"),
        ("adaptive", lambda: None, "adapter is 'AdaptiveLoRAXS', this run's is 'full fine-tuning'"),
        ("adaptive", lambda: adaptive(targets=["query"]), "the checkpoint's layers is .*query"),
        ("adaptive", lambda: adaptive(rank_max=5), "other frozen factors"),
        ("adaptive", lambda: adaptive(factors="random"), "other frozen factors"),
        # the same tensors, but another update: evaluated, or exported, they would say something else without a word
        ("adaptive", lambda: adaptive(lora_alpha=160.0), r"scale \(.*\) is 4.0, this run's is 40.0"),
        ("adaptive", lambda: adaptive(scaling="constant"), "scale .* is 4.0, this run's is 16.0"),
        ("adaptive", lambda: adaptive(allocation="bounded"), "allocation .* is 'softmax', this run's is 'bounded'"),
        ("adaptive", lambda: adaptive(rank_min=2), "rank_min .* is 1, this run's is 2"),
        ("adaptive", lambda: adaptive(rounding="plain"), "rounding .* is 'budgeted', this run's is 'plain'"),
        ("nested", lambda: nested(lora_alpha=80.0), "scale .* is 2.0, this run's is 20.0"),
        ("peft", lambda: peft_lora(lora_alpha=80), "scale .* is 2.0, this run's is 20.0"),
        ("lora", lambda: lora(lora_alpha=24.0), "scale .* is 2.66.*, this run's is 8.0"),
        ("lora", lambda: lora(rank=4), r"shape of adapter\.[AB]\.bert/encoder/layer/\d.* is \("),
        ("lora", lambda: lora(targets=["value"]), "the checkpoint's layers is"),
        ("lora", lambda: lora(wrap_head=True), "the checkpoint's layers is"),
        ("lora", lambda: AdaptiveLoRA(1, 3, 2, lora_alpha=8.0), "the checkpoint's adapter is 'LoRA'"),
    ],
)
def test_a_checkpoint_of_another_adapter_is_refused(trained, load, name, adapter, message):
    with pytest.raises(InputError, match=message):
        load(adapter(), trained(name)[1])


def test_a_checkpoint_that_notes_no_settings_is_still_taken(trained, load, edited):
    path = edited(lambda content: content["rankwise"].pop("settings"))
    assert load(adaptive(), path)[1] == trained("adaptive")[2]


def test_another_backbone_is_refused_by_name_or_by_its_factors(load, edited, tmp_path):
    from safetensors.torch import load_file, save_file

    other = tiny.save_tiny_bert(tmp_path / "other")
    with pytest.raises(InputError, match="the checkpoint's backbone is"):
        load(adaptive(), edited(lambda content: None), str(other))
    tensors = load_file(other / "model.safetensors")
    tensors["encoder.layer.1.output.dense.weight"] *= -1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    renamed = edited(lambda content: content["rankwise"].update(backbone=str(other)))
    with pytest.raises(InputError, match="other frozen factors"):
        load(adaptive(), renamed, str(other))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            (lambda content, key=key: content["state_dict"].pop(key), f"the checkpoint lacks {key}")
            for key in ("adapter.R", "adapter.rank_allocation.weights", "model.classifier.bias")
        ),
        (
            lambda content: content["state_dict"].update({"model.classifier.bias": torch.zeros(3)}),
            r"shape of model.classifier.bias is \(3,\), this run's is \(2,\)",
        ),
        (lambda content: content.pop("rankwise"), "wasn't written by this project"),
        (lambda content: content.update(rankwise={"adapter": "LoRA"}), "the checkpoint's adapter is 'LoRA'"),
    ],
)
def test_a_damaged_checkpoint_or_another_programs_is_refused(load, edited, change, message):
    with pytest.raises(InputError, match=message):
        load(adaptive(), edited(change))
