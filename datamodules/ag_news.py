"""AG-News: the topic of a news item, from local files or from the hub."""

from dataclasses import dataclass, field
from pathlib import Path

from common.errors import InputError
from common.terminal import logger
from datamodules.files import read_delimited
from datamodules.labels import split_examples
from datamodules.sources import Examples, Table
from datamodules.splits import (
    existing_folder,
    find_file,
    folder_content,
    hub_tables,
    named_tables,
    require_file,
    saved_folder,
)
from datamodules.subsets import hold_out, without_repeats
from datamodules.task import Task
from datamodules.text_classification import TextClassificationDataModule

NEEDED = ("train", "test")
LAYOUTS = (
    "train.csv and test.csv (class 1 to 4, title, description; plain or .gz), train and test as .parquet or .jsonl "
    "with the columns text and label, or what save_to_disk of datasets wrote"
)
# Label order is the hub's; the CSV files count from 1.
AG_NEWS_TASK = Task("ag_news", ("text",), ("World", "Sports", "Business", "Sci/Tech"), ("accuracy",))


@dataclass(kw_only=True, eq=False, repr=False)
class AGNewsDataModule(TextClassificationDataModule):
    """AG-News (Zhang, Zhao and LeCun, 2015): from `data_dir` when given, else fancyzhx/ag_news from the hub.

    A text is the title, a space and the description, as in the hub's `text` column. Backslashes, which stand for the
    original's line breaks, are kept as they are there. The set has no validation split: one is drawn from the training
    split, and never overlaps with the rows trained on. Training rows that repeat a row of the test split, case and
    punctuation aside, are dropped first. The test is the whole test split.

    Args:
        data_dir: folder with train.csv and test.csv (class 1 to 4, title, description; plain or .gz), train and test
            as .parquet or .jsonl with the columns text and label, or a save_to_disk folder.
        dataset_revision: hub branch, tag or commit of the data set.
        train_rows: train on a fixed random subset of at most this many rows; null trains on all the rest.
        validation_rows: random training rows held out for validation.
        subset_seed: seed of both draws. It is separate from seed, so that all runs see the same rows.
    """

    data_dir: str | None = None
    dataset_revision: str | None = None
    train_rows: int | None = 10_000
    validation_rows: int = 2_000
    dropped_train_rows: int = field(init=False, default=0)

    @property
    def task(self) -> Task:
        return AG_NEWS_TASK

    @property
    def name(self) -> str:
        return "ag_news"

    @property
    def summary(self) -> dict[str, object]:
        return {**super().summary, "dropped_train_rows": self.dropped_train_rows}

    def load_examples(self) -> dict[str, Examples]:
        examples = split_examples(AG_NEWS_TASK, self._tables())
        examples["train"], self.dropped_train_rows = without_repeats(examples["train"], examples["test"])
        if self.dropped_train_rows:
            logger.info(
                f"ag_news: left out {self.dropped_train_rows} training rows that repeat a row of the test split."
            )
        if "validation" not in examples:
            train, validation = hold_out(examples["train"], self.validation_rows, self.subset_seed)
            examples |= {"train": train, "validation": validation}
        return examples

    def _tables(self) -> dict[str, Table]:
        if self.data_dir is None:
            instead = f"--data.data_dir FOLDER with {LAYOUTS}"
            return hub_tables("fancyzhx/ag_news", None, self.dataset_revision, instead, AG_NEWS_TASK.columns, NEEDED)
        folder = existing_folder(self.data_dir, LAYOUTS)
        if not saved_folder(folder) and find_file(folder, "train.csv"):
            return {split: _read_csv(require_file(folder, f"{split}.csv")) for split in NEEDED}
        if tables := named_tables(folder, AG_NEWS_TASK.columns, NEEDED):
            return tables
        raise InputError(
            f"data_dir is {self.data_dir!r}, which holds: {folder_content(folder)}; allowed: a folder with {LAYOUTS}."
        )


def _read_csv(path: Path) -> Table:
    """Class 1 to 4, title, description; some copies name the columns."""
    table = read_delimited(path, ",", ("class", "title", "description"), heading="class")
    names = {str(number): name for number, name in enumerate(AG_NEWS_TASK.label_names, start=1)}
    labels, titles, descriptions = table.columns.values()
    for row, label in enumerate(labels):
        if label not in names:
            allowed = ", ".join(f"{number} ({name})" for number, name in names.items())
            raise table.row_error(row, f"class is {label!r}", allowed)
    texts = [f"{title} {description}" for title, description in zip(titles, descriptions, strict=True)]
    return table.with_column("text", texts).with_column("label", [names[str(label)] for label in labels])
