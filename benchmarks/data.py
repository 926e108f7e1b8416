"""The rows that every side trains on."""

from dataclasses import replace
from typing import Any

from lightning.pytorch.cli import instantiate_class
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from benchmarks.settings import MAX_LENGTH, SEED, BenchmarkSettings
from common.errors import InputError
from datamodules.batching import global_batches
from datamodules.tokenization import TokenizedSplit

_NAMES = {"cola": "CoLA", "ag_news": "AG-News", "wikitext": "WikiText-2 in blocks"}
_SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "cola": ("GLUEDataModule", {"task": "cola", "max_length": MAX_LENGTH}),
    "ag_news": ("AGNewsDataModule", {"max_length": MAX_LENGTH}),
    "wikitext": ("WikiTextDataModule", {"variant": "wikitext-2", "block_size": MAX_LENGTH, "validation_rows": 64}),
}


def data_config(settings: BenchmarkSettings) -> dict[str, Any]:
    """The data section of a run's config: what the folder holds, or the quickstart corpus.

    Raises:
        InputError: data other than CoLA's are to be used, and there is no folder of them.
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


def training_rows(settings: BenchmarkSettings) -> tuple[TokenizedSplit, PreTrainedTokenizerBase]:
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
    return f"{_NAMES[settings.data]}, {size}"


def batches(lengths: Tensor, settings: BenchmarkSettings) -> list[Tensor]:
    """Row indices of each batch of a measured run, warm-up first: those of our runs' first epoch.

    Grouped by length within an epoch of all rows, where the Trainer's grouping pads as much as ours. Of a few rows
    alone it makes batches that pad up to twice as much, which would count as our speed. `lengths` (rows,) are the
    tokens of each row of an epoch.
    """
    return global_batches(lengths, settings.batch_size, SEED, epoch=0)[: settings.all_steps]


def with_possible_steps(settings: BenchmarkSettings) -> BenchmarkSettings:
    """The same settings with steps that one epoch has whole batches for.

    Raises:
        InputError: there isn't one.
    """
    possible = len(training_rows(settings)[0]) // settings.batch_size - settings.warm_up_steps
    if possible < 1:
        raise InputError(
            f"the training rows are too few for {settings.warm_up_steps} batches of {settings.batch_size} as a warm-up "
            "and one more to measure. Check --data_dir, or lower --batch_size or --warm_up_steps."
        )
    return replace(settings, steps=min(settings.steps or possible, possible))
