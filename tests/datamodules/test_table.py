"""The user's own tables, against pandas."""

import bz2
import lzma

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from common.errors import InputError
from datamodules.task import CLASSIFICATION_METRICS, GLUE_TASKS, REGRESSION_METRICS
from lightning_modules.metrics import METRICS
from tests.datamodules.conftest import rows_of

KINDS = ("no", "yes", "maybe, later")


def frame(rows: int, first: int = 0) -> pd.DataFrame:
    numbers = range(first, first + rows)
    return pd.DataFrame(
        {
            "id": list(numbers),
            "review": [f'w{n % 40} says "w{n * 3 % 40}",\nthen w{n * 7 % 40}' for n in numbers],
            "reply": [f"w{n * 5 % 40}" for n in numbers],
            "kind": [KINDS[n % 3] for n in numbers],
            "stars": [n % 5 / 2 for n in numbers],
        }
    )


def one_line(table: pd.DataFrame) -> pd.DataFrame:
    """As .tsv files have it: no quoting, so no line breaks or tabs in a cell."""
    return table.assign(review=table["review"].str.replace("\n", " "))


def unquoted(table: pd.DataFrame) -> str:
    table = one_line(table)
    return "\n".join("\t".join(map(str, row)) for row in [table.columns, *table.itertuples(index=False)])


WRITERS = {
    "csv": lambda table, path: table.to_csv(path, index=False),
    "csv.gz": lambda table, path: table.to_csv(path, index=False),
    "tsv": lambda table, path: path.write_text(unquoted(table)),
    "jsonl": lambda table, path: table.to_json(path, orient="records", lines=True),
    "jsonl.gz": lambda table, path: table.to_json(path, orient="records", lines=True),
    "parquet": lambda table, path: table.to_parquet(path, index=False),
}


@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_gives_the_rows_that_were_written(make_table, tmp_path, ending):
    tables = {"train": frame(30), "validation": frame(9, 100), "test": frame(6, 200)}
    for split, table in tables.items():
        WRITERS[ending](table, tmp_path / f"{split}.{ending}")
    named = {f"{split}_file": f"{split}.{ending}" for split in tables}
    for settings in ({"data_dir": str(tmp_path)}, {"data_dir": str(tmp_path)} | named):
        data = make_table(**settings)
        splits = data.read_splits()
        assert data.task.label_names == ("maybe, later", "no", "yes")
        assert list(splits) == ["train", "validation", "test"]
        for split, table in tables.items():
            expected = one_line(table) if ending == "tsv" else table
            assert splits[split].texts == expected["review"].tolist()
            assert [data.task.label_names[label] for label in splits[split].labels] == table["kind"].tolist()
            assert splits[split].pairs is None


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress, lambda content: b"\x28\xb5\x2f\xfd" + content])
def test_another_archive_than_gzip_is_named(make_table, tmp_path, compress):
    (tmp_path / "train.csv").write_bytes(compress(b"review,kind\nw1,no\n"))
    with pytest.raises(InputError, match=r"train.csv is a \w+ archive; allowed: plain text, or .gz"):
        make_table(data_dir=str(tmp_path)).read_splits()


def test_pairs_scores_and_batches(make_table, tmp_path):
    frame(40).to_csv(tmp_path / "train.csv", index=False)
    data = make_table(
        train_file=str(tmp_path / "train.csv"), pair_column="reply", label_column="stars", problem="regression"
    )
    data.setup("fit")
    assert data.task.metrics == ("pearson", "spearman")
    assert data.task.num_labels == 1
    (validation,) = data.val_dataloader()
    table = frame(40).set_index("review")
    used = data._examples["train"]
    assert used.pairs == table["reply"][used.texts].tolist()
    batch = next(iter(data.train_dataloader()))
    assert batch["labels"].tolist() == pytest.approx([table["stars"][used.texts[row]] for row in batch["row"]])
    assert batch["inputs"]["token_type_ids"].max() == 1
    assert len(rows_of(validation)) == 4


def test_held_out_rows_are_fixed_disjoint_and_complete(make_table, tmp_path, capsys):
    frame(50).to_csv(tmp_path / "train.csv", index=False)

    def texts(**settings):
        splits = make_table(data_dir=str(tmp_path), **settings).read_splits()
        return splits["train"].texts, splits["validation"].texts

    train, validation = texts()
    assert (len(train), len(validation)) == (45, 5)
    assert sorted(train + validation) == sorted(frame(50)["review"])
    assert "no validation split, so 5 of 50 training rows are held out" in capsys.readouterr().out
    assert texts(seed=3) == (train, validation)
    assert texts(subset_seed=3) != (train, validation)
    assert len(texts(validation_fraction=0.5)[1]) == 25
    assert len(texts(validation_rows=12)[1]) == 12


