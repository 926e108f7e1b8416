import pytest
from torch import nn
from transformers.pytorch_utils import Conv1D

from common.errors import InputError
from lora.injection import architecture_targets, choose_layers, find_layers, freeze, replace_module
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


def numbers(found) -> list[int]:
    return [int(name.split(".")[1]) for name in found]


def test_a_target_matches_whole_components_at_the_end_of_a_path(model):
    found = find_layers(model, ["query"])
    assert list(found) == [f"layer.{number}.query" for number in range(12)]  # not subquery
    assert list(find_layers(model, ["output.dense"])) == [f"layer.{n}.attention.output.dense" for n in range(12)]
    assert list(find_layers(model, ["layer.3.query"])) == ["layer.3.query"]
    assert all(found[name] is model.get_submodule(name) for name in found)


def test_both_kinds_of_linear_layer_can_be_chosen(model):
    assert all(isinstance(layer, Conv1D) for layer in find_layers(model, ["mix"]).values())


def test_wildcards_choose_among_layers(model):
    assert numbers(find_layers(model, ["layer.1*.query"])) == [1, 10, 11]
    assert numbers(find_layers(model, ["layer.?.query"])) == list(range(10))
    both = find_layers(model, ["layer.0.*query"])
    assert list(both) == ["layer.0.query", "layer.0.subquery"]


def test_order_is_the_models_whatever_the_order_of_the_targets(model):
    found = list(find_layers(model, ["mix", "layer.1.query", "query", "output.dense"]))
    in_model = [name for name, _ in model.named_modules() if name in set(found)]
    assert found == in_model
    assert len(found) == len(set(found)) == 36


def test_a_target_without_match_lists_near_misses(model):
    with pytest.raises(InputError, match=r"target 'querry' matches no layer.*near misses: query"):
        find_layers(model, ["query", "querry"])
    with pytest.raises(InputError, match=r"'self.dense'.*near misses: .*attention.output.dense"):
        find_layers(model, ["self.dense"])


def test_a_target_like_nothing_lists_the_models_linear_layers(model):
    with pytest.raises(InputError, match=r"'zzzz'.*linear layers: query, subquery, attention.output.dense, mix"):
        find_layers(model, ["zzzz"])


def test_part_of_a_component_does_not_match(model):
    with pytest.raises(InputError, match="'uery' matches no layer"):
        find_layers(model, ["uery"])


def test_no_targets_at_all_are_refused(model):
    with pytest.raises(InputError, match="targets is empty"):
        find_layers(model, [])


def test_a_match_that_is_no_linear_layer_is_refused(model):
    with pytest.raises(InputError, match=r"'norm' matches layer.0.attention.output.norm, a LayerNorm; allowed: Linear"):
        find_layers(model, ["norm"])


@pytest.mark.parametrize(("target", "head"), [("classifier", "classifier"), ("layer.3.mix", "layer.3")])
def test_a_match_in_the_head_is_refused(model, target, head):
    with pytest.raises(InputError, match=rf"matches {target}, which belongs to the head"):
        find_layers(model, [target], head=["pooler", head])


def test_a_star_names_the_first_thing_it_can_not_adapt(model):
    with pytest.raises(InputError, match=r"target '\*' matches layer, a ModuleList"):
        find_layers(model, ["*"])


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


@pytest.mark.parametrize("model_type", sorted(TINY_CONFIGS))
def test_default_targets_are_query_value_and_both_output_projections(model_type):
    model, head = classifier(model_type)
    found = find_layers(model, architecture_targets("default", model.config.model_type, model), head)
    path, projections = INTENDED[model_type]
    assert set(found) == {f"{path}.{layer}.{projection}" for layer in range(2) for projection in projections}


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
def test_attention_and_mlp_are_the_two_halves_of_every_block(model_type):
    model, head = classifier(model_type)
    path, halves = INTENDED[model_type][0], BLOCKS[model_type]
    for keyword, half in zip(("attention", "mlp"), halves, strict=True):
        found = choose_layers(model, model.config.model_type, keyword, head)
        assert set(found) == {f"{path}.{layer}.{projection}" for layer in range(2) for projection in half}


@pytest.mark.parametrize("model_type", sorted(TINY_CONFIGS))
def test_all_linear_is_every_linear_layer_outside_the_head(model_type):
    model, head = classifier(model_type)
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


def test_lists_and_unknown_keywords(model):
    assert list(choose_layers(model, "mamba9", ["layer.3.query"])) == ["layer.3.query"]
    assert "classifier" not in choose_layers(model, "mamba9", "all-linear", ["classifier"])  # in any architecture
    with pytest.raises(InputError, match=r"targets is 'atention'; allowed: default, all-linear, attention, mlp, or"):
        choose_layers(model, "bert", "atention")
    with pytest.raises(InputError, match="no attention targets for model type 'mamba9'; known types: bert"):
        choose_layers(model, "mamba9", "attention")
    with pytest.raises(InputError, match="the backbone has no linear layers"):
        choose_layers(nn.ModuleDict({"head": nn.Linear(2, 2)}), "bert", "all-linear", ["head"])


def test_an_architecture_without_defaults_names_the_models_layers(model):
    with pytest.raises(InputError, match=r"model type 'mamba9'; known types: bert, .*layers called query, subquery"):
        architecture_targets("default", "mamba9", model)
