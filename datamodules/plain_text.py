"""The user's own text, for language modelling."""

from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError
from datamodules.language_modelling import LanguageModellingDataModule, read_running_text, running_texts
from datamodules.splits import hub_tables
from datamodules.tokenized_data import tell_idle


@dataclass(kw_only=True, eq=False, repr=False)
class PlainTextDataModule(LanguageModellingDataModule):
    """Text of one's own: plain text files, a text column of CSV, JSON-lines or Parquet files, or a hub data set.

    In plain text a line is a row; in the other formats a row is one, and gets a line end if it has none. Files other
    than Parquet may be .gz.

    Args:
        train_file: text to train on. Give this or dataset.
        validation_file: text to validate on; not given: the end of the training text.
        test_file: text to test on; not given: there is no test.
        text_column: column that holds the text in .csv, .tsv, .jsonl and .parquet files and in a hub data set.
        validation_fraction: share of the training lines, at its end, that validates when there is no validation text.
        dataset: OWNER/NAME of a data set on the hub (or in its cache), instead of files.
        dataset_name: the data set's configuration, where it has several.
        dataset_revision: hub branch, tag or commit of the data set.
    """

    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    text_column: str = "text"
    validation_fraction: float = 0.1
    dataset: str | None = None
    dataset_name: str | None = None
    dataset_revision: str | None = None

    @property
    def name(self) -> str:
        return self.dataset or f"text/{Path(self.train_file or '').name.partition('.')[0]}"

    def check_settings(self) -> None:
        super().check_settings()
        if self.validation_file is None and not 0 < self.validation_fraction < 1:
            raise InputError(
                f"validation_fraction is {self.validation_fraction}; allowed: more than 0 and less than 1. Set "
                "--data.validation_fraction, or give --data.validation_file."
            )
        for name in ("dataset_name", "dataset_revision"):
            if self.dataset is None and getattr(self, name) is not None:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}, but would have no effect: it chooses in a data set, and the "
                    "data are files. Leave it out, or give --data.dataset NAME."
                )

    def load_texts(self) -> dict[str, list[str]]:
        if self.dataset is not None:
            return self._from_hub(self.dataset)
        if self.train_file is None:
            raise InputError(
                "train_file isn't given; allowed: a text file, or a data set of the hub. Set --data.train_file or "
                "--data.dataset."
            )
        files = {"train": self.train_file, "validation": self.validation_file, "test": self.test_file}
        splits = {split: self.read_predict_file(file) for split, file in files.items() if file is not None}
        return splits if "validation" in splits else self._drawn_from_the_end(splits.pop("train")) | splits

    def _from_hub(self, dataset: str) -> dict[str, list[str]]:
        given = [name for name in ("train_file", "validation_file", "test_file") if getattr(self, name) is not None]
        if given:
            raise InputError(
                f"dataset is {dataset!r} and {given[0]} is {getattr(self, given[0])!r}; allowed: a data set of the "
                "hub, or files. Leave one of them out."
            )
        instead = "--data.train_file FILE with the same text"
        place = (dataset, self.dataset_name, self.dataset_revision)
        splits = running_texts(hub_tables(*place, instead, (self.text_column,)), self.text_column)
        if "train" not in splits:
            raise InputError(
                f"the data set {dataset} has no train split among {', '.join(splits) or 'its splits'}; allowed: "
                "data sets that have one. Give files instead, with --data.train_file."
            )
        if "test" not in splits:
            tell_idle("test_rows", self.test_rows, None, "the data have no test split")
        if "validation" not in splits:
            return splits | self._drawn_from_the_end(splits["train"])
        tell_idle("validation_fraction", self.validation_fraction, 0.1, "the data have a validation split")
        return splits

    def read_predict_file(self, file: str) -> list[str]:
        return read_running_text(Path(file).expanduser(), self.text_column)

    def _drawn_from_the_end(self, train: list[str]) -> dict[str, list[str]]:
        kept = len(train) - max(1, round(self.validation_fraction * len(train)))
        splits = {"train": train[:kept], "validation": train[kept:]}
        for name, rows in splits.items():
            if not any(row.strip() for row in rows):
                raise InputError(
                    f"{self.dataset or self.train_file} has {len(train)} lines, which leaves the {name} split without "
                    f"text when validation takes {self.validation_fraction:g} of them. Give --data.validation_file, or "
                    "another --data.validation_fraction."
                )
        return splits