@pytest.mark.parametrize(
    ("content", "settings"),
    [
        ('review\tkind\n"w1\tw2"\tno\n"w3 ""w4"""\tyes\n', {"separator": "\t"}),
        ('review\tkind\n"w1\tw2"\tno\n"w3 ""w4"""\tyes\n', {"separator": r"\t"}),
        ('sep=;\r\nreview;kind\r\n"w1\tw2";no\r\n"w3 ""w4""";yes\r\n', {}),
        ('"sep=\t"\nreview\tkind\n"w1\tw2"\tno\n"w3 ""w4"""\tyes\n', {}),
        ('review,kind,,\nw1\tw2,no,,\n"w3 ""w4""",yes,,\n,,,\n', {}),
        ('review,kind\nw1\tw2,no,,\n"w3 ""w4""",yes\n', {}),
        ('review,kind,\nw1\tw2,no,a note\n"w3 ""w4""",yes,\n', {}),
        ('review,kind\rw1\tw2,no\r"w3 ""w4""",yes\r', {}),
        ('review,kind\rw1\tw2,no\r"w3 ""w4""",yes\n', {}),
    ],
)
def test_what_spreadsheets_write_is_read(make_table, tmp_path, content, settings):
    (tmp_path / "train.csv").write_bytes(content.encode())
    (tmp_path / "dev.csv").write_bytes(content.encode())
    splits = make_table(data_dir=str(tmp_path), **settings).read_splits()
    assert splits["train"].texts == ["w1\tw2", 'w3 "w4"'] and splits["train"].labels == [0, 1]
    line = 3 if content.lower().strip('"').startswith("sep") else 2
    assert splits["train"].where(0) == f"{tmp_path / 'train.csv'}, line {line}"


def write_lines(folder, **files):
    for name, lines in files.items():
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return str(folder)


GOOD = ["review,kind", "w1,no", "w2,yes", '"w3', 'w4",no']


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        (GOOD, ["review,kind", "w1,no", "w2,yess"], r"dev.csv, line 3: kind is 'yess'; allowed: no, yes .*mean 'yes'"),
        ([*GOOD, "w5,0.5"], GOOD, r"train.csv, line 6: kind is '0.5'; .*whole numbers.*--data.problem regression"),
        ([*GOOD, "w5,7"], GOOD, r"train.csv, line 2: kind is 'no', where other rows have whole numbers \(7\)"),
        ([*GOOD, "w5,"], GOOD, r"train.csv, line 6: kind is empty"),
        ([*GOOD, "w5"], GOOD, r"train.csv, line 6: 1 comma-separated columns in 'w5'; allowed: 2 \(review, kind\)"),
        ([*GOOD, '"w5 "w6" w7",no'], GOOD, r"line 6: .* can't be read, up to line 6: ',' expected after '\"'"),
        ([*GOOD, '"w5,no'], GOOD, r"train.csv, line 6: .*unexpected end of data"),
        (GOOD, ["review,kind", "w1,no"], r"all 1 validation rows of .* have the label 'no'"),
        (["review,kind"], GOOD, r"train.csv has no rows"),
        (["review,kind,kind", "w1,no,no"], GOOD, r"train.csv, line 1: the header has kind more than once"),
        (["reviews,kind", "w1,no"], GOOD, r"has no review among its columns reviews, kind. Did you mean 'reviews'\?"),
        (["review;kind", "w1;no"], GOOD, r"has no review and no kind among its columns review;kind"),
        (GOOD, ["review,king", "w1,no"], r"dev.csv has no kind among its columns review, king. Did you mean 'king'\?"),
    ],
)
def test_bad_rows_and_columns_are_named(make_table, tmp_path, train, dev, message):
    with pytest.raises(InputError, match=message):
        make_table(data_dir=write_lines(tmp_path, train=train, dev=dev)).setup()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "the data has no source; allowed: --data.train_file FILE"),
        ({"dataset": "a/b", "train_file": "x.csv"}, "dataset is 'a/b' and train_file given too"),
        ({"data_dir": "nowhere/at all"}, "data_dir is 'nowhere/at all', which is not a folder"),
        ({"train_file": "nothing.csv"}, "can't read nothing.csv"),
        ({"train_file": "train.txt"}, "the ending of train.txt is '.txt'; allowed: .parquet, .jsonl"),
        ({"train_file": "x.csv", "dataset_revision": "v2"}, "dataset_revision is 'v2', but would have no effect"),
        ({"train_file": "x.csv", "metric": "pearson"}, "metric for classification is 'pearson'; allowed: accuracy"),
        ({"train_file": "x.csv", "problem": "ranking"}, "problem is 'ranking'; allowed: classification, regression"),
        ({"train_file": "x.csv", "validation_fraction": 1.0}, "validation_fraction is 1.0; allowed: between 0 and 1"),
        ({"train_file": "x.csv", "label_names": ["a", "a"]}, "at least two names, all different"),
        ({"train_file": "x.csv", "separator": ", "}, "separator is ', '; allowed: one character"),
        ({"train_file": "x.csv", "separator": '"'}, "no quotation mark, blank or line end"),
        ({"train_file": "x.csv", "label_names": ["1", "1.0"]}, "at least two names, all different"),
        ({"train_file": "x.csv", "label_names": ["a", "b"], "problem": "regression"}, "scores .* have none"),
        ({"train_file": "x.csv", "pair_column": "review"}, "the column 'review' is named twice"),
        ({"train_file": "x.csv", "text_column": "kind"}, "the column 'kind' is named twice"),
        ({"train_file": "x.csv", "train_rows": -1}, "train_rows is -1; allowed: 1 or more, or null for all"),
    ],
)
def test_settings_that_cannot_be_are_refused(make_table, settings, message):
    with pytest.raises(InputError, match=message):
        make_table(**settings).setup()


def test_metrics_are_those_that_modules_know(make_table, tmp_path):
    assert {*CLASSIFICATION_METRICS, *REGRESSION_METRICS, "average"} == set(METRICS)  # GLUE alone has averages
    assert {metric for task in GLUE_TASKS.values() for metric in task.metrics} <= set(METRICS)
    frame(30).to_csv(tmp_path / "train.csv", index=False)
    data = make_table(data_dir=str(tmp_path), metric="matthews_correlation")
    assert data.task.metrics == ("matthews_correlation", "accuracy")
    with pytest.raises(InputError, match=r"metric is 'f1', which is for two labels, and there are 3: maybe, later, no"):
        make_table(data_dir=str(tmp_path), metric="f1").setup()


def test_other_separators_and_long_cells(make_table, tmp_path):
    long = "w1 " * 60_000
    (tmp_path / "train.csv").write_text(f'review; kind\n{long};no\n"a; ""b"""; yes\n')
    data = make_table(data_dir=str(tmp_path), train_file="train.csv", validation_file="train.csv", separator=";")
    data.setup()
    assert data._examples["train"].texts == [long, 'a; "b"']
    assert data.summary["truncated_rows"] == {"train": 1, "validation": 1}


def test_data_sets_of_the_hub_with_their_own_split_and_label_names(make_table, tmp_path, monkeypatch):
    names = ["zebra", "ant"]
    features = Features({"review": Value("string"), "kind": ClassLabel(names=names)})
    columns = {"review": [f"w{row}" for row in range(6)], "kind": [row % 2 for row in range(6)]}
    rows = Dataset.from_dict(columns, features=features)
    hidden = Dataset.from_dict(columns | {"kind": [-1] * 6}, features=features)
    loaded = DatasetDict({"learn": rows, "valid": rows.select([0, 1]), "test": hidden})
    asked = []
    monkeypatch.setattr("datasets.load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or loaded)
    settings = {"dataset": "me/animals", "dataset_name": "small", "train_split": "learn"}
    data = make_table(**settings)
    splits = data.read_splits()
    assert asked == [(("me/animals", "small"), {"revision": None})]
    assert data.name == "me/animals/small"
    assert data.task.label_names == ("zebra", "ant")
    assert splits["train"].labels == columns["kind"]
    assert (len(splits["validation"]), splits["test"].labels) == (2, None)
    with pytest.raises(InputError, match=r"validation_split of me.animals \(small\) is 'vali'; allowed: learn"):
        make_table(**settings, validation_split="vali").setup()
    with pytest.raises(InputError, match="no train split in me/animals"):
        make_table(dataset="me/animals").setup()
    loaded.save_to_disk(str(tmp_path / "saved"))
    again = make_table(dataset=str(tmp_path / "saved"), train_split="learn").read_splits()
    assert again == splits
    with pytest.raises(InputError, match="dataset_name is 'small', but would have no effect"):
        make_table(dataset=str(tmp_path / "saved"), train_split="learn", dataset_name="small").setup()
