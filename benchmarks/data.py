"""The rows that every side trains on."""

from dataclasses import replace
from itertools import chain, count, islice
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


def data_config(settings: BenchmarkSettings, train_rows: int | None) -> dict[str, Any]:
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
    arguments = {**source, "batch_size": settings.batch_size, "train_rows": train_rows}
    return {"class_path": f"datamodules.{name}", "init_args": arguments}


def data_module(settings: BenchmarkSettings, train_rows: int | None = None) -> Any:
    """The data module of a run with these settings, not yet set up."""
    config = data_config(settings, train_rows)
    config["init_args"] |= {"backbone": settings.model, "seed": SEED}
    return instantiate_class((), config)


def data_name(settings: BenchmarkSettings) -> str:
    """Which data were used, for the output."""
    lengths = training_rows(settings)[0].lengths
    size = f"{len(lengths):,} training rows of {float(lengths.double().mean()):.1f} tokens on average"
    if settings.data_dir is None:
        return f"quickstart corpus, {size} (not CoLA, whose sentences have other lengths: --data_dir FOLDER)"
    return f"{_NAMES[settings.data]}, {size}"


def training_rows(
    settings: BenchmarkSettings, train_rows: int | None = None
) -> tuple[TokenizedSplit, PreTrainedTokenizerBase]:
    """The tokenised training rows, all or those that a run with data.train_rows has, and their tokenizer."""
    data = data_module(settings, train_rows)
    data.setup("fit")
    return data.train_dataloader().split, data.tokenizer


def epoch_rows(settings: BenchmarkSettings) -> int:
    """Rows of an epoch: as many training rows as fill whole batches."""
    return len(training_rows(settings)[0]) // settings.batch_size * settings.batch_size


def batches(lengths: Tensor, settings: BenchmarkSettings) -> list[Tensor]:
    """Row indices of each batch of a measured run, warm-up first: those that a run of ours draws, epoch by epoch.

    Grouped by length within an epoch of all rows, where the Trainer's grouping pads as much as ours. Of a few rows
    alone it makes batches that pad up to twice as much, which would count as our speed. `lengths` (rows,) are the
    tokens of each row of an epoch.
    """
    epochs = (global_batches(lengths, settings.batch_size, SEED, epoch) for epoch in count())
    return list(islice(chain.from_iterable(epochs), settings.all_steps))


def with_possible_steps(settings: BenchmarkSettings) -> BenchmarkSettings:
    """The same settings with steps that the data have rows for, counted in whole batches.

    Raises:
        InputError: there isn't one.
    """
    whole = epoch_rows(settings) // settings.batch_size
    if whole == 0:
        raise InputError(
            f"the data have fewer training rows than one batch of {settings.batch_size}. Check --data_dir."
        )
    return replace(settings, steps=min(settings.steps or whole, whole))
