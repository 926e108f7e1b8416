import pytest
from torch import nn
from transformers.pytorch_utils import Conv1D

from common.errors import InputError
from lora.injection import architecture_targets, choose_layers, find_layers, freeze, replace_module
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


def test_every_default_is_tested():
    from lora.target_names import DEFAULT_TARGETS

    assert set(DEFAULT_TARGETS) == set(TINY_CONFIGS) == set(INTENDED)


def test_an_architecture_without_defaults_names_the_models_layers(model):
    with pytest.raises(InputError, match=r"model type 'mamba9'; known types: bert, .*layers called query, subquery"):
        architecture_targets("default", "mamba9", model)
