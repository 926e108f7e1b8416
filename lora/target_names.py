"""What the keywords for `targets` mean in each architecture: layer names, by `model.config.model_type`."""

from dataclasses import dataclass
from typing import Literal

Targets = list[str] | Literal["default", "all-linear", "attention", "mlp"]
KEYWORDS = ("default", "all-linear", "attention", "mlp")


@dataclass(frozen=True)
class Block:
    """The projections of one kind of transformer block."""

    attention: tuple[str, ...]  # of the attention: query, value and output, or what holds them
    mlp: tuple[str, ...]  # of the feed-forward layers, the output last; what also is an attention target doesn't count
    key: tuple[str, ...] = ()  # of the attention's keys, where it is a layer of its own


_BERT_MLP = ("intermediate.dense", "output.dense")
_BERT = Block(("query", "value", "attention.output.dense"), _BERT_MLP, ("key",))
_LLAMA = Block(("q_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj"), ("k_proj",))
_BLOCKS = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "electra"), _BERT),
    "albert": Block(
        ("attention.query", "attention.value", "attention.dense"), ("ffn", "ffn_output"), ("attention.key",)
    ),
    "mpnet": Block(("attention.attn.q", "attention.attn.v", "attention.attn.o"), _BERT_MLP, ("attention.attn.k",)),
    "distilbert": Block(("q_lin", "v_lin", "out_lin"), ("ffn.lin1", "ffn.lin2"), ("k_lin",)),
    "deberta": Block(("self.in_proj", "attention.output.dense"), _BERT_MLP),
    "deberta-v2": Block(("query_proj", "value_proj", "attention.output.dense"), _BERT_MLP, ("key_proj",)),
    "modernbert": Block(("attn.Wqkv", "attn.Wo"), ("mlp.Wi", "mlp.Wo")),
    "t5": Block(("*Attention.q", "*Attention.v", "*Attention.o"), ("DenseReluDense.wi*", "wo"), ("*Attention.k",)),
    "gpt2": Block(("attn.c_attn", "attn.c_proj"), ("mlp.c_fc", "mlp.c_proj")),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "gemma3_text"), _LLAMA),
    "phi3": Block(("qkv_proj", "o_proj"), ("gate_up_proj", "down_proj")),
}

# The layers that LoRA-XS adapts in RoBERTa (query, value, both output projections), by their names elsewhere.
DEFAULT_TARGETS = {name: (*block.attention, block.mlp[-1]) for name, block in _BLOCKS.items()}
# Every projection of the attention blocks, and every layer of the feed-forward blocks.
ATTENTION_TARGETS = {name: (*block.attention, *block.key) for name, block in _BLOCKS.items()}
MLP_TARGETS = {name: block.mlp for name, block in _BLOCKS.items()}

ARCHITECTURE_TARGETS = {"default": DEFAULT_TARGETS, "attention": ATTENTION_TARGETS, "mlp": MLP_TARGETS}
