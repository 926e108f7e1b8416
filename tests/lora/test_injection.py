import pytest
from torch import nn
from transformers.pytorch_utils import Conv1D

from common.errors import InputError
from lora.injection import choose_layers, find_layers, freeze, replace_module
from lora.target_names import ARCHITECTURE_TARGETS
from tests.architectures import TINY_CONFIGS, classifier


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


def test_a_layer_whose_name_only_begins_like_the_heads_is_not_the_head():
    model = nn.ModuleDict({"score": nn.Linear(2, 2), "scores": nn.Linear(2, 2)})
    assert list(find_layers(model, ["scores"], head=["score"])) == ["scores"]


def test_freeze_leaves_only_the_head_trainable():
    model = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("body", "score", "scores")})
    freeze(model, ["score"])
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {"score.weight", "score.bias"}


def test_replace_module_puts_it_at_the_full_path(model):
    new = nn.Linear(4, 4)
    replace_module(model, "layer.7.attention.output.dense", new)
    assert model["layer"][7].attention["output"]["dense"] is new
    replace_module(model, "classifier", new)
    assert model["classifier"] is new


ATTENTION = ["attention.self.query", "attention.self.value", "attention.output.dense", "output.dense"]
INTENDED = {
    "bert": ("bert.encoder.layer", ATTENTION),
    "roberta": ("roberta.encoder.layer", ATTENTION),
    "xlm-roberta": ("roberta.encoder.layer", ATTENTION),
    "electra": ("electra.encoder.layer", ATTENTION),
    "mpnet": (
        "mpnet.encoder.layer",
        ["attention.attn.q", "attention.attn.v", "attention.attn.o", "output.dense"],
    ),
    "distilbert": (
        "distilbert.transformer.layer",
        ["attention.q_lin", "attention.v_lin", "attention.out_lin", "ffn.lin2"],
    ),
    "deberta-v2": (
        "deberta.encoder.layer",
        ["attention.self.query_proj", "attention.self.value_proj", "attention.output.dense", "output.dense"],
    ),
    "gpt2": ("transformer.h", ["attn.c_attn", "attn.c_proj", "mlp.c_proj"]),
    "llama": ("model.layers", ["self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj"]),
}


def test_every_architecture_of_the_tables_is_tested():
    for known in ARCHITECTURE_TARGETS.values():
        assert set(known) == set(TINY_CONFIGS) == set(INTENDED)


# attention and feed-forward layers of a block, as one reads them off the architecture's own code
BERT_BLOCK = (
    ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"],
    ["intermediate.dense", "output.dense"],
)
BLOCKS = {
    "bert": BERT_BLOCK,
    "roberta": BERT_BLOCK,
    "xlm-roberta": BERT_BLOCK,
    "electra": BERT_BLOCK,
    "mpnet": ([f"attention.attn.{letter}" for letter in "qkvo"], ["intermediate.dense", "output.dense"]),
    "distilbert": ([f"attention.{name}_lin" for name in ("q", "k", "v", "out")], ["ffn.lin1", "ffn.lin2"]),
    "deberta-v2": ([name + "_proj" * ("self" in name) for name in BERT_BLOCK[0]], BERT_BLOCK[1]),
    "gpt2": (["attn.c_attn", "attn.c_proj"], ["mlp.c_fc", "mlp.c_proj"]),
    "llama": (
        [f"self_attn.{letter}_proj" for letter in "qkvo"],
        [f"mlp.{name}_proj" for name in ("gate", "up", "down")],
    ),
}


@pytest.mark.parametrize("model_type", sorted(TINY_CONFIGS))
def test_keywords_mean_these_layers_of_every_block(model_type):
    model, head = classifier(model_type)
    path, default = INTENDED[model_type]
    for keyword, projections in zip(("default", "attention", "mlp"), (default, *BLOCKS[model_type]), strict=True):
        found = choose_layers(model, model.config.model_type, keyword, head)
        assert set(found) == {f"{path}.{layer}.{projection}" for layer in range(2) for projection in projections}
    every = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    found = choose_layers(model, model.config.model_type, "all-linear", head)
    assert list(found) == [name for name in every if name.split(".")[0] not in head]
    assert len(found) >= 8


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_all_linear_leaves_the_output_embeddings_of_a_language_model_alone(model_type):
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **TINY_CONFIGS[model_type]))
    assert isinstance(model.lm_head, nn.Linear)
    found = choose_layers(model, model_type, "all-linear")
    assert found and "lm_head" not in found


def test_lists_and_all_linear_need_no_known_architecture(model):
    assert list(choose_layers(model, "mamba9", ["layer.3.query"])) == ["layer.3.query"]
    assert "classifier" not in choose_layers(model, "mamba9", "all-linear", ["classifier"])


@pytest.mark.parametrize(
    ("model_type", "targets", "message"),
    [
        ("bert", "atention", r"targets is 'atention'; allowed: default, all-linear, attention, mlp, or"),
        ("mamba9", "attention", "no attention targets for model type 'mamba9'; known types: bert"),
        ("mamba9", "default", r"model type 'mamba9'; known types: bert, .*layers called query, subquery"),
    ],
)
def test_unknown_keywords_and_architectures_are_refused(model, model_type, targets, message):
    with pytest.raises(InputError, match=message):
        choose_layers(model, model_type, targets)
    with pytest.raises(InputError, match="the backbone has no linear layers"):
        choose_layers(nn.ModuleDict({"head": nn.Linear(2, 2)}), model_type, "all-linear", ["head"])
