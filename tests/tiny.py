"""Tiny backbones and data that tests make on the spot: random weights, real file formats."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_TEXT = """
the a cat dog bird cats dogs birds sees see hears hear sleeps sleep big small old not often and or very
quickly here there who what that this these those run runs
"""
WORDS = _TEXT.split()


def save_tokenizer(folder: Path) -> None:
    """A word-level tokenizer in BERT's form."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {token: index for index, token in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)


def save_tiny_bert(folder: Path, hidden: int = 16, layers: int = 2, dropout: float = 0.1) -> Path:
    """A BERT of a few thousand parameters with a tokenizer, as `from_pretrained` reads it."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS) + 4,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    BertModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def sentences(rows: int, seed: int) -> list[tuple[str, int]]:
    """Random word strings, label 1 if they hold the word `not`: learnable, and never one class only."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for row in range(rows):
        length = int(torch.randint(3, 12, (1,), generator=generator))
        words = [WORDS[int(place)] for place in torch.randint(0, len(WORDS), (length,), generator=generator)]
        words = [word for word in words if word != "not"] or ["cat"]
        if row % 2:
            words.insert(len(words) // 2, "not")
        made.append((" ".join(words), row % 2))
    return made


def save_cola(folder: Path, train: int = 40, dev: int = 12) -> Path:
    """Files in the official CoLA layout."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, rows) in enumerate(
        [("in_domain_train.tsv", train), ("in_domain_dev.tsv", dev), ("out_of_domain_dev.tsv", dev)]
    ):
        lines = [f"made\t{label}\t{'' if label else '*'}\t{text}" for text, label in sentences(rows, seed)]
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def save_pairs(folder: Path, columns: tuple[str, str], label: Callable[[int], int | float]) -> Path:
    """JSON-lines files of a pair task: train and validation rows with these two text columns."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, rows) in enumerate([("train", 24), ("validation", 10)]):
        firsts, seconds = sentences(rows, seed), sentences(rows, seed + 10)
        lines = [
            json.dumps({columns[0]: first, columns[1]: second, "label": label(row)})
            for row, ((first, _), (second, _)) in enumerate(zip(firsts, seconds))
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def save_ag_news(folder: Path, train: int = 40, test: int = 12) -> Path:
    """AG-News in its official layout: class 1 to 4, title, description, all quoted."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, rows) in enumerate([("train.csv", train), ("test.csv", test)]):
        lines = [(row % 4 + 1, f"{text},", text) for row, (text, _) in enumerate(sentences(rows, seed))]
        with (folder / name).open("w", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows(lines)
    return folder


def save_table(folder: Path, train: int = 40) -> Path:
    """A CSV file with the columns text and label, as a user might have it."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [(text, f"kind {label}") for text, label in sentences(train, 0)]
    with (folder / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *lines])
    return folder


def make_data(backbone: str, data_dir: str, task: str = "cola", **settings: Any) -> Any:
    """A data module in small batches: five steps per epoch with the 40 rows of `save_cola`."""
    from datamodules import GLUEDataModule

    return GLUEDataModule(
        task=task, data_dir=data_dir, backbone=backbone, **{"batch_size": 8, "max_length": 32, **settings}
    )


def make_module(backbone: str, adapter: Any = None, **optimizer: Any) -> Any:
    """A classification module with a constant rate unless told otherwise."""
    from lightning_modules import OptimizerSettings, TextClassificationModule

    return TextClassificationModule(backbone, adapter, OptimizerSettings(**{"schedule": "constant", **optimizer}))


def make_trainer(*callbacks: Any, **settings: Any) -> Any:
    """A silent CPU trainer that writes nothing but what its callbacks write."""
    from lightning.pytorch import Trainer

    from callbacks.checkpoints import WholeFileCheckpoints

    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any(hasattr(callback, "every_n_minutes") for callback in callbacks),
        "plugins": [WholeFileCheckpoints()],
    }
    return Trainer(callbacks=list(callbacks), **(quiet | settings))


def save_task(task: str, folder: Path, train: int = 40, dev: int = 12) -> Path:
    """Files of a GLUE task: CoLA in the official layout, SST-2 and QNLI in GLUE's."""
    if task == "cola":
        return save_cola(folder, train, dev)
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, rows) in enumerate([("train.tsv", train), ("dev.tsv", dev)]):
        made = sentences(rows, seed)
        if task == "sst2":
            lines = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in made)]
        else:
            answers = ("entailment", "not_entailment")
            pairs = (f"{row}\twho sees\t{text}\t{answers[label]}" for row, (text, label) in enumerate(made))
            lines = ["index\tquestion\tsentence\tlabel", *pairs]
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder
