"""The arithmetic that a step is said to need, against what PyTorch counts while a step runs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from benchmarks.arithmetic import Work, needed_operations, peak_operations_per_second
from lightning_modules.first_token import use_first_token_only
from lora import LoRAXS
from lora.injection import freeze

ROWS, LENGTH, WIDTH, LAYERS = 4, 8, 64, 3
WORK = Work(ROWS, ROWS * LENGTH, float(ROWS * LENGTH**2))
BERT = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 4 * WIDTH}
# sizes of a kind of model, and its head
KINDS = {
    "bert": (BERT, ("classifier", "bert.pooler")),
    "distilbert": (
        {"dim": WIDTH, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 4 * WIDTH},
        ("classifier", "pre_classifier"),
    ),
    "gpt2": ({"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 2}, ()),
}


def adapted(kind):
    torch.manual_seed(0)
    sizes, head = KINDS[kind]
    # eager: as single products, which the counter knows
    config = AutoConfig.for_model(kind, vocab_size=50, attn_implementation="eager", **sizes)
    auto = AutoModelForSequenceClassification if head else AutoModelForCausalLM
    model = auto.from_config(config)
    freeze(model, head)
    adapter = LoRAXS(5)
    adapter.attach(model, kind, head)
    use_first_token_only(model)
    return model.double().eval(), adapter.double(), head  # double: not packed, so that products can be counted


def counted(model, adapter):
    with FlopCounterMode(display=False) as counter:
        adapter.refresh()
        tokens = torch.randint(1, 50, (ROWS, LENGTH))
        language = model.get_output_embeddings() is not None
        model(input_ids=tokens, labels=tokens if language else torch.zeros(ROWS, dtype=torch.long)).loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", ["distilbert", "gpt2"])
def test_a_model_that_uses_every_token_needs_what_it_does(kind):
    model, adapter, head = adapted(kind)
    assert needed_operations(model, head, WORK) == pytest.approx(counted(model, adapter), rel=0.02)


def test_what_the_last_layer_leaves_out_is_not_needed():
    model, adapter, head = adapted("bert")
    done, needed = counted(model, adapter), needed_operations(model, head, WORK)
    # a query of the last layer for every token is done, but not needed
    assert 0.93 * done < needed < done


def test_the_peak_is_a_rate_above_zero():
    assert peak_operations_per_second("32-true", samples=1) > 1e8
