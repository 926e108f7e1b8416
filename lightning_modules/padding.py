"""Filling rows up to the longest of their batch without changing what a model answers."""

import inspect
from typing import Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import InputError
from lightning_modules.backbone_loading import first_answer

# Padding that a model doesn't see moves its logits by rounding, 1e-6 of their size; padding that it sees, by percents.
_ROUNDING = 1e-4
# Rows of an even and of an odd number of words, because some models pool their tokens in pairs.
_TEXTS, _PADDED_BY = ("one two three", "one two three four"), 3


@torch.no_grad()
def harmless_padding_side(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Literal["right", "left"] | None:
    """The side on which padding leaves a model's answers as they are; None if it changes them on either side.

    Two rows are tried, alone and padded, on the CPU. The side that a tokenizer names itself is the one for generating
    text: GPT-2, for example, counts its positions from the left, padding included. `InputError`: the model has no
    attention mask, or no embedding for the padding token; or see `first_answer`.
    """
    check_mask(model)
    training = model.training
    model.eval()
    sides: tuple[Literal["right", "left"], ...] = ("right", "left")
    found = next((side for side in sides if all(_is_harmless(side, text, model, tokenizer) for text in _TEXTS)), None)
    model.train(training)
    return found


def check_mask(model: PreTrainedModel) -> None:
    """Raises `InputError` for a model that can't be told what is padding."""
    if "attention_mask" not in inspect.signature(model.forward).parameters:
        raise InputError(
            f"a {model.config.model_type} has no attention mask, so it takes padding for text and every row's answer "
            "would depend on its batch; allowed: a backbone with an attention mask, such as roberta-large."
        )


def _is_harmless(side: str, text: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> bool:
    alone = tokenizer(text, return_attention_mask=True, return_tensors="pt")
    length = alone["input_ids"].shape[1] + _PADDED_BY
    filled = {"padding": "max_length", "max_length": length, "padding_side": side}
    padded = tokenizer(text, return_attention_mask=True, return_tensors="pt", **filled)
    answer = first_answer(model, **alone)
    try:
        moved = (model(**padded).logits - answer).abs().max()
    except IndexError as error:
        raise InputError(
            f"the tokenizer pads with token {tokenizer.pad_token_id} ({tokenizer.pad_token!r}), for which the backbone "
            "has no embedding. Give the model one (resize_token_embeddings) and save it, or set pad_token in "
            "tokenizer_config.json to a token that it knows."
        ) from error
    return bool(moved <= _ROUNDING * answer.abs().max())
