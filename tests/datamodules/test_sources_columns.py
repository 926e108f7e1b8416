import gzip
import json

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from common.errors import InputError
from datamodules import AGNewsDataModule, GLUEDataModule, TableDataModule, WikiTextDataModule
from datamodules.glue import read_glue_folder, read_hub
from datamodules.task import GLUE_TASKS

COLA, RTE = GLUE_TASKS["cola"], GLUE_TASKS["rte"]
TRAIN = {"sentence": ["Fine one.", "Not one fine."], "label": [1, 0], "idx": [0, 1]}
DEV = {"sentence": ["Good."], "label": [1], "idx": [0]}
TEST = {"sentence": ["Hidden."], "label": [-1], "idx": [0]}
PAIRS = {"sentence1": ["A.", "B."], "sentence2": ["C.", "D."], "label": ["not_entailment", "entailment"]}


def write_json_lines(path, columns):
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_parquet(path, columns):
    Dataset.from_dict(columns).to_parquet(str(path))


def as_tuples(splits):
    return {name: (rows.texts, rows.pairs, rows.labels) for name, rows in splits.items()}


EXPECTED = {
    "train": (["Fine one.", "Not one fine."], None, [1, 0]),
    "validation": (["Good."], None, [1]),
    "test": (["Hidden."], None, None),
}


@pytest.mark.parametrize(
    ("write", "ending"),
    [
        (write_parquet, ".parquet"),
        (write_json_lines, ".jsonl"),
        (write_json_lines, ".jsonl.gz"),
        (write_json_lines, ".json"),
    ],
)
def test_named_columns_with_the_hubs_minus_one_for_unlabelled(tmp_path, write, ending):
    for name, columns in (("train", TRAIN), ("validation", DEV), ("test", TEST)):
        write(tmp_path / f"{name}{ending}", columns)
    assert as_tuples(read_glue_folder(COLA, str(tmp_path))) == EXPECTED


def test_labels_may_be_names_and_shards_are_joined(tmp_path):
    folder = tmp_path / "rte"
    folder.mkdir()
    write_parquet(folder / "train-00001-of-00002.parquet", PAIRS | {"sentence1": ["E.", "F."]})
    write_parquet(folder / "train-00000-of-00002.parquet", PAIRS)
    write_json_lines(folder / "validation.jsonl", PAIRS)
    splits = read_glue_folder(RTE, str(tmp_path))
    assert splits["train"].texts == ["A.", "B.", "E.", "F."]
    assert splits["train"].pairs == ["C.", "D.", "C.", "D."]
    assert splits["train"].labels == [1, 0, 1, 0]
    assert splits["validation"].labels == [1, 0]
    assert [splits["train"].where(row) for row in range(4)] == [
        f"{folder}/train-0000{row // 2}-of-00002.parquet, row {row % 2 + 1}" for row in range(4)
    ]
    (folder / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(InputError, match=r"holds 1 of the 2 pieces that train-00000-of-00002.parquet belongs to"):
        read_glue_folder(RTE, str(tmp_path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * 100_000, "is not JSON (maximum recursion depth"),
        ("{oops", "train.jsonl, line 2: '{oops' is not JSON"),
        ('["a list"]', "line 2: '[\"a list\"]' is not a JSON object"),
        ('{"sentence": "x", "label": 1, "label": 0}', "is not JSON ('label' is given twice)"),
        ('{"sentence": "x"}', "line 2: no label among sentence"),
        ('{"sentence": "x", "label": 7}', "line 2: label is 7; allowed: 0 (unacceptable), 1 (acceptable)"),
        ('{"sentence": "x", "label": true}', "line 2: label is True"),
        ('{"sentence": "x", "label": NaN}', "line 2: label is nan"),
        ('{"sentence": "x", "label": -1}', "line 2: label is -1"),
        ('{"sentence": null, "label": 1}', "line 2: sentence is None; allowed: text"),
        ('{"sentence": "", "label": 1}', "line 2: sentence is empty"),
        ('{"sentence": "a\\ud800", "label": 1}', "half of a surrogate pair"),
    ],
)
def test_a_malformed_json_line_is_named(tmp_path, line, message):
    write_json_lines(tmp_path / "validation.jsonl", DEV)
    (tmp_path / "train.jsonl").write_text(f'{{"sentence": "ok", "label": 1}}\n{line}\n')
    with pytest.raises(InputError) as caught:
        read_glue_folder(COLA, str(tmp_path))
    assert message in str(caught.value)


def test_only_the_columns_that_are_asked_for_are_converted(tmp_path):
    import pyarrow

    far = pyarrow.array([10**7, 10**7]).cast(pyarrow.int32()).cast(pyarrow.date32())  # beyond Python's dates
    broken = pyarrow.StringArray.from_buffers(2, pyarrow.py_buffer(bytes([0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0])),
                                              pyarrow.py_buffer(b"\xff\xfe"))  # fmt: skip
    write_parquet(tmp_path / "validation.parquet", DEV)
    write_parquet(tmp_path / "train.parquet", {"sentence": ["a", "b"], "label": [1, 0], "day": far, "note": broken})
    assert read_glue_folder(COLA, str(tmp_path))["train"].texts == ["a", "b"]
    write_parquet(tmp_path / "train.parquet", {"sentence": broken, "label": [1, 0]})
    with pytest.raises(InputError, match=r"train.parquet can't be read as Parquet: 'utf-8' codec"):
        read_glue_folder(COLA, str(tmp_path))
    (tmp_path / "train.parquet").write_bytes(b"PAR1 but nothing else")
    with pytest.raises(InputError, match=r"train.parquet can't be read as Parquet"):
        read_glue_folder(COLA, str(tmp_path))


