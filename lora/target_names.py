"""What the keywords for `targets` mean in each architecture: layer names, by `model.config.model_type`."""

from typing import Literal

Targets = list[str] | Literal["default", "all-linear", "attention", "mlp"]
KEYWORDS = ("default", "all-linear", "attention", "mlp")

# The layers that LoRA-XS adapts in RoBERTa (query, value, both output projections), by their names elsewhere.
DEFAULT_TARGETS: dict[str, tuple[str, ...]] = {
    "bert": ("query", "value", "attention.output.dense", "output.dense"),
    "roberta": ("query", "value", "attention.output.dense", "output.dense"),
    "xlm-roberta": ("query", "value", "attention.output.dense", "output.dense"),
    "electra": ("query", "value", "attention.output.dense", "output.dense"),
    "mpnet": ("attention.attn.q", "attention.attn.v", "attention.attn.o", "output.dense"),
    "distilbert": ("q_lin", "v_lin", "out_lin", "ffn.lin2"),
    "deberta-v2": ("query_proj", "value_proj", "attention.output.dense", "output.dense"),
    "gpt2": ("attn.c_attn", "attn.c_proj", "mlp.c_proj"),
    "llama": ("q_proj", "v_proj", "o_proj", "down_proj"),
}

# Every projection of the attention blocks.
ATTENTION_TARGETS: dict[str, tuple[str, ...]] = {
    "bert": ("query", "key", "value", "attention.output.dense"),
    "roberta": ("query", "key", "value", "attention.output.dense"),
    "xlm-roberta": ("query", "key", "value", "attention.output.dense"),
    "electra": ("query", "key", "value", "attention.output.dense"),
    "mpnet": ("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"),
    "distilbert": ("q_lin", "k_lin", "v_lin", "out_lin"),
    "deberta-v2": ("query_proj", "key_proj", "value_proj", "attention.output.dense"),
    "gpt2": ("attn.c_attn", "attn.c_proj"),
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj"),
}

# Every layer of the feed-forward blocks; what also is an attention target doesn't count.
MLP_TARGETS: dict[str, tuple[str, ...]] = {
    "bert": ("intermediate.dense", "output.dense"),
    "roberta": ("intermediate.dense", "output.dense"),
    "xlm-roberta": ("intermediate.dense", "output.dense"),
    "electra": ("intermediate.dense", "output.dense"),
    "mpnet": ("intermediate.dense", "output.dense"),
    "distilbert": ("ffn.lin1", "ffn.lin2"),
    "deberta-v2": ("intermediate.dense", "output.dense"),
    "gpt2": ("mlp.c_fc", "mlp.c_proj"),
    "llama": ("gate_proj", "up_proj", "down_proj"),
}

ARCHITECTURE_TARGETS = {"default": DEFAULT_TARGETS, "attention": ATTENTION_TARGETS, "mlp": MLP_TARGETS}
