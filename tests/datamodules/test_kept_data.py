"""Rows and tokens that one data module reads and the next one takes over."""

import os

import pytest

from datamodules import GLUEDataModule, TableDataModule, text_classification
from datamodules.kept_data import holds_data_of, keep_data
from tests import tiny


@pytest.fixture
def reads(monkeypatch):
    """How often rows were read."""
    counted = []
    read = text_classification.TextClassificationDataModule._read_and_tokenize
    monkeypatch.setattr(
        text_classification.TextClassificationDataModule,
        "_read_and_tokenize",
        lambda self: (counted.append(self), read(self))[1],
    )
    return counted


def made(backbone, folder, **settings):
    data = tiny.make_data(backbone, str(folder), **settings)
    data.setup("fit")
    return data


def test_the_next_module_takes_over_what_the_last_one_read(tiny_bert, cola_folder, reads):
    with keep_data():
        first = made(tiny_bert, cola_folder, seed=1)
        second = made(tiny_bert, cola_folder, seed=2)
        assert holds_data_of(tiny.make_data(tiny_bert, str(cola_folder), seed=3))
    assert len(reads) == 1
    assert second.row_counts == first.row_counts
    assert second.train_label_counts == first.train_label_counts
    assert not holds_data_of(first)  # nothing is held once the sweep is over


def test_without_a_sweep_every_module_reads(tiny_bert, cola_folder, reads):
    for _ in range(2):
        made(tiny_bert, cola_folder)
    assert len(reads) == 2


@pytest.mark.parametrize("change", [{"max_length": 5}, {"train_rows": 7}, {"subset_seed": 5, "train_rows": 9}])
def test_another_setting_is_read_again(tiny_bert, cola_folder, reads, change):
    with keep_data():
        made(tiny_bert, cola_folder)
        changed = made(tiny_bert, cola_folder, **change)
    assert len(reads) == 2
    assert changed.row_counts["train_rows"] == change.get("train_rows", 40)


def test_another_task_of_one_folder_is_read_again(tiny_bert, tmp_path, reads):
    header, glue = "sentence\tlabel\n", tmp_path / "glue"
    for split in ("train", "dev"):
        for folder, rows in (("SST-2", header + "w1\t0\nw3\t1\n"), ("CoLA", "a\t0\t*\tw2\nb\t1\t\tw3\n")):
            (glue / folder).mkdir(parents=True, exist_ok=True)
            (glue / folder / f"{split}.tsv").write_text(rows)
    read = {}
    with keep_data():
        for task in ("sst2", "cola"):
            data = GLUEDataModule(task, str(glue), backbone=tiny_bert, max_length=16)
            data.setup("fit")
            read[task] = data.predict_examples().texts
    assert read == {"sst2": ["w1", "w3"], "cola": ["w2", "w3"]}


def test_a_changed_file_is_read_again(tiny_bert, tmp_path, reads):
    folder = tiny.save_cola(tmp_path / "cola")
    with keep_data():
        before = made(tiny_bert, folder).row_counts["train_rows"]
        tiny.save_cola(tmp_path / "cola", train=44)
        assert made(tiny_bert, folder).row_counts["train_rows"] == before + 4
    assert len(reads) == 2


def test_a_changed_table_is_read_again(tiny_bert, tmp_path, reads):
    rows = [f"w{row},{row % 2}" for row in range(24)]
    folder, found = tmp_path / "table", []
    folder.mkdir()
    with keep_data():
        for number in (22, 24, 24):
            (folder / "train.csv").write_text("\n".join(["text,label", *rows[:number]]))
            os.utime(folder / "train.csv", ns=(number, number))
            data = TableDataModule(backbone=tiny_bert, data_dir=str(folder), max_length=16, validation_rows=8)
            data.setup("fit")
            found.append(data.row_counts["train_rows"])
    assert (found, len(reads)) == ([14, 16, 16], 2)
