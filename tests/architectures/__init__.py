"""Tiny models with random weights, one per architecture, made from configurations alone."""

import json
from pathlib import Path
from typing import Any

import torch

from tests import tiny

# Initial weights are large enough for a change in one layer to show in the logits.
_SIZES = {
    **{"vocab_size": 40, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12},
    **{"max_position_embeddings": 40, "initializer_range": 0.5},
}
_TOKENS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
_DECODER = _SIZES | {"num_key_value_heads": 2, "head_dim": 4, **_TOKENS}
_BOTH = {f"{side}_{part}": size for side in ("encoder", "decoder")
         for part, size in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 24))}  # fmt: skip
_ENCODER_DECODER = {
    **{"vocab_size": 64, "d_model": 16, "max_position_embeddings": 80, "init_std": 0.3, **_BOTH, **_TOKENS},
    **{"decoder_start_token_id": 3, "forced_eos_token_id": 3},
}
_T5 = {
    **{"vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2},
    **{"initializer_factor": 1.0, "pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 0},
}
_GPT = {
    **{"vocab_size": 40, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 40, "initializer_range": 0.5},
    **_TOKENS,
}
_XLM = {"vocab_size": 64, "emb_dim": 16, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 80}
_MAMBA = _DECODER | {"state_size": 4, "expand": 2, "conv_kernel": 3, "time_step_rank": 4, "n_groups": 1, "num_heads": 4}
_MADE_ALIKE = (
    (_SIZES, "bert camembert deberta-v2 ernie fnet ibert megatron-bert mpnet roberta roberta-prelayernorm xlm-roberta"),
    (_SIZES | {"embedding_size": 8}, "albert electra roformer squeezebert"),
    (_DECODER, "biogpt gemma gemma2 gemma3_text glm gpt_neox llama mistral phi phi3 qwen2 qwen3 smollm3 stablelm"),
    (_DECODER, "starcoder2"),
    (_GPT, "gpt2 gpt_bigcode openai-gpt"),
    (_MAMBA, "falcon_mamba mamba"),
    (_T5, "t5 umt5"),
    (_XLM, "flaubert xlm"),
)

TINY_CONFIGS: dict[str, dict[str, Any]] = {
    **{kind: sizes for sizes, kinds in _MADE_ALIKE for kind in kinds.split()},
    "bart": _ENCODER_DECODER,
    "big_bird": _SIZES | {"block_size": 4, "num_random_blocks": 1, "attention_type": "original_full"},
    "bloom": _GPT | {"hidden_size": 8},
    "convbert": _SIZES | {"embedding_size": 8, "conv_kernel_size": 5},
    "deberta": _SIZES | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16},
    "distilbert": {
        **{"vocab_size": 40, "dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 12, "max_position_embeddings": 40},
        "initializer_range": 0.5,
    },
    "esm": _SIZES | {"mask_token_id": 4, "pad_token_id": 0},
    "falcon": {name: value for name, value in _DECODER.items() if name != "head_dim"},
    "funnel": {
        **{"vocab_size": 64, "block_sizes": [1, 1], "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 24},
        "initializer_std": 0.3,
    },
    "gemma3": {
        "text_config": _DECODER,
        "vision_config": _SIZES | {"image_size": 28, "patch_size": 14, "num_channels": 3},
        "mm_tokens_per_image": 4,
    },
    "gpt_neo": _SIZES
    | {"num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]], "pad_token_id": 0},
    "gptj": _GPT | {"rotary_dim": 2},
    "jamba": _DECODER
    | {"num_experts": 2, "num_experts_per_tok": 1, "mamba_dt_rank": 4, "mamba_d_state": 4, "attn_layer_offset": 1},
    "longformer": _SIZES | {"attention_window": [8, 8]},
    "mamba2": _MAMBA | {"head_dim": 4},
    "mixtral": _DECODER | {"num_local_experts": 3, "num_experts_per_tok": 2},
    "mobilebert": _SIZES | {"embedding_size": 8, "intra_bottleneck_size": 4, "true_hidden_size": 4},
    "modernbert": _SIZES | {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "global_attn_every_n_layers": 2},
    "mpt": {"vocab_size": 64, "d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 80, "expansion_ratio": 2},
    "nystromformer": _SIZES | {"num_landmarks": 4, "segment_means_seq_len": 4},
    "opt": _SIZES | {"ffn_dim": 12, "word_embed_proj_dim": 8, "pad_token_id": 0},
    "qwen2_moe": _DECODER | {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 8},
    "rembert": _SIZES | {"input_embedding_size": 8, "output_embedding_size": 8, "eos_token_id": 3},
    "xlnet": {"vocab_size": 64, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24, "initializer_range": 0.3},
}

# Language models: transformers has no classifier of some, and looks for another class in a composite model.
TINY_CONFIGS["gemma3-causal"] = TINY_CONFIGS["gemma3"]
CAUSAL = ("falcon_mamba", "gemma3-causal", "mamba", "mamba2")


def configuration(model_type: str, **settings: Any) -> Any:
    """The tiny configuration of an architecture."""
    from transformers import AutoConfig

    return AutoConfig.for_model(model_type.removesuffix("-causal"), **(TINY_CONFIGS[model_type] | settings))


def classifier(model_type: str) -> tuple[Any, tuple[str, ...]]:
    """A model and the modules of its head, in evaluation mode."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(configuration(model_type, num_labels=2)).eval()
    return model, tuple(name for name, _ in model.named_children() if name != model.base_model_prefix)


def save_backbone(model_type: str, folder: Path) -> Path:
    """A pretrained model without a head (a language model with its own) and a tokenizer, as `from_pretrained` reads."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    torch.manual_seed(0)
    causal = model_type in CAUSAL
    auto = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    bytewise = model_type == "qwen2"  # transformers reads texts as bytes then, whatever tokenizer.json says
    model = auto.from_config(configuration(model_type, **({"vocab_size": 320} if bytewise else {})))
    (model if causal else model.base_model).save_pretrained(folder)
    tiny.save_causal_tokenizer(folder, begins_texts=True) if bytewise else tiny.save_tokenizer(folder)
    path = folder / "tokenizer_config.json"
    inputs = {"model_input_names": ["input_ids", "attention_mask"]}
    path.write_text(json.dumps(json.loads(path.read_text()) | inputs))
    return folder
