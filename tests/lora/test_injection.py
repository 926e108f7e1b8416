import re

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.pytorch_utils import Conv1D

from common.errors import InputError
from lora.injection import choose_layers, describe_share, find_layers, freeze, matrix_sizes, may_leave_parameters_out
from tests.architectures import TINY_CONFIGS, classifier, configuration


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Linear(4, 4)
        self.subquery = nn.Linear(4, 4)
        self.attention = nn.ModuleDict({"output": nn.ModuleDict({"dense": nn.Linear(4, 4), "norm": nn.LayerNorm(4)})})
        self.mix = Conv1D(4, 4)


@pytest.fixture
def model():
    return nn.ModuleDict({"layer": nn.ModuleList([Block() for _ in range(12)]), "classifier": nn.Linear(4, 2)})


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["query"], [f"{number}.query" for number in range(12)]),  # whole components: not subquery
        (["output.dense"], [f"{number}.attention.output.dense" for number in range(12)]),
        (["layer.3.query"], ["3.query"]),
        (["mix"], [f"{number}.mix" for number in range(12)]),  # a Conv1D
        (["layer.1*.query"], ["1.query", "10.query", "11.query"]),
        (["layer.?.query"], [f"{number}.query" for number in range(10)]),
        (["layer.0.*query"], ["0.query", "0.subquery"]),
    ],
)
def test_a_target_matches_whole_components_at_the_end_of_a_path(model, targets, expected):
    found = find_layers(model, targets)
    assert list(found) == [f"layer.{name}" for name in expected]
    assert all(found[name] is model.get_submodule(name) for name in found)


def test_order_is_the_models_whatever_the_order_of_the_targets(model):
    found = list(find_layers(model, ["mix", "layer.1.query", "query", "output.dense"]))
    assert found == [name for name, _ in model.named_modules() if name in set(found)]
    assert len(found) == len(set(found)) == 36


@pytest.mark.parametrize(
    ("targets", "head", "message"),
    [
        (["query", "querry"], [], r"target 'querry' matches no layer.*near misses: query"),
        (["self.dense"], [], r"'self.dense'.*near misses: .*attention.output.dense"),
        (["zzzz"], [], r"'zzzz'.*linear layers: query, subquery, attention.output.dense, mix"),
        (["uery"], [], "'uery' matches no layer"),
        ([], [], "targets is empty"),
        (["norm"], [], r"'norm' matches layer.0.attention.output.norm, a LayerNorm; allowed: Linear"),
        (["*"], [], r"target '\*' matches layer, a ModuleList"),
        (["classifier"], ["pooler", "classifier"], "matches classifier, which belongs to the head"),
        (["layer.3.mix"], ["pooler", "layer.3"], "matches layer.3.mix, which belongs to the head"),
    ],
)
def test_targets_that_match_nothing_or_something_else_are_refused(model, targets, head, message):
    with pytest.raises(InputError, match=message):
        find_layers(model, targets, head)


@pytest.mark.parametrize(
    ("model_type", "settings", "expected"),
    [
        ("bert", {}, False),
        ("gemma", {}, False),
        ("big_bird", {}, True),  # its pooler feeds no classifier
        ("mixtral", {}, True),  # experts that no token chooses
        ("opt", {"layerdrop": 0.1}, True),
    ],
)
def test_parameters_that_a_step_may_leave_out_are_expected(model_type, settings, expected):
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(configuration(model_type, **settings))
    assert may_leave_parameters_out(model) is expected


def test_where_only_an_adapter_trains_no_parameter_is_left_out():
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(configuration("bert"))
    assert may_leave_parameters_out(model.requires_grad_(False)) is False


def test_freeze_leaves_only_the_head_trainable():
    model = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("body", "score", "scores")})
    freeze(model, ["score"])
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {"score.weight", "score.bias"}


class Router(nn.Linear):
    """As those of Llama 4 and Phi-3.5-MoE: it gives what it chose, too."""

    def forward(self, states):
        scores = super().forward(states)
        return scores, scores.topk(1)


class Grouped(nn.Linear):
    """As DeepSeek-V4's: each half of the input has half of the rows."""

    def forward(self, states):
        return (states.unflatten(-1, (2, 1, 2)) @ self.weight.view(2, 2, 2).mT).squeeze(-2)