def test_missing_columns_and_splits_are_named(tmp_path):
    write_parquet(tmp_path / "train.parquet", TRAIN)
    with pytest.raises(InputError, match=r"no validation split in .*train.parquet.*Accepted names: validation or"):
        read_glue_folder(COLA, str(tmp_path))
    (tmp_path / "validation.jsonl").write_text('{"sentence": "a"}\n{"sentence": "b", "label": 1}\n')
    with pytest.raises(InputError, match=r"validation.jsonl, line 1: no label among sentence"):
        read_glue_folder(COLA, str(tmp_path))
    write_json_lines(tmp_path / "validation.jsonl", TEST)
    with pytest.raises(InputError, match=r"validation.jsonl: no row has a label: label is empty or -1"):
        read_glue_folder(COLA, str(tmp_path))
    write_parquet(tmp_path / "train.parquet", {"text": ["a"], "label": [1]})
    with pytest.raises(InputError, match="no sentence among its columns text, label"):
        read_glue_folder(COLA, str(tmp_path))


def test_save_to_disk_folders_and_their_label_names(tmp_path):
    # Numbered the other way round: what counts are the names.
    names = ClassLabel(names=["acceptable", "unacceptable"])
    features = Features({"sentence": Value("string"), "label": names})
    train = {"sentence": TRAIN["sentence"], "label": [0, 1]}
    dev = {"sentence": DEV["sentence"], "label": [0]}
    test = {"sentence": TEST["sentence"], "label": [-1]}
    saved = DatasetDict(
        {
            name: Dataset.from_dict(columns, features=features)
            for name, columns in (("train", train), ("validation", dev), ("test", test))
        }
    )
    saved.save_to_disk(str(tmp_path / "cola"))
    assert as_tuples(read_glue_folder(COLA, str(tmp_path / "cola"))) == EXPECTED

    saved["train"].save_to_disk(str(tmp_path / "single"))
    with pytest.raises(InputError, match="holds a single data set; allowed: a DatasetDict"):
        read_glue_folder(COLA, str(tmp_path / "single"))


def hub(monkeypatch, **splits) -> list:
    """Puts a data set on the hub; what is asked of the hub is in the list."""
    asked = []
    loaded = DatasetDict({split: Dataset.from_dict(columns) for split, columns in splits.items()})
    monkeypatch.setattr("datasets.load_dataset", lambda *args, **settings: asked.append((args, settings)) or loaded)
    return asked


def test_the_hub_is_asked_for_the_task_at_its_revision(monkeypatch):
    asked = hub(monkeypatch, train=TRAIN, validation=DEV, test=TEST)
    assert as_tuples(read_hub(COLA, "abc123")) == EXPECTED
    assert asked == [(("nyu-mll/glue", "cola"), {"revision": "abc123"})]


def test_the_hubs_split_names_and_labels(monkeypatch):
    pairs = {"premise": ["P.", "Q."], "hypothesis": ["H.", "I."]}
    labels = {"train": [0, 2], "validation_matched": [0, 2], "validation_mismatched": [1, 1]}
    labels |= {"test_matched": [-1, -1], "test_mismatched": [-1, -1]}
    hub(monkeypatch, **{split: pairs | {"label": numbers} for split, numbers in labels.items()})
    found = {name: rows.labels for name, rows in read_hub(GLUE_TASKS["mnli"], None).items()}
    expected = {"train": [0, 2], "validation": [0, 2], "validation_mismatched": [1, 1]}
    assert found == expected | {"test": None, "test_mismatched": None}

    pairs = {"sentence1": ["A.", "B."], "sentence2": ["C.", "D."]}
    scored = pairs | {"label": [1.5, 4.0]}
    hub(monkeypatch, train=scored, validation=scored, test=pairs | {"label": [-1.0, -1.0]})
    splits = read_hub(GLUE_TASKS["stsb"], None)
    assert (splits["train"].labels, splits["test"].labels) == ([1.5, 4.0], None)


@pytest.mark.parametrize(
    ("data", "asked", "local"),
    [
        (GLUEDataModule("cola"), "nyu-mll/glue / cola", (".tsv", "save_to_disk")),
        (AGNewsDataModule(), "fancyzhx/ag_news", ("train.csv", ".parquet")),
        (WikiTextDataModule(), "Salesforce/wikitext / wikitext-2-raw-v1", ("wiki.train.raw", ".gz")),
        (TableDataModule(dataset="me/mine"), "me/mine", ("--data.train_file", ".jsonl")),
    ],
)
def test_an_unreachable_hub_names_every_way_on(monkeypatch, data, asked, local):
    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach it on the Hub (LocalEntryNotFoundError)")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(InputError, match=f"the data set {asked} .*Couldn't reach it") as caught:
        data.setup()
    for way_on in ("--data.data_dir", *local, "HF_HOME", "HF_HUB_OFFLINE=1", "--config quickstart.yaml"):
        assert way_on in str(caught.value)
