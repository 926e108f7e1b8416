"""AG-News: the topic of a news item, from local files or from the hub."""

from typing import Any

from common.terminal import say
from datamodules.sources import Examples
from datamodules.sources_ag_news import LAYOUTS, NEEDED, read_ag_news_folder
from datamodules.sources_datasets import dataset_examples, load_hub
from datamodules.subsets import hold_out, without_repeats
from datamodules.task import Task
from datamodules.text_classification import TextClassificationDataModule

HUB_AG_NEWS = "fancyzhx/ag_news"
# Label order is the hub's; the CSV files count from 1.
AG_NEWS_TASK = Task("ag_news", ("text",), ("World", "Sports", "Business", "Sci/Tech"), ("accuracy",))


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
        subset_seed: seed of both draws; apart from seed, so that all runs see the same rows.
    """

    def __init__(
        self,
        data_dir: str | None = None,
        dataset_revision: str | None = None,
        train_rows: int | None = 10_000,
        validation_rows: int = 2_000,
        subset_seed: int = 42,
        **kwargs: Any,
    ) -> None:
        super().__init__(train_rows=train_rows, validation_rows=validation_rows, subset_seed=subset_seed, **kwargs)
        self.data_dir = data_dir
        self.dataset_revision = dataset_revision
        self.dropped_train_rows = 0

    @property
    def task(self) -> Task:
        return AG_NEWS_TASK

    @property
    def name(self) -> str:
        return "ag_news"

    @property
    def summary(self) -> dict[str, Any]:
        return {**super().summary, "dropped_train_rows": self.dropped_train_rows}

    def load_examples(self) -> dict[str, Examples]:
        examples = self._read()
        examples["train"], self.dropped_train_rows = without_repeats(examples["train"], examples["test"])
        if self.dropped_train_rows:
            say(f"ag_news: left out {self.dropped_train_rows} training rows that repeat a row of the test split.")
        if "validation" not in examples:
            held_out = hold_out(examples["train"], self.validation_rows, self.subset_seed)
            examples["train"], examples["validation"] = held_out
        return examples

    def _read(self) -> dict[str, Examples]:
        if self.data_dir is not None:
            return read_ag_news_folder(self.task, self.data_dir)
        loaded = load_hub(HUB_AG_NEWS, None, self.dataset_revision, f"--data.data_dir FOLDER with {LAYOUTS}")
        return dataset_examples(self.task, loaded, NEEDED, HUB_AG_NEWS)
