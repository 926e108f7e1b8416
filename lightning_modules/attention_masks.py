"""Attention masks made on the host, once for all layers.

transformers looks at the values of a mask of (rows, length) to leave out one that masks nothing, and so waits for the
device at every step. A mask that is ready, (rows, 1, 1 or length, length), it hands to the attention as it is.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

# Architectures that do nothing else with a mask, and attend to everything (no sliding windows).
_ENCODERS = (
    *("albert", "bert", "camembert", "data2vec-text", "distilbert", "electra", "ernie", "mobilebert", "roberta"),
    *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl"),
)
_DECODERS = ("gpt2", "llama", "qwen2")
_OWN_ATTENTION = ("mpnet",)  # adds the mask to its scores itself
_ATTENTION = "sdpa_of_ready_masks"
_TYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "64-true": torch.float64}


def attention_of(model: PreTrainedModel) -> str:
    """The attention that a model computes with, such as sdpa; transformers has a public way to set it, none to ask."""
    return str(model.config._attn_implementation)


def accept_ready_masks(model: PreTrainedModel) -> bool:
    """Lets a model accept masks of `with_ready_mask`; whether its architecture can."""
    kind, attention = model.config.model_type, attention_of(model)
    if kind in _OWN_ATTENTION:
        return attention == "eager"
    slides = "sliding_attention" in (getattr(model.config, "layer_types", None) or ())
    looks_back = kind in _ENCODERS and getattr(model.config, "is_decoder", False)
    looks_ahead = kind in _DECODERS and not getattr(model.config, "is_causal", True)  # a decoder made an encoder
    other = slides or looks_back or looks_ahead or kind not in (*_ENCODERS, *_DECODERS)
    if other or attention not in ("sdpa", _ATTENTION):
        return False
    if kind in _DECODERS:
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask

        AttentionInterface.register(_ATTENTION, _attend)
        AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
        model.set_attn_implementation(_ATTENTION)
    return True


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    mask = None if mask is None or not mask.numel() else mask
    return sdpa_attention_forward(module, query, key, value, mask, **settings)


def with_ready_mask(
    inputs: dict[str, Tensor], model_type: str, precision: str, always: bool = False
) -> dict[str, Tensor]:
    """The inputs with a mask that is added to the attention's scores, in the type that they are computed in.

    Args:
        inputs: on the host, with attention_mask (rows, length).
        model_type: of a model for which `accept_ready_masks` is true.
        precision: Lightning's name for it.
        always: whether there is to be a mask where nothing is padded, too: one kind of batch means one compiled graph.

    Returns:
        attention_mask (rows, 1, 1, length) for an encoder, (rows, 1, length, length) for a decoder. Where nothing is
        padded an encoder has none, and a decoder an empty one, for which attention is causal.
    """
    real = inputs["attention_mask"].bool()
    others = {name: cells for name, cells in inputs.items() if name != "attention_mask"}
    dtype, decodes = _TYPES.get(precision, torch.float32), model_type in _DECODERS
    if not always and real.all():
        return {**others, "attention_mask": torch.zeros(len(real), 1, 1, 0, dtype=dtype)} if decodes else others
    seen = real[:, None, None, :]
    if decodes:
        seen = seen & torch.ones(real.shape[1], real.shape[1], dtype=torch.bool).tril()
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
    return {**others, "attention_mask": mask}
