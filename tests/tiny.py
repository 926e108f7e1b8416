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


def save_causal_tokenizer(folder: Path, begins_texts: bool) -> None:
    """A byte-level tokenizer: GPT-2's kind without a pad token, or one that puts <s> before every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>"] if begins_texts else ["</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([_TEXT] * 3, trainer)
    names = {"eos_token": "</s>"}
    if begins_texts:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
        names |= {"bos_token": "<s>", "pad_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names).save_pretrained(folder)


def save_tiny_gpt2(folder: Path, hidden: int = 16, layers: int = 2) -> Path:
    """A GPT-2 of a few thousand parameters, embeddings tied, with a tokenizer that has no pad token."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=320,
        n_embd=hidden,
        n_layer=layers,
        n_head=2,
        n_positions=64,
        initializer_range=0.3,  # large enough for the context to show in the losses
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    save_causal_tokenizer(folder, begins_texts=False)
    return folder


def save_tiny_llama(folder: Path, tied: bool = False) -> Path:
    """A Llama of a few thousand parameters, with a tokenizer that puts <s> before every text."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    save_causal_tokenizer(folder, begins_texts=True)
    return folder


def save_wikitext(folder: Path, ending: str = "raw", train: int = 40, dev: int = 9) -> Path:
    """Files in WikiText's official layout: headings, paragraphs and lines that hold one space."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (split, rows) in enumerate([("train", train), ("valid", dev), ("test", dev)]):
        lines = []
        for text, _ in sentences(rows, seed):
            lines += [" ", f" = {text.split()[0]} = ", " ", f" {text} . "]
        (folder / f"wiki.{split}.{ending}").write_text("\n".join(lines) + "\n")
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


def make_wikitext(backbone: str, data_dir: str, **settings: Any) -> Any:
    """A WikiText data module with short blocks in small batches."""
    from datamodules import WikiTextDataModule

    settings = {"batch_size": 8, "evaluation_batch_size": 4, "block_size": 16, **settings}
    return WikiTextDataModule(data_dir=data_dir, backbone=backbone, **settings)


def make_language_module(backbone: str, adapter: Any = None, **optimizer: Any) -> Any:
    """A language-modelling module with a constant rate unless told otherwise."""
    from lightning_modules import LanguageModellingModule, OptimizerSettings

    return LanguageModellingModule(backbone, adapter, OptimizerSettings(**{"schedule": "constant", **optimizer}))


def make_trainer(*callbacks: Any, **settings: Any) -> Any:
    """A silent CPU trainer that writes nothing but what its callbacks write."""
    from lightning.pytorch import Trainer

    from callbacks.checkpoints import WholeFileCheckpoints

    quiet = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "num_sanity_val_steps": 0, "logger": False}
    quiet |= dict.fromkeys(("enable_progress_bar", "enable_model_summary"), False)
    quiet["enable_checkpointing"] = any(hasattr(callback, "every_n_minutes") for callback in callbacks)
    quiet["plugins"] = [WholeFileCheckpoints()]
    return Trainer(callbacks=list(callbacks), **(quiet | settings))


def fit(module: Any, data: Any, *callbacks: Any, **settings: Any) -> Any:
    """The trainer of `make_trainer` after it has trained."""
    trainer = make_trainer(*callbacks, **settings)
    trainer.fit(module, datamodule=data)
    return trainer


def notes(look: Callable[[Any], Any], *hooks: str) -> Any:
    """A callback whose `seen` holds what `look(module)` gave at each call of these hooks."""
    from lightning.pytorch.callbacks import LambdaCallback

    seen: list[Any] = []
    callback = LambdaCallback(**dict.fromkeys(hooks, lambda trainer, module, *_: seen.append(look(module))))
    callback.seen = seen
    return callback


def at(hook: str, do: Callable[[Any, Any], Any], **moment: int) -> Any:
    """A callback that calls `do(trainer, module)` at a hook, where the trainer is at this moment (`global_step=3`)."""
    from lightning.pytorch.callbacks import LambdaCallback

    def act(trainer: Any, module: Any, *_: Any) -> None:
        if all(getattr(trainer, name) == value for name, value in moment.items()):
            with torch.no_grad():
                do(trainer, module)

    return LambdaCallback(**{hook: act})


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
