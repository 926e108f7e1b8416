"""What a checkpoint holds, that it gives back the same module, and which ones a module refuses."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DeepseekV3Config, DeepseekV3ForSequenceClassification

from callbacks.checkpoints import WholeFileCheckpoints, read_checkpoint
from common.errors import InputError
from lightning_modules import PEFTAdapter
from lightning_modules.backbone_sketch import backbone_identity, check_sketch, write_sketch
from lora import AdaptiveLoRA, AdaptiveLoRAXS, LoRA, LoRAXS, NestedLoRA
from lora.sketch import same_sketch
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
            trainer = tiny.fit(module, data)
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
        WholeFileCheckpoints().save_checkpoint(content, tmp_path / "edited.ckpt")
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
        ("adaptive", lambda: adaptive(targets=["query"]), "the checkpoint's layers is .*query"),
        ("adaptive", lambda: adaptive(rank_max=5), "other frozen factors"),
        # the same tensors, but another update: evaluated, or exported, they would say something else without a word
        ("adaptive", lambda: adaptive(lora_alpha=160.0), r"scale \(.*\) is 4.0, this run's is 40.0"),
        ("adaptive", lambda: adaptive(scaling="constant"), "scale .* is 4.0, this run's is 16.0"),
        ("adaptive", lambda: adaptive(rank_min=2), "rank_min .* is 1, this run's is 2"),
        ("adaptive", lambda: adaptive(rounding="plain"), "rounding .* is 'budgeted', this run's is 'plain'"),
        ("peft", lambda: peft_lora(lora_alpha=80), "scale .* is 2.0, this run's is 20.0"),
        ("lora", lambda: lora(lora_alpha=24.0), "scale .* is 2.66.*, this run's is 8.0"),
        ("lora", lambda: lora(rank=4), r"shape of adapter\.[AB]\.bert/encoder/layer/\d.* is \("),
        ("lora", lambda: lora(wrap_head=True), "the checkpoint's layers is"),
        ("lora", lambda: AdaptiveLoRA(1, 3, 2, lora_alpha=8.0), "the checkpoint's adapter is 'LoRA'"),
    ],
)
def test_a_checkpoint_of_another_adapter_is_refused(trained, load, name, adapter, message):
    with pytest.raises(InputError, match=message):
        load(adapter(), trained(name)[1])


def scaled(tensors):
    for tensor in tensors.values():
        tensor *= 1.005


def shuffled(tensors):
    words = tensors["embeddings.word_embeddings.weight"]
    tensors["embeddings.word_embeddings.weight"] = words[torch.randperm(len(words))].contiguous()


CHANGES = {
    "moved": lambda tensors: None,
    "scaled": scaled,
    "shuffled": shuffled,
    "normalisation": lambda tensors: tensors["encoder.layer.0.output.LayerNorm.weight"].add_(0.5),
    "bias": lambda tensors: tensors["encoder.layer.1.attention.self.query.bias"].add_(1),
}


@pytest.mark.parametrize("name", CHANGES)
def test_any_other_frozen_weight_is_refused_wherever_the_backbone_lies(trained, load, tmp_path, name):
    other = tiny.save_tiny_bert(tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    CHANGES[name](tensors)
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    if name == "moved":
        assert load(lora(), trained("lora")[1], str(other))[1] == trained("lora")[2]
        return
    with pytest.raises(InputError, match=r"other frozen (weights|factors)"):
        load(lora(), trained("lora")[1], str(other))


def test_a_buffer_that_decides_which_experts_answer_counts(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 4}
    sizes |= {"q_lora_rank": 4, "kv_lora_rank": 4, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 8, "first_k_dense_replace": 0}
    groups = {"n_group": 1, "topk_group": 1, "num_key_value_heads": 2, "vocab_size": 40, "pad_token_id": 0}
    config = DeepseekV3Config(**sizes, **experts, **groups, initializer_range=0.5)
    model = DeepseekV3ForSequenceClassification(config).eval()
    tokens, head = torch.arange(5, 15)[None], ("score",)
    before, answer = backbone_identity(model, head, frozen=True)["weights"], model(tokens).logits
    write_sketch(tmp_path, model, head, "tiny", {})
    check_sketch(tmp_path, model)
    model.model.layers[1].mlp.gate.e_score_correction_bias.copy_(torch.tensor([0.0, 0.0, 5.0, 0.0]))
    assert not torch.allclose(model(tokens).logits, answer, atol=1e-2)
    assert not same_sketch(before, backbone_identity(model, head, frozen=True)["weights"])
    with pytest.raises(InputError, match="trained on another backbone"):
        check_sketch(tmp_path, model)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("config.json", '"num_attention_heads": 2', '"num_attention_heads": 4', "num_attention_heads .* is 2, .* is 4"),
        ("config.json", '"hidden_act": "gelu"', '"hidden_act": "relu"', "hidden_act"),
        (
            "config.json",
            '"classifier_dropout": null',
            '"classifier_dropout": 0.5',
            "classifier_dropout .* is None, .* 0.5",
        ),
        ("config.json", "{", '{"is_causal": false,', "is_causal .* is None, .* is False"),
        ("tokenizer.json", '"cat": 6', '"cat": 7', "another tokenizer"),
        ("tokenizer_config.json", "{", '{"truncation_side": "left",', "another tokenizer"),
        ("tokenizer_config.json", '"token_type_ids",', "", "another tokenizer"),  # pairs would lose them
    ],
)
def test_other_settings_and_another_tokenizer_beside_the_same_weights_are_refused(
    trained, load, tmp_path, file, old, new, message
):
    other = tiny.save_tiny_bert(tmp_path / "other")
    text = (other / file).read_text().replace('"dog": 7', '"dog": 6') if "cat" in old else (other / file).read_text()
    assert old in text
    (other / file).write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        load(None, trained("full")[1], str(other))


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
        *(
            (lambda content, bad=bad: content["state_dict"]["adapter.R"].view(-1)[3:4].fill_(bad), "R isn't finite")
            for bad in (math.nan, -math.inf)
        ),
        (lambda content: content.pop("rankwise"), "wasn't written by this project"),
        (lambda content: content.update(rankwise=[1]), "wasn't written by this project"),
        (lambda content: content["rankwise"].update(adapter="LoRA"), "the checkpoint's adapter is 'LoRA'"),
        (lambda content: content["state_dict"].update({"adapter.R": [1.0]}), "type of adapter.R is 'list'"),
        (lambda content: content["state_dict"].update({"adapter.R": None}), "type of adapter.R is 'NoneType'"),
        (lambda content: content["rankwise"]["configuration"].update(classifier_dropout=0.5), "is 0.5, .* is None"),
        *(
            (lambda content, names=names: content["rankwise"].update(classes=names), "every answer would have another")
            for names in (["acceptable", "unacceptable"], ["no", "yes"], ["unacceptable", "acceptable", "unclear"])
        ),
    ],
)
def test_a_damaged_checkpoint_or_another_programs_is_refused(load, edited, change, message):
    with pytest.raises(InputError, match=message):
        load(adaptive(), edited(change))


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["optimizer_states"][0]["state"][0].update(exp_avg=torch.zeros(3)),
        lambda content: content["lr_schedulers"][0].update(last_epoch=None),
        lambda content: content["loops"].clear(),
    ],
)
def test_training_does_not_go_on_from_a_state_that_is_not_whole(trained, tiny_bert, cola_folder, tmp_path, change):
    """Torch itself would crash."""
    content = torch.load(trained("adaptive")[1], weights_only=True)
    change(content)
    torch.save(content, tmp_path / "changed.ckpt")
    module, data = tiny.make_module(tiny_bert, adaptive(), **RATES), tiny.make_data(tiny_bert, cola_folder)
    with pytest.raises(InputError, match="isn't as it was written"):
        tiny.make_trainer(max_epochs=2).fit(module, datamodule=data, ckpt_path=str(tmp_path / "changed.ckpt"))


def test_training_does_not_go_on_in_another_data_module(edited, tiny_bert, cola_folder):
    path = edited(lambda content: content.pop("GLUEDataModule"))
    module, data = tiny.make_module(tiny_bert, adaptive(), **RATES), tiny.make_data(tiny_bert, cola_folder)
    with pytest.raises(InputError, match="no place in the data of a GLUEDataModule"):
        tiny.make_trainer(max_epochs=2).fit(module, datamodule=data, ckpt_path=str(path))
