"""What every side is given: settings, rows, and a model, which may have random weights of a real shape.

For speed and memory weights don't matter, and random ones need no hub.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import transformers
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch.cli import instantiate_class
from torch import Tensor
from transformers.utils import logging

from common.errors import InputError
from common.machine import usable_cores
from datamodules.batching import global_batches
from datamodules.tokenization import TokenizedSplit
from datamodules.tokenizer import read_tokenizer
from lightning_modules.backbone_loading import load_pretrained

MODEL = "package:all-MiniLM-L6-v2"
MAX_LENGTH = 128
SEED = 42
_SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "cola": ("GLUEDataModule", {"task": "cola", "max_length": MAX_LENGTH}),
    "ag_news": ("AGNewsDataModule", {"max_length": MAX_LENGTH}),
    "wikitext": ("WikiTextDataModule", {"variant": "wikitext-2", "block_size": MAX_LENGTH, "validation_rows": 64}),
}
_LARGE = {"num_hidden_layers": 24, "num_attention_heads": 16}
ARCHITECTURES: dict[str, Callable[..., transformers.PretrainedConfig]] = {
    "distilbert": transformers.DistilBertConfig,
    "distilgpt2": partial(transformers.GPT2Config, n_layer=6),
    "roberta-base": transformers.RobertaConfig,
    "roberta-large": partial(transformers.RobertaConfig, hidden_size=1024, intermediate_size=4096, **_LARGE),
    "roberta-large-narrow": partial(transformers.RobertaConfig, hidden_size=64, intermediate_size=256, **_LARGE),
}


@dataclass(frozen=True)
class BenchmarkSettings:
    """The settings that both sides of every pair share.

    Args:
        data_dir: folder of the data, as their data module reads it; the quickstart corpus if not given.
        data: what data_dir holds: cola, ag_news, or wikitext (language modelling on blocks of 128 tokens).
        model: package:NAME, a folder or a hub name; or an architecture with random weights: distilbert, distilgpt2,
            roberta-base, roberta-large.
        device: auto takes the GPU if there is one.
        precision: of both sides: 32-true, or bf16-mixed (autocast).
        batch_size: rows of a batch.
        steps: timed optimizer steps, at most those of one epoch; 0 for all of them.
        warm_up_steps: steps before them, not timed.
        threads: threads of PyTorch in each process; 0 for all cores.
    """

    data_dir: str | None = None
    data: Literal["cola", "ag_news", "wikitext"] = "cola"
    model: str = MODEL
    device: Literal["auto", "cpu"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    batch_size: PositiveInt = 32
    steps: NonNegativeInt = 100
    warm_up_steps: PositiveInt = 10
    threads: NonNegativeInt = 0

    @property
    def models_language(self) -> bool:
        """Whether sides train on language modelling; else on the classification of texts."""
        return self.data == "wikitext"

    @property
    def thread_count(self) -> int:
        return self.threads or usable_cores()

    @property
    def all_steps(self) -> int:
        """Optimizer steps of a measured run, timed or not."""
        return self.warm_up_steps + self.steps

    def environment(self) -> dict[str, str]:
        """The environment of a measured process: the same number of threads and one device for every side."""
        fixed = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self.thread_count))
        device = "" if self.device == "cpu" else os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        return {**fixed, "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": device}


def data_config(settings: BenchmarkSettings) -> dict[str, Any]:
    """The data section of a run's config: what the folder holds, or the quickstart corpus.

    `InputError`: data other than CoLA's are to be used, and there is no folder of them.
    """
    if settings.data_dir is None and settings.data != "cola":
        raise InputError(f"--data is {settings.data}, and there is no --data_dir; give the folder that holds it.")
    name, source = "QuickstartDataModule", dict[str, Any](max_length=MAX_LENGTH)
    if settings.data_dir is not None:
        name, source = _SOURCES[settings.data]
        source = {"data_dir": settings.data_dir, **source}
    return {"class_path": f"datamodules.{name}", "init_args": {**source, "batch_size": settings.batch_size}}


def data_module(settings: BenchmarkSettings) -> Any:
    """The data module of a run with these settings, not yet set up."""
    config = data_config(settings)
    config["init_args"] |= {"backbone": settings.model, "seed": SEED}
    return instantiate_class((), config)


def training_rows(settings: BenchmarkSettings) -> tuple[TokenizedSplit, transformers.PreTrainedTokenizerBase]:
    """The tokenised training rows, and their tokenizer."""
    data = data_module(settings)
    data.setup("fit")
    return data.train_dataloader().split, data.tokenizer


def data_name(settings: BenchmarkSettings) -> str:
    """Which data were used, for the output."""
    lengths = training_rows(settings)[0].lengths
    size = f"{len(lengths):,} training rows of {float(lengths.double().mean()):.1f} tokens on average"
    if settings.data_dir is None:
        return f"quickstart corpus, {size} (not CoLA, whose sentences have other lengths: --data_dir FOLDER)"
    return f"{settings.data}, {size}"


def batches(lengths: Tensor, settings: BenchmarkSettings) -> list[Tensor]:
    """Row indices of each batch of a measured run, warm-up first: those of our runs' first epoch.

    Grouped by length within an epoch of all rows, where the Trainer's grouping pads as much as ours. Of a few rows
    alone it makes batches that pad up to twice as much, which would count as our speed. `lengths` (rows,) are the
    tokens of each row of an epoch.
    """
    return global_batches(lengths, settings.batch_size, SEED, epoch=0)[: settings.all_steps]


def with_possible_steps(settings: BenchmarkSettings) -> BenchmarkSettings:
    """The same settings with steps that one epoch has whole batches for; `InputError`: there isn't one."""
    possible = len(training_rows(settings)[0]) // settings.batch_size - settings.warm_up_steps
    if possible < 1:
        raise InputError(
            f"the training rows are too few for {settings.warm_up_steps} batches of {settings.batch_size} as a warm-up "
            "and one more to measure. Check --data_dir, or lower --batch_size or --warm_up_steps."
        )
    return replace(settings, steps=min(settings.steps or possible, possible))


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
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=read_tokenizer(MODEL).backend_tokenizer,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=512,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
    )
    transformers.set_seed(SEED)
    model = transformers.AutoModel.from_config(ARCHITECTURES[settings.model](pad_token_id=tokenizer.pad_token_id))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
        del model
        yield replace(settings, model=folder)


def pretrained_model(settings: BenchmarkSettings) -> transformers.PreTrainedModel:
    """transformers' own model for sequence classification or causal language modelling, as it comes."""
    transformers.set_seed(SEED)
    if settings.models_language:
        return load_pretrained(transformers.AutoModelForCausalLM, settings.model)[0]
    labels = data_module(settings).task.num_labels
    return load_pretrained(transformers.AutoModelForSequenceClassification, settings.model, num_labels=labels)[0]
