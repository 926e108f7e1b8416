"""The operations that PyTorch counts for rows of several lengths, against a formula of the architecture."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from benchmarks.ours import needed_operations, peak_operations_per_second
from lora import LoRAXS
from lora.injection import freeze, prepare_frozen_layers

LENGTHS = [3, 9, 9, 40]
WIDTH, LAYERS, RANK, WORDS = 64, 3, 5, 50
# sizes of a kind of model, its head, adapted layers of a block, and how many of these read the block's input
KINDS = {
    "distilbert": (
        {"dim": WIDTH, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 4 * WIDTH},
        ("classifier", "pre_classifier"),
        (4, 2),
    ),
    "gpt2": ({"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 2}, (), (3, 1)),
}


def expected(kind):
    """Two operations for each entry of a matrix and token, forward, and back but for the first layer's input."""
    _, head, (adapted, reading) = KINDS[kind]
    frozen = 2 * LAYERS * 12 * WIDTH**2 - 3 * WIDTH**2
    adapter = LAYERS * (2 * 11 * WIDTH * RANK + 3 * adapted * RANK**2) - reading * (WIDTH * RANK + RANK**2)
    vocabulary = 0 if head else 2 * WIDTH * WORDS
    attention = 12 * WIDTH * LAYERS
    return sum(2 * length * (frozen + adapter + vocabulary) + attention * length**2 for length in LENGTHS)


@pytest.mark.parametrize("kind", KINDS)
def test_operations_are_those_of_the_architecture(kind):
    torch.manual_seed(0)
    sizes, head, _ = KINDS[kind]
    auto = AutoModelForSequenceClassification if head else AutoModelForCausalLM
    model = auto.from_config(AutoConfig.for_model(kind, vocab_size=WORDS, **sizes))
    freeze(model, head)
    adapter = LoRAXS(RANK)
    adapter.attach(model, kind, head)
    prepare_frozen_layers(model)  # packed in training, which the counter doesn't know
    assert needed_operations(model, adapter, torch.tensor(LENGTHS)) == pytest.approx(expected(kind), rel=0.02)


def test_the_peak_is_a_rate_above_zero():
    assert peak_operations_per_second("32-true") > 1e8
