"""AG-News against the csv module, sets and counts made on the spot."""

import csv
import gzip

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from common.errors import InputError
from datamodules import AGNewsDataModule

NAMES = ["World", "Sports", "Business", "Sci/Tech"]
COUNTS = {"train": 60, "test": 16}


def news(split: str, row: int) -> tuple[int, str, str]:
    """Class, title and description; every row another text, with all that CSV has to quote."""
    title = f'{split} "{row}", w{row % 40}'
    return row % 4 + 1, title, f'w{row * 7 % 40} w{row * 3 % 40}\\w1; w2 #39;s, "quoted"'


def write_csv(folder, changes=None, ending="", header=None):
    for split, rows in COUNTS.items():
        lines = [news(split, row) for row in range(rows)]
        for row, replaced in (changes or {}).get(split, {}).items():
            lines[row] = replaced
        path = folder / f"{split}.csv{ending}"
        opened = gzip.open if ending else open
        with opened(path, "wt", encoding="utf-8", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([header] * bool(header) + lines)
    return str(folder)


@pytest.fixture
def make_news(backbone, tmp_path):
    def build(changes=None, **settings):
        settings = {"data_dir": write_csv(tmp_path, changes), "validation_rows": 10, "train_rows": 30} | settings
        return AGNewsDataModule(backbone=backbone, **settings)

    return build


def all_rows(examples) -> dict[str, int]:
    return dict(zip(examples.texts, examples.labels, strict=True))


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("header", [None, ("Class Index", "Title", "Description")])
def test_the_official_files_read_as_the_csv_module_reads_them(backbone, tmp_path, ending, header):
    data = AGNewsDataModule(
        backbone=backbone, data_dir=write_csv(tmp_path, ending=ending, header=header), validation_rows=10
    )
    splits = data.read_splits()
    expected = {}
    for split in COUNTS:
        opened = gzip.open if ending else open
        with opened(tmp_path / f"{split}.csv{ending}", "rt", newline="") as file:
            rows = list(csv.reader(file))[bool(header) :]
        expected[split] = {title + " " + description: int(label) - 1 for label, title, description in rows}
    assert all_rows(splits["test"]) == expected["test"]
    assert all_rows(splits["train"]) | all_rows(splits["validation"]) == expected["train"]
    assert data.task.label_names == tuple(NAMES)
    assert data.task.metrics == ("accuracy",)


def test_subsets_are_fixed_disjoint_and_of_the_asked_size(make_news):
    defaults = AGNewsDataModule()  # those of the study
    assert (defaults.train_rows, defaults.validation_rows, defaults.batch_size) == (10_000, 2_000, 32)

    def texts(**settings):
        splits = make_news(**settings).read_splits()
        return splits["train"].texts, splits["validation"].texts, splits["test"].texts

    train, validation, test = texts()
    assert (len(train), len(validation), len(test)) == (30, 10, 16)
    assert not set(train) & set(validation)
    assert texts(seed=7) == (train, validation, test)
    other = texts(subset_seed=7)
    assert other[0] != train and other[1] != validation and other[2] == test
    everything = texts(train_rows=None)
    assert len(everything[0]) == 50 and everything[1] == validation
    order = [" ".join(news("train", row)[1:]) for row in range(60)]
    for drawn in (train, validation, everything[0]):
        assert [order.index(text) for text in drawn] == sorted(map(order.index, drawn))


def test_training_rows_that_repeat_a_test_row_are_dropped_and_counted(make_news, capsys):
    _, title, description = news("test", 5)
    repeats = {3: (1, title.upper(), f"-- {description}!"), 8: (4, f"{title} {description}", ""), 9: (1, "New", title)}
    data = make_news({"train": repeats}, train_rows=None)
    data.setup()
    assert "left out 2 training rows that repeat a row of the test split" in capsys.readouterr().out
    assert data.summary == {
        "name": "ag_news",
        "train_rows": 48,
        "validation_rows": 10,
        "test_rows": 16,
        "truncated_rows": {"train": 0, "test": 0, "validation": 0},
        "dropped_train_rows": 2,
    }
    used = data.read_splits()
    dropped = {f"{repeats[row][1]} {repeats[row][2]}" for row in (3, 8)}
    assert not dropped & {*used["train"].texts, *used["validation"].texts}


def named_columns(split):
    rows = [news(split, row) for row in range(COUNTS[split])]
    return {"text": [f"{title} {text}" for _, title, text in rows], "label": [label - 1 for label, _, _ in rows]}


def test_save_to_disk_and_hub_give_the_same_rows(make_news, backbone, tmp_path, monkeypatch):
    wanted = make_news().read_splits()
    features = Features({"text": Value("string"), "label": ClassLabel(names=NAMES)})
    saved = DatasetDict({split: Dataset.from_dict(named_columns(split), features=features) for split in COUNTS})
    saved.save_to_disk(str(tmp_path / "saved"))
    assert make_news(data_dir=str(tmp_path / "saved")).read_splits() == wanted
    asked = []
    monkeypatch.setattr("datasets.load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or saved)
    assert make_news(data_dir=None, dataset_revision="abc").read_splits() == wanted
    assert asked == [(("fancyzhx/ag_news",), {"revision": "abc"})]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((5, "a", "b"), r"train.csv, line 3: class is '5'; allowed: 1 \(World\), .*4 \(Sci/Tech\)"),
        (("World", "a", "b"), "line 3: class is 'World'"),
        ((1, "only a title"), r"line 3: 2 comma-separated columns in '1,only a title'; allowed: 3"),
        ((1, " ", ""), "line 3: text is empty"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(make_news, row, message):
    with pytest.raises(InputError, match=message):
        make_news({"train": {2: row}}).setup()


def test_missing_files_and_too_few_rows(make_news, tmp_path):
    data = make_news()
    (tmp_path / "test.csv").write_text('"Class Index","Title","Description"\n')
    with pytest.raises(InputError, match=r"test.csv has no rows, only a header"):
        data.setup()
    with pytest.raises(InputError, match="60 validation rows can't be drawn from 60 training rows; allowed: 1 to 59"):
        make_news(validation_rows=60).setup()
    data = make_news()
    (tmp_path / "test.csv").unlink()
    with pytest.raises(InputError, match=r"has no test.csv \(plain or .gz\)"):
        data.setup()
    (tmp_path / "train.csv").unlink()
    with pytest.raises(InputError, match=r"allowed: a folder with train.csv and test.csv"):
        data.setup()
    with pytest.raises(InputError, match="which is not a folder"):
        make_news(data_dir=str(tmp_path / "nowhere")).setup()
