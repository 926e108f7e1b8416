"""The keywords of `targets`, architecture by architecture, against its own code."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification
from transformers.pytorch_utils import Conv1D

from lora.injection import choose_layers
from lora.target_names import ARCHITECTURE_TARGETS
from tests.architectures import TINY_CONFIGS, classifier, configuration

# blocks; query, value and both output projections; attention; feed-forward: as one reads them off the architecture's
# own code
BERT_MLP = ["intermediate.dense", "output.dense"]
BERT = (
    ["attention.self.query", "attention.self.value", "attention.output.dense", "output.dense"],
    ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"],
    BERT_MLP,
)
LLAMA = (
    ["self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj"],
    [f"self_attn.{letter}_proj" for letter in "qkvo"],
    [f"mlp.{name}_proj" for name in ("gate", "up", "down")],
)
T5_ATTENTION = (
    "encoder.block.{}.layer.0.SelfAttention",
    "decoder.block.{}.layer.0.SelfAttention",
    "decoder.block.{}.layer.1.EncDecAttention",
)
T5_MLP = ("encoder.block.{}.layer.1.DenseReluDense", "decoder.block.{}.layer.2.DenseReluDense")
INTENDED = {
    "albert": (
        "albert.encoder.albert_layer_groups.0.albert_layers.0",
        ["attention.query", "attention.value", "attention.dense", "ffn_output"],
        [f"attention.{name}" for name in ("query", "key", "value", "dense")],
        ["ffn", "ffn_output"],
    ),
    "bert": ("bert.encoder.layer.{}", *BERT),
    "roberta": ("roberta.encoder.layer.{}", *BERT),
    "xlm-roberta": ("roberta.encoder.layer.{}", *BERT),
    "electra": ("electra.encoder.layer.{}", *BERT),
    "mpnet": (
        "mpnet.encoder.layer.{}",
        [*(f"attention.attn.{letter}" for letter in "qvo"), "output.dense"],
        [f"attention.attn.{letter}" for letter in "qkvo"],
        BERT_MLP,
    ),
    "distilbert": (
        "distilbert.transformer.layer.{}",
        ["attention.q_lin", "attention.v_lin", "attention.out_lin", "ffn.lin2"],
        [f"attention.{name}_lin" for name in ("q", "k", "v", "out")],
        ["ffn.lin1", "ffn.lin2"],
    ),
    "deberta": (
        "deberta.encoder.layer.{}",
        ["attention.self.in_proj", "attention.output.dense", "output.dense"],
        ["attention.self.in_proj", "attention.output.dense"],
        BERT_MLP,
    ),
    "deberta-v2": (
        "deberta.encoder.layer.{}",
        *([name + "_proj" * (".self." in name) for name in names] for names in BERT),
    ),
    "modernbert": (
        "model.layers.{}",
        ["attn.Wqkv", "attn.Wo", "mlp.Wo"],
        ["attn.Wqkv", "attn.Wo"],
        ["mlp.Wi", "mlp.Wo"],
    ),
    "gpt2": (
        "transformer.h.{}",
        ["attn.c_attn", "attn.c_proj", "mlp.c_proj"],
        ["attn.c_attn", "attn.c_proj"],
        ["mlp.c_fc", "mlp.c_proj"],
    ),
    "t5": (
        "transformer",
        [*(f"{path}.{letter}" for path in T5_ATTENTION for letter in "qvo"), *(f"{path}.wo" for path in T5_MLP)],
        [f"{path}.{letter}" for path in T5_ATTENTION for letter in "qkvo"],
        [f"{path}.{name}" for path in T5_MLP for name in ("wi", "wo")],
    ),
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"), ("model.layers.{}", *LLAMA)
    ),
    "gemma3": ("model.language_model.layers.{}", *LLAMA),
    "phi3": (
        "model.layers.{}",
        ["self_attn.qkv_proj", "self_attn.o_proj", "mlp.down_proj"],
        ["self_attn.qkv_proj", "self_attn.o_proj"],
        ["mlp.gate_up_proj", "mlp.down_proj"],
    ),
}


def test_every_architecture_of_the_tables_is_tested():
    for known in ARCHITECTURE_TARGETS.values():
        assert set(known) == set(INTENDED) <= set(TINY_CONFIGS)


@pytest.mark.parametrize("model_type", sorted(INTENDED))
def test_keywords_mean_these_layers_of_every_block(model_type):
    model, head = classifier(model_type)
    path, *intended = INTENDED[model_type]
    for keyword, projections in zip(("default", "attention", "mlp"), intended, strict=True):
        found = choose_layers(model, model.config.model_type, keyword, head)
        assert set(found) == {f"{path}.{projection}".format(layer) for layer in range(2) for projection in projections}
    every = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    found = choose_layers(model, model.config.model_type, "all-linear", head)
    assert list(found) == [name for name in every if name.split(".")[0] not in head and "vision" not in name]
    assert len(found) >= 8


def test_a_gated_t5_has_its_own_feed_forward_layers():
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(configuration("t5", feed_forward_proj="gated-gelu"))
    found = choose_layers(model, "t5", "mlp", ["classification_head"])
    assert {name.rpartition(".")[2] for name in found} == {"wi_0", "wi_1", "wo"} and len(found) == 12
