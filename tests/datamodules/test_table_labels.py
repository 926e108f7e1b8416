"""What is a label in the user's own tables, which number it gets, and what is refused."""

import json
import math

import pandas as pd
import pytest

from common.errors import InputError
from tests.datamodules.test_table import GOOD, frame, write_lines


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([10, 9, 2], ("2", "9", "10")),
        ([1.0, 0.0, 1.0], ("0", "1")),
        (["10", " 9", "2"], ("2", "9", "10")),
        (["-1", "+1", "-1"], ("-1", "+1")),
        ([True, False, True], ("false", "true")),
        (["b", "a ", "b"], ("a", "b")),
        ([2, "+1", "01", 1.0, "0"], ("0", "1", "2")),  # a number is one label however it is written
        (["01", "2", "+1"], ("01", "2")),
        ([1e16, 10**16, "7"], ("7", "10000000000000000")),
        ([True, "False", "TRUE", "False"], ("False", "true")),  # and so is a truth value
        (["a\u200e", "b\0", "\u00ada", "b"], ("a", "b")),  # what can't be seen makes no other label
        (["cafe\u0301", "b", "\ufeffcaf\u00e9", "caf\u00e9"], ("b", "caf\u00e9")),  # they look the same
    ],
)
def test_labels_are_whole_numbers_by_size_or_names_by_alphabet(make_table, tmp_path, labels, names):
    rows = [{"review": f"w{row}", "kind": label} for row, label in enumerate(labels * 2)]
    for split, chosen in (("train", rows), ("dev", rows[:3])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    data = make_table(data_dir=str(tmp_path))
    assert data.task.label_names == names

    def canonical(label):
        text = str(label).strip().lower().replace("e\u0301", "\u00e9").strip("\ufeff\u200e\u00ad\0")
        return float(text) if text[-1].isdigit() else text

    assert data.class_names == names
    found = [names[label].lower() for label in data.read_splits()["validation"].labels]
    assert list(map(canonical, found)) == list(map(canonical, labels[:3]))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([0, 1], r"line 2: kind is \[0, 1\] \(list\); allowed: one name or whole number"),
        ({"a": "x" * 10_000}, r"line 2: kind is \{'a': 'xx.{20,90}… \(dict\); allowed"),
        (b"yes", r"row 2: kind is b'yes' \(bytes\)"),
        ("nan", r"line 2: kind is 'nan', which programs write for a missing label; .*--data.label_names"),
        (math.nan, "line 2: kind is empty"),
        ("<NA>", r"line 2: kind is '<NA>', which programs write for a missing label"),
        (1e-05, r"line 2: kind is 1e-05; allowed: whole numbers, or names.* regression; list all labels"),
        ("2E3", r"line 2: kind is '2E3'; allowed: whole numbers, or names"),
        (-math.inf, r"line 2: kind is -inf; allowed: whole numbers, or names"),
        ("9" * 5000, "line 1: kind is 'yes'|line 2: kind is '999.{20,90}…"),
    ],
)
def test_labels_that_are_none_are_refused_in_few_words(make_table, tmp_path, label, message):
    rows = pd.DataFrame({"review": ["w1", "w2", "w3"], "kind": ["yes", label, 1 if label == "9" * 5000 else "no"]})
    good = pd.DataFrame({"review": ["w1", "w2"], "kind": ["yes", "no"]})
    ending = "parquet" if isinstance(label, bytes) else "jsonl"
    if ending == "parquet":
        rows["kind"] = [text.encode() if isinstance(text, str) else text for text in rows["kind"]]
        message = message.replace("row 2: kind is b'yes'", "row 1: kind is b'yes'")
        rows.to_parquet(tmp_path / "train.parquet")
    else:
        (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows.to_dict("records")))
    with pytest.raises(InputError, match=message) as caught:
        make_table(data_dir=str(tmp_path)).setup()
    assert len(str(caught.value)) < 800
    if label in ("nan", math.nan):
        return
    (tmp_path / f"train.{ending}").rename(tmp_path / f"dev.{ending}")
    good.to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(InputError, match="kind is") as caught:
        make_table(data_dir=str(tmp_path)).setup()
    assert f"dev.{ending}" in str(caught.value) and len(str(caught.value)) < 800


def test_a_label_may_be_called_nan_and_test_rows_may_have_none(make_table, tmp_path):
    good = pd.DataFrame({"review": ["w1", "w2"] * 2, "kind": ["nan", "yes"] * 2})
    good.to_csv(tmp_path / "train.csv", index=False)
    good.assign(kind=math.nan).to_parquet(tmp_path / "test.parquet")
    splits = make_table(data_dir=str(tmp_path), label_names=["yes", "nan"], validation_rows=1).load_examples()
    assert sorted(splits["train"].labels + splits["validation"].labels) == [0, 0, 1, 1]
    assert splits["test"].labels is None


def test_label_names_give_order_and_meaning(make_table, tmp_path):
    folder = write_lines(tmp_path, train=GOOD, dev=GOOD)
    data = make_table(data_dir=folder, label_names=["yes", "no", "unsure"])
    assert data.read_splits()["train"].labels == [1, 0, 1]
    assert data.task.num_labels == 3
    with pytest.raises(InputError, match="kind is 'no'; allowed: yes, never"):
        make_table(data_dir=folder, label_names=["yes", "never"]).setup()
    folder = write_lines(
        tmp_path, train=["review,kind", "w1,1.0", "w2,0", "w3,very  good"], dev=["review,kind", "w1,0"]
    )
    data = make_table(data_dir=folder, label_names=["very  good", "1.0", "0.0"])
    assert data.load_examples()["train"].labels == [1, 2, 0] and data.task.label_names == ("very good", "1", "0")


def test_minus_one_is_a_label_where_the_training_split_has_it(make_table, tmp_path):
    train = frame(6).assign(kind=[1, -1, 1, -1, 1, -1])
    train.to_csv(tmp_path / "train.csv", index=False)
    train[train["kind"] == -1].to_csv(tmp_path / "test.csv", index=False)
    data = make_table(data_dir=str(tmp_path))
    assert data.load_examples()["test"].labels == [0, 0, 0]
    assert data.task.label_names == ("-1", "1")


def test_a_row_without_a_label_has_not_the_label_called_none(make_table, tmp_path):
    pd.DataFrame({"review": ["w1", "w2"], "kind": ["None", "some"]}).to_csv(tmp_path / "train.csv", index=False)
    rows = pd.DataFrame({"review": ["w3", "w4"], "kind": ["some", None]})
    rows.to_json(tmp_path / "test.jsonl", orient="records", lines=True)
    with pytest.raises(InputError, match=r"test.jsonl, line 2: kind is ''; allowed: None, some"):
        make_table(data_dir=str(tmp_path)).load_examples()
