"""Tiny backbones and data that tests make on the spot: random weights, real file formats."""

from pathlib import Path

import torch

WORDS = (
    "the a cat dog bird cats dogs birds sees see hears hear sleeps sleep big small old not often and or very "
    "quickly here there who what that this these those run runs"
).split()


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
