"""Models of real shape with random weights, made without a hub: for speed and memory weights don't matter."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DistilBertConfig,
    GPT2Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    set_seed,
)
from transformers.utils import logging

from benchmarks.data import data_module
from benchmarks.settings import MODEL, SEED, BenchmarkSettings
from datamodules.tokenizer import read_tokenizer
from lightning_modules.backbone_loading import load_pretrained

_LARGE = {"num_hidden_layers": 24, "num_attention_heads": 16}
ARCHITECTURES: dict[str, Callable[..., PretrainedConfig]] = {
    "distilbert": DistilBertConfig,
    "distilgpt2": partial(GPT2Config, n_layer=6),
    "roberta-base": RobertaConfig,
    "roberta-large": partial(RobertaConfig, hidden_size=1024, intermediate_size=4096, **_LARGE),
    "roberta-large-narrow": partial(RobertaConfig, hidden_size=64, intermediate_size=256, **_LARGE),
}


@contextmanager
def made_model(settings: BenchmarkSettings) -> Iterator[BenchmarkSettings]:
    """The settings with a folder in the place of an architecture's name; other models stay as they are.

    The folder holds a base model with random weights and MiniLM's word pieces, as `from_pretrained` reads them: random
    weights need no vocabulary of their own.
    """
    if settings.model not in ARCHITECTURES:
        yield settings
        return
    logging.disable_progress_bar()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=read_tokenizer(MODEL).backend_tokenizer,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=512,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
    )
    set_seed(SEED)
    model = AutoModel.from_config(ARCHITECTURES[settings.model](pad_token_id=tokenizer.pad_token_id))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
        del model
        yield replace(settings, model=folder)


def pretrained_model(settings: BenchmarkSettings) -> PreTrainedModel:
    """transformers' own model for sequence classification or causal language modelling, as it comes."""
    set_seed(SEED)
    if settings.models_language:
        return load_pretrained(AutoModelForCausalLM, settings.model)[0]
    labels = data_module(settings).task.num_labels
    return load_pretrained(AutoModelForSequenceClassification, settings.model, num_labels=labels)[0]
