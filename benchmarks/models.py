"""Models of real shape with random weights, made without a hub: for speed and memory weights don't matter."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)
from transformers.utils import logging

from benchmarks.data import data_module
from benchmarks.settings import MODEL, SEED, BenchmarkSettings
from common.backbones import locate_backbone
from datamodules.tokenizer import read_tokenizer

_LARGE = {"num_hidden_layers": 24, "num_attention_heads": 16}
_ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
# The kind of model and what differs from its default config.
ARCHITECTURES: dict[str, tuple[str, dict[str, int]]] = {
    "tiny": (
        "bert",
        {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512},
    ),
    "minilm": (
        "bert",
        {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    ),
    "distilbert": ("distilbert", {}),
    "distilgpt2": ("gpt2", {"n_layer": 6}),
    "roberta-base": ("roberta", _ROBERTA),
    "roberta-large": (
        "roberta",
        _ROBERTA | _LARGE | {"hidden_size": 1024, "intermediate_size": 4096},
    ),
    "roberta-large-narrow": ("roberta", _ROBERTA | _LARGE | {"hidden_size": 64, "intermediate_size": 256}),
}


def architecture_config(architecture: str, pad: int | None) -> PretrainedConfig:
    """The config of an architecture by its name; `pad` is the id of the pad token."""
    kind, sizes = ARCHITECTURES[architecture]
    return AutoConfig.for_model(kind, pad_token_id=pad, **sizes)


@contextmanager
def made_model(settings: BenchmarkSettings) -> Iterator[BenchmarkSettings]:
    """The settings with a folder in the place of an architecture's name; other models stay as they are.

    The folder holds a base model with random weights and a tokenizer, as `from_pretrained` reads them.
    """
    if settings.model not in ARCHITECTURES:
        yield settings
        return
    logging.disable_progress_bar()
    tokenizer = _tokenizer()
    torch.manual_seed(SEED)
    model = AutoModel.from_config(architecture_config(settings.model, tokenizer.pad_token_id))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
        del model
        yield replace(settings, model=folder)


def pretrained_model(settings: BenchmarkSettings) -> PreTrainedModel:
    """transformers' own model for sequence classification or causal language modelling, as it comes."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    set_seed(SEED)
    folder = locate_backbone(settings.model)
    if settings.models_language:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    labels = data_module(settings).task.num_labels
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels, dtype=torch.float32)


def _tokenizer() -> PreTrainedTokenizerFast:
    """MiniLM's word pieces, for every architecture: random weights need no vocabulary of their own."""
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(
        tokenizer_object=read_tokenizer(MODEL).backend_tokenizer,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=512,
        **special,
    )
