"""A small real tokenizer saved as a backbone folder, and a cache of its own for each test."""

from itertools import chain
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, BertConfig, PreTrainedTokenizerFast

from datamodules import GLUEDataModule, TableDataModule

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = tuple(f"w{number}" for number in range(40))
LONGEST = 160


def rows_of(loader) -> list[int]:
    return list(chain.from_iterable(batch["row"].tolist() for batch in loader))


def make_backbone(folder: Path, **changes) -> Path:
    """Saves a word-level tokenizer and a BERT config; `changes` go to PreTrainedTokenizerFast."""
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # As in some published tokenizer.json files: pads and cuts unless told otherwise.
    backend.enable_padding(length=32)
    backend.enable_truncation(max_length=32)
    settings = {
        "unk_token": "[UNK]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "model_max_length": LONGEST,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    PreTrainedTokenizerFast(tokenizer_object=backend, **(settings | changes)).save_pretrained(folder)
    BertConfig(vocab_size=len(vocabulary), hidden_size=8, num_hidden_layers=1, num_attention_heads=2).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def backbone(tmp_path_factory) -> str:
    return str(make_backbone(tmp_path_factory.mktemp("backbone")))


@pytest.fixture(scope="session")
def tokenizer(backbone):
    return AutoTokenizer.from_pretrained(backbone)


def cola_line(row: int) -> str:
    words = " ".join(f"w{(row * 7 + at) % 40}" for at in range(row % 9 + 1))
    return f"gj04\t{int(row % 3 > 0)}\t\t{words}\n"


@pytest.fixture
def cola(tmp_path):
    folder = tmp_path / "cola"
    folder.mkdir()
    for name, rows in (("in_domain_train", range(45)), ("in_domain_dev", range(100, 113))):
        (folder / f"{name}.tsv").write_text("".join(cola_line(row) for row in rows))
    (folder / "out_of_domain_dev.tsv").write_text("".join(cola_line(row) for row in range(200, 211)))
    return str(folder)


@pytest.fixture
def make(cola, backbone):
    return lambda **settings: GLUEDataModule(**({"data_dir": cola, "backbone": backbone, "batch_size": 8} | settings))


@pytest.fixture
def make_table(backbone):
    """The data module of a table of reviews; a file of tests may have its own."""

    def build(**settings):
        return TableDataModule(**({"backbone": backbone, "text_column": "review", "label_column": "kind"} | settings))

    return build
