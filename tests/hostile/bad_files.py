"""Data files of every format this project reads, whole and damaged in every way we could think of."""

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules import AGNewsDataModule, GLUEDataModule, PlainTextDataModule, TableDataModule, WikiTextDataModule
from tests import tiny


@dataclass(frozen=True)
class Format:
    """A layout of files, and the data module that reads it.

    Attributes:
        folder: holds whole files.
        damaged: the one of them that gets damaged.
        make: makes the data module for a folder.
    """

    folder: Path
    damaged: str
    make: Callable[[Path], Any]

    def whole(self) -> bytes:
        """The file as it should be."""
        return (self.folder / self.damaged).read_bytes()

    def with_content(self, content: bytes, folder: Path) -> Any:
        """The data module over a copy of the folder in which one file has another content."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        (folder / self.damaged).write_bytes(content)
        return self.make(folder)


def make_formats(folder: Path, bert: str, gpt2: str) -> dict[str, Format]:
    """Every format by name, written below `folder`."""
    tiny.save_cola(folder / "cola", 16, 8)
    tiny.save_task("sst2", folder / "sst2", 16, 8)
    tiny.save_ag_news(folder / "news", 24, 8)
    tiny.save_wikitext(folder / "wikitext", "raw", 12, 4)
    tiny.save_pairs(folder / "pairs", ("sentence1", "sentence2"), lambda row: row % 2)
    tiny.save_table(folder / "csv", 24)
    _save_other_tables(folder)
    (folder / "gz").mkdir()
    for name in ("in_domain_train.tsv", "in_domain_dev.tsv", "out_of_domain_dev.tsv"):
        (folder / "gz" / f"{name}.gz").write_bytes(gzip.compress((folder / "cola" / name).read_bytes(), mtime=0))
    sizes = {"batch_size": 4, "max_length": 32}

    def of(kind: Any, **settings: Any) -> Callable[[Path], Any]:
        return lambda place: kind(data_dir=str(place), **{"backbone": bert, **sizes, **settings})

    def plain(place: Path) -> Any:
        return PlainTextDataModule(train_file=str(place / "wiki.train.raw"), **small)

    cola = of(GLUEDataModule, task="cola")
    table, news = of(TableDataModule, validation_fraction=0.4), of(AGNewsDataModule, validation_rows=8)
    small = {"backbone": gpt2, "batch_size": 4, "block_size": 16}
    return {
        "cola tsv": Format(folder / "cola", "in_domain_train.tsv", cola),
        "cola tsv.gz": Format(folder / "gz", "in_domain_train.tsv.gz", cola),
        "glue tsv": Format(folder / "sst2", "train.tsv", of(GLUEDataModule, task="sst2")),
        "glue jsonl": Format(folder / "pairs", "train.jsonl", of(GLUEDataModule, task="mrpc")),
        "ag_news csv": Format(folder / "news", "train.csv", news),
        "table csv": Format(folder / "csv", "train.csv", table),
        "table tsv": Format(folder / "tsv", "train.tsv", table),
        "table jsonl": Format(folder / "jsonl", "train.jsonl", table),
        "table parquet": Format(folder / "parquet", "train.parquet", table),
        "saved data set": Format(folder / "saved", "train/data-00000-of-00001.arrow", table),
        "wikitext raw": Format(
            folder / "wikitext", "wiki.train.raw", lambda place: WikiTextDataModule(data_dir=str(place), **small)
        ),
        "plain text": Format(folder / "wikitext", "wiki.train.raw", plain),
    }


def _save_other_tables(folder: Path) -> None:
    import datasets

    rows = [(text, f"kind {label}") for text, label in tiny.sentences(24, 0)]
    for name in ("tsv", "jsonl", "parquet"):
        (folder / name).mkdir()
    (folder / "tsv" / "train.tsv").write_text("text\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in rows))
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    (folder / "jsonl" / "train.jsonl").write_text("\n".join(lines) + "\n")
    data = datasets.Dataset.from_dict({"text": [a for a, _ in rows], "label": [b for _, b in rows]})
    data.to_parquet(folder / "parquet" / "train.parquet")
    datasets.DatasetDict(train=data).save_to_disk(folder / "saved")


def texts_of(data: Any) -> list[str]:
    """What a data module read, after `setup`: the training texts."""
    if hasattr(data, "load_texts"):
        return data.load_texts()["train"]
    return data.read_splits()["train"].texts
