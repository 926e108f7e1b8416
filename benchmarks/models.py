"""Models of real shape with random weights, made without a hub: for speed and memory weights don't matter."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from benchmarks.data import texts
from benchmarks.settings import MODEL, SEED, Settings
from common.errors import InputError
from datamodules.tokenizer import read_tokenizer

_VOCABULARY = 30522


def _minilm(pad: int) -> Any:
    from transformers import BertConfig

    return BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, pad_token_id=pad
    )


def _distilbert(pad: int) -> Any:
    from transformers import DistilBertConfig

    return DistilBertConfig(pad_token_id=pad)


def _distilgpt2(pad: int) -> Any:
    from transformers import GPT2Config

    return GPT2Config(n_layer=6, pad_token_id=pad)


def _roberta(pad: int, **sizes: Any) -> Any:
    from transformers import RobertaConfig

    return RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, pad_token_id=pad, **sizes)


def _roberta_large(pad: int) -> Any:
    return _roberta(pad, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)


ARCHITECTURES: dict[str, Callable[[int], Any]] = {
    "minilm": _minilm,
    "distilbert": _distilbert,
    "distilgpt2": _distilgpt2,
    "roberta-base": _roberta,
    "roberta-large": _roberta_large,
}


@contextmanager
def made_model(settings: Settings) -> Iterator[Settings]:
    """The settings with a folder in the place of an architecture's name; other models stay as they are."""
    if settings.model not in ARCHITECTURES:
        yield settings
        return
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(settings.model, folder, settings)
        yield replace(settings, model=folder)


def save_random_model(architecture: str, folder: str, settings: Settings) -> None:
    """Saves a base model of this architecture, and a tokenizer, as `from_pretrained` reads them."""
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = _tokenizer(settings)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(SEED)
    AutoModel.from_config(ARCHITECTURES[architecture](tokenizer.pad_token_id)).save_pretrained(folder)


def _tokenizer(settings: Settings) -> Any:
    """MiniLM's word pieces if its package is here; else word pieces learned from the texts, about as long."""
    from transformers import PreTrainedTokenizerFast

    try:
        pieces = read_tokenizer(MODEL).backend_tokenizer
    except InputError:
        pieces = _learned_pieces(texts(settings))
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces, model_input_names=["input_ids", "attention_mask"], model_max_length=512, **special
    )


def _learned_pieces(examples: list[str]) -> Any:
    from tokenizers.implementations import BertWordPieceTokenizer
    from tokenizers.processors import TemplateProcessing

    made = BertWordPieceTokenizer()
    made.train_from_iterator(iter(examples), vocab_size=_VOCABULARY, show_progress=False)
    ends = [(token, made.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return made._tokenizer
