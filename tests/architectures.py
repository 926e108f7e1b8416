"""One tiny classifier with random weights per architecture that has default targets."""

from typing import Any

import torch

_SIZES = {
    "vocab_size": 40,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 40,
    "initializer_range": 0.5,  # large enough for a change in one layer to show in the logits
}
TINY_CONFIGS: dict[str, dict[str, Any]] = {
    "bert": _SIZES,
    "roberta": _SIZES,
    "xlm-roberta": _SIZES,
    "electra": _SIZES | {"embedding_size": 8},
    "mpnet": _SIZES,
    "deberta-v2": _SIZES,
    "distilbert": {
        "vocab_size": 40,
        "dim": 8,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 12,
        "max_position_embeddings": 40,
        "initializer_range": 0.5,
    },
    "gpt2": {
        "vocab_size": 40,
        "n_embd": 8,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 40,
        "initializer_range": 0.5,
        "pad_token_id": 0,
    },
    "llama": _SIZES | {"num_key_value_heads": 2, "pad_token_id": 0},
}


def classifier(model_type: str) -> tuple[Any, tuple[str, ...]]:
    """A model and the modules of its head, in evaluation mode."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, num_labels=2, **TINY_CONFIGS[model_type])
    model = AutoModelForSequenceClassification.from_config(config).eval()
    return model, tuple(name for name, _ in model.named_children() if name != model.base_model_prefix)
