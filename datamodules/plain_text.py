"""The user's own text, for language modelling."""

from pathlib import Path
from typing import Any

from common.errors import InputError
from datamodules.language_modelling import LanguageModellingDataModule
from datamodules.sources_plain import read_rows


class PlainTextDataModule(LanguageModellingDataModule):
    """Text files of one's own: plain text, or a text column of JSON-lines or Parquet; text files may be .gz.

    In plain text a line is a row; in the other formats a row is one, and gets a line end if it has none.

    Args:
        train_file: text to train on.
        validation_file: text to validate on; not given: the end of the training text.
        test_file: text to test on; not given: there is no test.
        text_column: column that holds the text in .jsonl and .parquet files.
        validation_fraction: share of the training lines, at its end, that validates when validation_file isn't given.
    """

    def __init__(
        self,
        train_file: str | None = None,
        validation_file: str | None = None,
        test_file: str | None = None,
        text_column: str = "text",
        validation_fraction: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.train_file = train_file
        self.validation_file = validation_file
        self.test_file = test_file
        self.text_column = text_column
        self.validation_fraction = validation_fraction

    @property
    def name(self) -> str:
        return f"text/{Path(self.train_file or '').name.partition('.')[0]}"

    def check_settings(self) -> None:
        super().check_settings()
        if self.validation_file is None and not 0 < self.validation_fraction < 1:
            raise InputError(
                f"validation_fraction is {self.validation_fraction}; allowed: more than 0 and less than 1. Set "
                "--data.validation_fraction, or give --data.validation_file."
            )

    def load_texts(self) -> dict[str, list[str]]:
        if self.train_file is None:
            raise InputError("train_file isn't given; allowed: a text file. Set --data.train_file.")
        train = self.read_predict_file(self.train_file)
        if self.validation_file is not None:
            splits = {"train": train, "validation": self.read_predict_file(self.validation_file)}
        else:
            splits = self._drawn_from_the_end(train)
        if self.test_file is not None:
            splits["test"] = self.read_predict_file(self.test_file)
        return splits

    def read_predict_file(self, file: str) -> list[str]:
        return read_rows(Path(file).expanduser(), self.text_column)

    def _drawn_from_the_end(self, train: list[str]) -> dict[str, list[str]]:
        kept = len(train) - max(1, round(self.validation_fraction * len(train)))
        splits = {"train": train[:kept], "validation": train[kept:]}
        for name, rows in splits.items():
            if not any(row.strip() for row in rows):
                raise InputError(
                    f"{self.train_file} has {len(train)} lines, which leaves the {name} split without text when "
                    f"validation takes {self.validation_fraction:g} of them. Give --data.validation_file, or another "
                    "--data.validation_fraction."
                )
        return splits
