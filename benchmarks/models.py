"""Models of real shape with random weights, made without a hub: for speed and memory weights don't matter."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from benchmarks.data import data_module
from benchmarks.settings import MODEL, SEED, Settings
from common.backbones import locate_backbone
from common.errors import InputError
from datamodules.tokenizer import read_tokenizer

_VOCABULARY = 30522
_ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
# The kind of model and what differs from its default config.
ARCHITECTURES: dict[str, tuple[str, dict[str, int]]] = {
    "minilm": (
        "bert",
        {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    ),
    "distilbert": ("distilbert", {}),
    "distilgpt2": ("gpt2", {"n_layer": 6}),
    "roberta-base": ("roberta", _ROBERTA),
    "roberta-large": (
        "roberta",
        _ROBERTA | {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    ),
}


def architecture_config(architecture: str, pad: int) -> Any:
    """The config of an architecture by its name; `pad` is the id of the pad token."""
    from transformers import AutoConfig

    kind, sizes = ARCHITECTURES[architecture]
    return AutoConfig.for_model(kind, pad_token_id=pad, **sizes)


@contextmanager
def made_model(settings: Settings) -> Iterator[Settings]:
    """The settings with a folder in the place of an architecture's name; other models stay as they are.

    The folder holds a base model with random weights and a tokenizer, as `from_pretrained` reads them.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    if settings.model not in ARCHITECTURES:
        yield settings
        return
    logging.disable_progress_bar()
    tokenizer = _tokenizer(settings)
    torch.manual_seed(SEED)
    model = AutoModel.from_config(architecture_config(settings.model, tokenizer.pad_token_id))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
        del model
        yield replace(settings, model=folder)


def pretrained_model(settings: Settings) -> Any:
    """transformers' own model for sequence classification or causal language modelling, as it comes."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, set_seed
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    set_seed(SEED)
    folder = locate_backbone(settings.model)
    if settings.models_language:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    labels = data_module(settings).task.num_labels
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels, dtype=torch.float32)


def _tokenizer(settings: Settings) -> Any:
    """MiniLM's word pieces if its package is here; else word pieces learned from the texts, about as long."""
    from transformers import PreTrainedTokenizerFast

    try:
        pieces = read_tokenizer(MODEL).backend_tokenizer
    except InputError:
        pieces = _learned_pieces(settings)
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces, model_input_names=["input_ids", "attention_mask"], model_max_length=512, **special
    )


def _learned_pieces(settings: Settings) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.implementations import BertWordPieceTokenizer
    from tokenizers.processors import TemplateProcessing

    data = data_module(settings)
    texts = data.load_texts()["train"] if settings.models_language else data.load_examples()["train"].texts
    trained = BertWordPieceTokenizer()
    trained.train_from_iterator(iter(texts), vocab_size=_VOCABULARY, show_progress=False)
    made = Tokenizer.from_str(trained.to_str())
    ends = [(token, made.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return made
