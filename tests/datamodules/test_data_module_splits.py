from collections import Counter

import pandas as pd
import pytest

from common.errors import InputError
from datamodules import GLUEDataModule, QuickstartDataModule
from datamodules.quickstart_corpus import generate_corpus
from datamodules.sources import Examples
from tests.datamodules.conftest import rows_of


def test_predict_takes_a_file_and_needs_no_data_set(backbone, tmp_path):
    file = tmp_path / "sentences.txt"
    file.write_text('w1 w2 w3 w4\nw5 "w6"\tw7\nw8\n')
    data = GLUEDataModule(
        backbone=backbone, data_dir=str(tmp_path / "nowhere"), predict_file=str(file), evaluation_batch_size=2
    )
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert [batch["row"].tolist() for batch in batches] == [[0, 1], [2]]
    assert batches[1]["inputs"]["input_ids"].tolist() == [[2, 12, 3]]
    assert "labels" not in batches[0]
    assert data.predict_examples().texts == ["w1 w2 w3 w4", 'w5 "w6"\tw7', "w8"]


def test_predict_file_of_pairs(backbone, tmp_path):
    file = tmp_path / "pairs.txt"
    file.write_text("w1\tw2 w3\nw4\tw5\n")
    data = GLUEDataModule("rte", backbone=backbone, predict_file=str(file))
    assert data.predict_examples().pairs == ["w2 w3", "w5"]
    (batch,) = data.predict_dataloader()
    assert batch["inputs"]["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0]]

    for content, found in (("w1\tw2\nonly one\n", "'only one'"), ("w1\tw2\n\nw3\tw4\n", "''")):
        file.write_text(content)
        with pytest.raises(InputError, match=rf"pairs.txt, line 2: 1 tab-separated columns in {found}; allowed: 2"):
            data.predict_examples()
    file.unlink()
    with pytest.raises(InputError, match="which is not a file"):
        data.predict_examples()


def test_a_predict_file_that_is_a_table_is_read_by_its_columns(backbone, tmp_path):
    """A line of JSON or a header must not be answered as if it were a sentence."""
    pairs = pd.DataFrame({"sentence2": ["w2 w3", "w5"], "id": [0, 1], "sentence1": ['w1, "w1"', "w4"]})
    writers = {
        "csv": lambda path: pairs.to_csv(path, index=False),
        "tsv": lambda path: path.write_text('sentence2\tsentence1\nw2 w3\tw1, "w1"\nw5\tw4\n'),
        "jsonl": lambda path: pairs.to_json(path, orient="records", lines=True),
        "parquet": lambda path: pairs.to_parquet(path),
    }
    for ending, write in writers.items():
        file = tmp_path / f"new.{ending}"
        write(file)
        data = GLUEDataModule("rte", backbone=backbone, predict_file=str(file))
        data.setup("predict")
        examples = data.predict_examples()
        assert (examples.texts, examples.pairs) == (pairs["sentence1"].tolist(), pairs["sentence2"].tolist()), ending
        with pytest.raises(
            InputError, match=r"has no sentence among its columns .*Did you mean .*call a file of plain"
        ):
            QuickstartDataModule(backbone=backbone, predict_file=str(file)).predict_examples()


def test_predict_without_a_file_takes_test_else_validation(make):
    without = make(cola_validation="combined")
    assert (len(make().predict_examples()), len(without.predict_examples())) == (11, 24)
    assert rows_of(without.predict_dataloader()) == list(range(24))
    assert not without.has_labelled_test and without.row_counts["test_rows"] == 0
    with pytest.raises(InputError, match="glue/cola has no labelled test split"):
        without.test_dataloader()


def test_an_unlabelled_test_split_is_for_predict_only(backbone, tmp_path):
    (tmp_path / "train.tsv").write_text("sentence\tlabel\nw1\t0\nw2\t1\n")
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\nw3\t1\nw2\t0\n")
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tw4\n1\tw5\n")
    data = GLUEDataModule("sst2", str(tmp_path), backbone=backbone)
    data.setup()
    assert data.row_counts == {"train_rows": 2, "validation_rows": 2, "test_rows": 0}
    assert data.test_names == ()
    (batch,) = data.predict_dataloader()
    assert batch["row"].tolist() == [0, 1]
    assert "labels" not in batch


def test_held_out_rows_leave_the_published_validation_split_for_the_test(make):
    published = make(cola_validation="combined")
    data = make(cola_validation="combined", held_out_rows=9)
    for module in (published, data):
        module.setup()
    before, after = published.read_splits(), data.read_splits()
    assert after["test"] == before["validation"]
    assert len(after["validation"]) == 9
    assert Counter(after["train"].texts + after["validation"].texts) == Counter(before["train"].texts)
    assert data.row_counts["test_rows"] == published.row_counts["validation_rows"]
    assert (
        data.read_splits()["validation"]
        == make(cola_validation="combined", held_out_rows=9, seed=7).read_splits()["validation"]
    )


def test_mnli_validates_on_two_sets_or_tests_on_them(backbone, make, tmp_path):
    labels = ("neutral", "entailment", "contradiction")
    for name, rows in (("train", 12), ("dev_matched", 2), ("dev_mismatched", 3)):
        lines = [f"w{row}\tw{rows}\t{labels[row % 3]}\n" for row in range(rows)]
        (tmp_path / f"{name}.tsv").write_text("sentence1\tsentence2\tgold_label\n" + "".join(lines))
    (tmp_path / "test_matched.tsv").write_text("sentence1\tsentence2\nw1\tw1\n")
    data = GLUEDataModule("mnli", str(tmp_path), backbone=backbone)
    data.setup()
    assert data.validation_names == ("val", "val_mismatched")
    assert [len(rows_of(loader)) for loader in data.val_dataloader()] == [2, 3]
    assert data.row_counts == {"train_rows": 12, "validation_rows": 5, "test_rows": 0}
    data = GLUEDataModule("mnli", str(tmp_path), held_out_rows=5, backbone=backbone)
    data.setup()
    assert (data.validation_names, data.test_names) == (("val",), ("test", "test_mismatched"))
    assert data.row_counts == {"train_rows": 7, "validation_rows": 5, "test_rows": 5}
    with pytest.raises(
        InputError, match=r"held_out_rows is 9, and the data has a test split .*cola_validation combined"
    ):
        make(held_out_rows=9).setup()
    with pytest.raises(InputError, match=r"Set --data\.held_out_rows"):
        make(cola_validation="combined", held_out_rows=500).setup()
    with pytest.raises(InputError, match="held_out_rows is 0"):
        make(cola_validation="combined", held_out_rows=0).setup()


def test_the_quickstart_corpus_with_its_phenomena(backbone):
    sizes = {"train_sentences": 200, "validation_sentences": 40, "test_sentences": 60}
    data = QuickstartDataModule(backbone=backbone, **sizes, corpus_seed=3)
    data.setup()
    corpus = generate_corpus(**sizes, seed=3)
    assert data.name == "quickstart"
    assert data.row_counts == {f"{split}_rows": len(rows) for split, rows in corpus.items()}
    assert data.task.metrics == ("matthews_correlation", "accuracy")
    for split, loader in (("validation", data.val_dataloader()[0]), ("test", data.test_dataloader()[0])):
        for batch in loader:
            for row, tag, label in zip(batch["row"], batch["tag"], batch["labels"], strict=True):
                sentence = corpus[split][int(row)]
                assert (data.tag_names[tag], int(label)) == (sentence.phenomenon, sentence.label)


def test_a_tag_has_the_same_number_in_every_split(backbone):
    class Tagged(QuickstartDataModule):
        def load_examples(self):
            return {
                "train": Examples(["w1", "w2"], labels=[0, 1], tags=["b", "d"]),
                "validation": Examples(["w3", "w4"], labels=[0, 1], tags=["d", "c"]),
                "test": Examples(["w5"], labels=[1], tags=["a"]),
            }

    data = Tagged(backbone=backbone)
    data.setup()
    assert data.tag_names == ("a", "b", "c", "d")
    loaders = (data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader())
    tags = [dict(zip(batch["row"].tolist(), batch["tag"].tolist(), strict=True)) for (batch,) in loaders]
    assert tags == [{0: 1, 1: 3}, {0: 3, 1: 2}, {0: 0}]
