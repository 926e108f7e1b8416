"""Which rows of the user's own data serve which purpose, and what numbers stand for in a data set's own classes."""

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from common.errors import InputError
from datamodules import TableDataModule


@pytest.fixture
def make_table(backbone):
    def build(**settings):
        return TableDataModule(backbone=backbone, **settings)

    return build


def saved(folder, names, **splits):
    """A save_to_disk folder; each split is the numbers of its labels."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    data = {
        split: Dataset.from_dict(
            {"text": [f"{split} w{row}" for row in range(len(labels))], "label": labels}, features=features
        )
        for split, labels in splits.items()
    }
    DatasetDict(data).save_to_disk(str(folder))
    return str(folder)


def write_csv(folder, *names, rows=40):
    for name in names:
        lines = [f"{name} w{row},{('no', 'yes')[row % 2]}" for row in range(rows)]
        (folder / name).write_text("\n".join(["text,label", *lines]) + "\n")
    return str(folder)


def test_a_split_chosen_for_one_purpose_serves_no_other(make_table, tmp_path, capsys):
    """The epoch would be chosen on the rows it is reported on, or validated on those it was trained on."""
    folder = saved(tmp_path / "saved", ["no", "yes"], train=[0, 1] * 6, test=[0, 1] * 2)
    splits = make_table(dataset=folder, validation_split="test").read_splits()
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 12, "validation": 4}
    folder = saved(tmp_path / "other", ["no", "yes"], validation=[0, 1] * 20)
    splits = make_table(dataset=folder, train_split="validation").read_splits()
    assert "no validation split" in capsys.readouterr().out
    assert not set(splits["train"].texts) & set(splits["validation"].texts)


def test_a_file_named_for_one_split_is_no_other_ones(make_table, tmp_path, capsys):
    folder = write_csv(tmp_path, "train.csv", "test.csv")
    splits = make_table(data_dir=folder, validation_file="test.csv").read_splits()
    assert set(splits) == {"train", "validation"}
    assert splits["validation"].texts[0] == "test.csv w0"
    assert "same rows" not in capsys.readouterr().err


@pytest.mark.parametrize("of_files", [True, False])
def test_rows_that_are_chosen_twice_are_told(make_table, tmp_path, capsys, of_files):
    if of_files:
        chosen = {"data_dir": write_csv(tmp_path, "a.csv"), "train_file": "a.csv", "validation_file": "a.csv"}
    else:
        folder = saved(tmp_path / "saved", ["no", "yes"], train=[0, 1])
        chosen = {"dataset": folder, "train_split": "train", "validation_split": "train"}
    make_table(**chosen).read_splits()
    assert "same rows are chosen for train and validation" in capsys.readouterr().err


def test_val_is_a_name_of_the_validation_split(make_table, tmp_path):
    splits = make_table(data_dir=write_csv(tmp_path, "train.csv", "val.csv", "test.csv")).read_splits()
    assert [rows.texts[0] for rows in splits.values()] == ["train.csv w0", "val.csv w0", "test.csv w0"]


@pytest.mark.parametrize("second", ["train.jsonl", "train.tsv.gz"])
def test_two_files_for_one_split_are_refused(make_table, tmp_path, second):
    folder = write_csv(tmp_path, "train.csv")
    (tmp_path / second).write_text("old")
    with pytest.raises(InputError, match=rf"several files for one split: .*{second}"):
        make_table(data_dir=folder).read_splits()
    named = make_table(data_dir=folder, train_file="train.csv").read_splits()
    assert named["train"].texts[0].startswith("train.csv")


@pytest.mark.parametrize(
    ("asked", "labels"),
    [
        (["positive", "negative"], [1, 0, 0]),
        (["b", "c", "negative", "positive"], [2, 3, 3]),
        (["negative", "positive"], [0, 1, 1]),
        (["bad", "good"], [0, 1, 1]),  # other names for as many classes stand in their order
    ],
)
def test_class_numbers_are_read_by_their_names(make_table, tmp_path, asked, labels):
    folder = saved(tmp_path / "saved", ["negative", "positive"], train=[0, 1, 1], validation=[0, 1])
    data = make_table(dataset=folder, label_names=asked)
    assert data.read_splits()["train"].labels == labels
    assert list(data.task.label_names) == asked


@pytest.mark.parametrize(("names", "ours"), [(["World ", "1.0"], ("World", "1")), (["1", "1.0"], ("1", "1.0"))])
def test_class_names_that_are_written_oddly_fit_their_own_rows(make_table, tmp_path, names, ours):
    folder = saved(tmp_path / "saved", names, train=[0, 1, 1], validation=[0, 1])
    data = make_table(dataset=folder)
    assert data.read_splits()["train"].labels == [0, 1, 1] and data.class_names == ours


def test_a_class_that_is_not_among_the_names_is_refused(make_table, tmp_path):
    folder = saved(tmp_path / "saved", ["negative", "positive"], train=[0, 1, 1], validation=[0, 1])
    with pytest.raises(InputError, match="label is 'positive'; allowed: negative, Positive"):
        make_table(dataset=folder, label_names=["negative", "Positive"]).read_splits()


@pytest.mark.parametrize(("test", "labels"), [([0, 1, 0], [1, 0, 1]), ([-1, -1, -1], None)])
def test_a_split_may_number_its_classes_otherwise_or_lack_labels(make_table, tmp_path, test, labels):
    train = saved(tmp_path / "train", ["negative", "positive"], train=[0, 1, 1], validation=[0, 1])
    other = saved(tmp_path / "test", ["positive", "negative"], test=test)
    whole = DatasetDict({**DatasetDict.load_from_disk(train), **DatasetDict.load_from_disk(other)})
    whole.save_to_disk(str(tmp_path / "whole"))
    assert make_table(dataset=str(tmp_path / "whole")).load_examples()["test"].labels == labels


def test_settings_that_the_rows_leave_without_effect_are_told(make_table, tmp_path, capsys):
    def told(**settings):
        make_table(**settings).read_splits()
        return capsys.readouterr().err

    drawn = {"validation_fraction": 0.5, "subset_seed": 7}
    files = write_csv(tmp_path, "train.csv", "dev.csv")
    (tmp_path / "alone").mkdir()
    alone = write_csv(tmp_path / "alone", "train.csv")
    stored = saved(tmp_path / "saved", ["no", "yes"], train=[0, 1] * 6, validation=[0, 1] * 2)
    for place in ({"data_dir": files}, {"data_dir": stored}, {"dataset": stored}):
        said = told(**place, **drawn)
        assert "data.validation_fraction (the data have a validation split)" in said
        assert "data.subset_seed (all rows are taken)" in said
        assert "without effect" not in told(**place)
        assert "subset_seed" not in told(**place, subset_seed=7, train_rows=4)
    assert "data.separator (no file is a .csv or .tsv)" in told(data_dir=stored, separator=";")
    assert "without effect" not in told(data_dir=alone, **drawn)