class Reader(nn.Module):
    """A model whose layers act, are read without a call, or are called for nothing."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 4)
        self.acts, self.read, self.ignored, self.other_task = (nn.Linear(4, 4) for _ in range(4))
        self.router, self.grouped = Router(4, 4), Grouped(2, 4)
        self.experts = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.dropout = nn.Dropout(0.5)

    def forward(self, input_ids, context=None):
        states = self.dropout(self.acts(self.embedding(input_ids)))
        self.ignored(states)
        states = states @ self.read.weight.T + self.router(states)[0] + self.grouped(states).flatten(-2)
        if context is not None:
            states = states + self.other_task(context)
        return (self.experts[1](states),)


# what can't act, by the architecture's own code
IDLE = [
    ("big_bird", {}, "bert.pooler"),  # called, but the head looks elsewhere
    ("bloom", {"slow_but_exact": True, "pretraining_tp": 2}, "self_attention.dense, mlp.dense_4h_to_h"),
    ("esm", {}, "esm.contact_head.regression"),
    ("gemma3", {}, "self_attn.k_proj, self_attn.v_proj, self_attn.q_proj, self_attn.out_proj, mlp.fc1, mlp.fc2"),
    ("jamba", {}, "mamba.x_proj, mamba.dt_proj, mamba.out_proj"),
    ("mamba", {}, "mixer.x_proj, mixer.dt_proj, mixer.out_proj"),
    ("bert", {"is_decoder": True, "add_cross_attention": True}, "crossattention.self.query"),
]


@pytest.mark.parametrize(("model_type", "settings", "named"), IDLE)
def test_layers_that_cannot_act_are_left_out_and_named(model_type, settings, named, capsys):
    torch.manual_seed(0)
    auto = AutoModelForCausalLM if model_type in ("bert", "mamba") else AutoModelForSequenceClassification
    model = auto.from_config(configuration(model_type, **settings))
    found = choose_layers(model, model_type, "all-linear", ["score", "classifier", "cls"])
    assert f"no answer depends on them: {named}" in capsys.readouterr().out
    endings = named.split(", ")
    assert found and not any(name.endswith(ending) for name in found for ending in endings if "self_attn" not in ending)
    with pytest.raises(InputError, match=rf"{re.escape(endings[-1])}.* can't be adapted.*model.adapter.targets"):
        choose_layers(model, model_type, [endings[-1]])
    skeleton = auto.from_config(configuration(model_type, **settings)).to("meta")  # as settings are checked for a sweep
    if model_type not in ("big_bird", "jamba"):  # these look at values
        assert list(choose_layers(skeleton, model_type, "all-linear", ["score", "classifier", "cls"])) == list(found)


def test_output_layers_of_linear_attention_that_no_kernel_reads_are_adapted():
    kinds = {"layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4}
    config = AutoConfig.for_model("qwen3_5_text", **TINY_CONFIGS["qwen3"], **kinds, linear_num_key_heads=2)
    found = choose_layers(
        AutoModelForSequenceClassification.from_config(config), "qwen3_5_text", "all-linear", ["score"]
    )
    assert "model.layers.0.linear_attn.out_proj" in found


@pytest.mark.parametrize(("rank", "left_out"), [(1, []), (2, ["shared_expert_gate"]), (9, [])])
def test_all_linear_leaves_out_layers_that_are_too_small_for_the_rank_unless_all_are(capsys, rank, left_out):
    model, head = classifier("qwen2_moe")  # each gate of its shared experts has one row
    found = choose_layers(model, "qwen2_moe", "all-linear", head, rank)
    assert [name for name in ("shared_expert_gate",) if not any(path.endswith(name) for path in found)] == left_out
    assert all(f"smaller than the rank, {rank}: mlp.{name}." in capsys.readouterr().out for name in left_out)
    assert all(min(layer.weight.shape) >= rank for layer in found.values()) or not left_out
    gates = choose_layers(model, "qwen2_moe", ["shared_expert_gate"], head, rank)
    assert len(gates) == 2  # asked for by name: the rank is refused then


def test_looking_changes_nothing_of_the_model_and_draws_nothing():
    model = Reader().train()
    before, state = {name: weight.clone() for name, weight in model.state_dict().items()}, torch.get_rng_state()
    assert list(choose_layers(model, "reader", "all-linear")) == ["acts", *(f"experts.{number}" for number in range(3))]
    assert torch.equal(state, torch.get_rng_state()) and all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]) and weight.requires_grad and weight.grad is None


@pytest.mark.parametrize(("model_type", "unadapted"), [("mixtral", "experts.gate_up_proj"), ("xlnet", "rel_attn.q")])
def test_the_share_that_is_adapted_is_told(model_type, unadapted):
    model, head = classifier(model_type)
    found = choose_layers(model, model_type, "all-linear", head)
    matrices = [
        (name, weight.numel())
        for name, weight in model.named_parameters()
        if weight.ndim > 1 and not re.search("embed_tokens|word_embedding", name) and name.split(".")[0] not in head
    ]
    share = sum(layer.weight.numel() for layer in found.values()) / sum(size for _, size in matrices)
    said = describe_share(matrix_sizes(model, head), list(found))
    assert 0.1 < share < 0.5 and f"{share:.0%} of the entries" in said and unadapted in said


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_all_linear_leaves_the_output_embeddings_of_a_language_model_alone(model_type):
    model = AutoModelForCausalLM.from_config(configuration(model_type))
    assert isinstance(model.lm_head, nn.Linear)
    found = choose_layers(model, model_type, "all-linear")
    assert found and "lm_head" not in found


@pytest.mark.parametrize(
    ("model_type", "targets", "message"),
    [
        ("bert", "atention", r"targets is 'atention'; allowed: default, all-linear, attention, mlp, or"),
        ("mamba9", "attention", "no attention targets for model type 'mamba9'; known types: albert, bert"),
        ("mamba9", "default", r"model type 'mamba9'; known types: albert, bert, .*layers called query, subquery"),
    ],
)
def test_unknown_keywords_and_architectures_are_refused(model, model_type, targets, message):
    with pytest.raises(InputError, match=message):
        choose_layers(model, model_type, targets)
    with pytest.raises(InputError, match="the backbone has no linear layers"):
        choose_layers(nn.ModuleDict({"head": nn.Linear(2, 2)}), model_type, "all-linear", ["head"])


def test_a_backbone_without_linear_layers_is_refused_and_its_matrices_are_named():
    model, head = classifier("ibert")
    with pytest.raises(InputError, match=r"no linear layers; its matrices.*attention\.self\.query\.weight"):
        choose_layers(model, "ibert", "all-linear", head)
