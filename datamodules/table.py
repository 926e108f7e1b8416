"""The user's own data: texts or pairs of texts with labels or scores, from files or from the hub."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import ClassVar, Literal, get_args

from common.errors import InputError, check_one_of, listing
from common.terminal import logger
from datamodules.files import TABLE_ENDINGS, table_ending
from datamodules.labels import check_labels, examples_of, label_key, label_names, label_text, with_label_numbers
from datamodules.sources import Examples, Table
from datamodules.splits import (
    check_complete,
    existing_folder,
    folder_content,
    hub_tables,
    read_tables,
    saved_folder,
    saved_tables,
    split_files,
)
from datamodules.subsets import hold_out
from datamodules.task import CLASSIFICATION_METRICS, REGRESSION_METRICS, Task
from datamodules.text_classification import TextClassificationDataModule
from datamodules.tokenized_data import tell_idle

Problem = Literal["classification", "regression"]


@dataclass(kw_only=True, eq=False, repr=False)
class TableDataModule(TextClassificationDataModule):
    """Any table with a column of texts (or two) and a column of labels: CSV, tab-separated, JSON-lines, Parquet or hub.

    CSV files have quoting, their first line names the columns; in .tsv files quotation marks are text. Files may be
    gzip-compressed. Labels are whole numbers or names; they are numbered in their order, as found in the training
    split. Without a validation split, random training rows are held out. A test split may lack labels: predict uses it.

    Args:
        train_file: .csv, .tsv, .jsonl, .json or .parquet; relative to data_dir if that is given.
        validation_file: the same for validation.
        test_file: the same for the test.
        data_dir: folder of these files. Without train_file: files called train, validation (or dev) and test in it, or
            what save_to_disk wrote.
        dataset: instead of files, a data set on the hub, or a save_to_disk folder.
        dataset_name: configuration of that data set, where it has several.
        dataset_revision: hub branch, tag or commit of the data set.
        train_split: name of the training split in the data set, if not train.
        validation_split: name of its validation split, if not one of the usual names.
        test_split: name of its test split, if not test.
        text_column: column of the text.
        pair_column: column of the second text, for pairs.
        label_column: column of the label or score.
        problem: classification, or regression for scores.
        label_names: the labels in order, when the training split should not decide.
        metric: accuracy, matthews_correlation or f1 (two labels, the second is the one to find); for regression pearson
            or spearman. It chooses the best epoch; accuracy or pearson if not given.
        validation_fraction: share of the training rows held out when there is no validation split and
            validation_rows is not given.
        separator: what separates the cells of .csv and .tsv files, if not a comma or a tab, such as ; or \\t (a tab).
    """

    predict_advice: ClassVar[str] = "Set --data.text_column and --data.pair_column."

    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    data_dir: str | None = None
    dataset: str | None = None
    dataset_name: str | None = None
    dataset_revision: str | None = None
    train_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    text_column: str = "text"
    pair_column: str | None = None
    label_column: str = "label"
    problem: Problem = "classification"
    label_names: list[str] | None = None
    metric: str | None = None
    validation_fraction: float = 0.1
    separator: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.files = {"train": self.train_file, "validation": self.validation_file, "test": self.test_file}
        self.splits = {"train": self.train_split, "validation": self.validation_split, "test": self.test_split}
        self.text_columns = (self.text_column,) if self.pair_column is None else (self.text_column, self.pair_column)
        self.separator = "\t" if self.separator == r"\t" else self.separator

    @property
    def name(self) -> str:
        if self.dataset is not None:
            return self.dataset if self.dataset_name is None else f"{self.dataset}/{self.dataset_name}"
        return self.files["train"] or self.data_dir or "table"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metric that was asked for first, then those that are always shown."""
        usual = REGRESSION_METRICS if self.problem == "regression" else CLASSIFICATION_METRICS[:1]
        return tuple(dict.fromkeys((self.metric or usual[0], *usual)))

    @cached_property
    def task(self) -> Task:
        """Its labels are those of the training split, which is read for them."""
        names = tuple(map(label_text, self.label_names or ()))
        if self.problem == "classification" and not names:
            names = label_names(self._tables["train"], self.label_column)
        if self.metric == "f1" and len(names) != 2:
            raise InputError(
                f"metric is 'f1', which is for two labels, and there are {len(names)}: {listing(names)}; "
                "allowed: accuracy, matthews_correlation."
            )
        return Task(self.name, self.text_columns, names, self.metrics, self.label_column)

    def check_settings(self) -> None:
        super().check_settings()
        check_one_of("problem", self.problem, get_args(Problem))
        allowed = REGRESSION_METRICS if self.problem == "regression" else CLASSIFICATION_METRICS
        if self.metric is not None:
            check_one_of(f"metric for {self.problem}", self.metric, allowed)
        self._check_labels_and_columns()
        if not 0 < self.validation_fraction < 1:
            raise InputError(f"validation_fraction is {self.validation_fraction}; allowed: between 0 and 1.")
        if self.separator is not None and (len(self.separator) != 1 or self.separator in '" \r\n'):
            raise InputError(
                f"separator is {self.separator!r}; allowed: one character, such as ';', and no quotation mark, blank "
                "or line end."
            )
        self._check_source()

    def _check_labels_and_columns(self) -> None:
        if self.label_names is not None:
            if len(set(map(label_key, self.label_names))) != max(len(self.label_names), 2):
                raise InputError(
                    f"label_names is {listing(self.label_names)}; allowed: at least two names, all different."
                )
            if self.problem == "regression":
                raise InputError("label_names is given, but scores (problem: regression) have none. Leave it out.")
        columns = (*self.text_columns, self.label_column)
        if twice := next((name for name in columns if columns.count(name) > 1), None):
            raise InputError(
                f"the column {twice!r} is named twice; allowed: different ones for --data.text_column, "
                "--data.pair_column and --data.label_column."
            )

    def _check_source(self) -> None:
        """Raises InputError unless there is one source of the data, and every choice in a data set has one."""
        is_saved = saved_folder(Path(self.dataset or self.data_dir or ".").expanduser())
        if self.dataset is not None:
            others = [f"{split}_file" for split, file in self.files.items() if file is not None]
            if others := [*others, *["data_dir"] * (self.data_dir is not None)]:
                raise InputError(
                    f"dataset is {self.dataset!r} and {', '.join(others)} given too; allowed: one source of the data."
                )
            if not is_saved:
                return
        choices = {"dataset_name": self.dataset_name, "dataset_revision": self.dataset_revision}
        if self.files["train"] is not None or not is_saved:
            choices |= {f"{split}_split": name for split, name in self.splits.items()}
        for name, value in choices.items():
            if value is not None:
                raise InputError(
                    f"{name} is {value!r}, but would have no effect: it chooses in a data set, and the data are files. "
                    "Leave it out, or give --data.dataset NAME."
                )
        if self.dataset is None and self.data_dir is None and self.files["train"] is None:
            raise InputError(
                "the data has no source; allowed: --data.train_file FILE, --data.data_dir FOLDER with a file called "
                f"train ({', '.join(TABLE_ENDINGS)}), or --data.dataset NAME."
            )

    @cached_property
    def _tables(self) -> dict[str, Table]:
        tables = self._read((*self.text_columns, self.label_column))
        for split, table in tables.items():
            labelled = () if split.startswith("test") else (self.label_column,)
            table.require(
                (*self.text_columns, *labelled),
                "Set --data.text_column, --data.pair_column and --data.label_column to those that hold the data, "
                "and --data.separator to what stands between the cells of a .csv file, if not a comma.",
            )
        return tables

    def _read(self, wanted: tuple[str, ...]) -> dict[str, Table]:
        """The splits as tables, `train` always among them."""
        if self.dataset is not None and not saved_folder(Path(self.dataset).expanduser()):
            _tell_repeats(self.splits)
            instead = "--data.train_file FILE or --data.data_dir FOLDER with the data as .csv, .tsv, .jsonl or .parquet"
            place = (self.dataset, self.dataset_name, self.dataset_revision)
            return hub_tables(*place, instead, wanted, ("train",), self.splits)
        folder = existing_folder(self.dataset or self.data_dir or ".", "the data")
        if self.files["train"] is None and saved_folder(folder):
            _tell_repeats(self.splits)
            self._tell_idle_separator(())
            return saved_tables(folder, wanted, ("train",), self.splits)
        found = self._found_files(folder)
        check_complete(found, ("train",), f"{folder} (it holds: {folder_content(folder)})")
        self._tell_idle_separator([file for files in found.values() for file in files])
        return {split: read_tables(files, wanted, self.separator) for split, files in found.items()}

    def _tell_idle_separator(self, files: Sequence[Path]) -> None:
        known = self.files["train"] is not None or self.dataset is not None  # it is told before anything is read
        if not known and not any(table_ending(str(file)) in (".csv", ".tsv") for file in files):
            tell_idle("separator", self.separator, None, "no file is a .csv or .tsv")

    def _found_files(self, folder: Path) -> dict[str, list[Path]]:
        """The files of each split: those that are named, and if that leaves out train, those with a split's name."""
        named = {split: [folder / Path(file).expanduser()] for split, file in self.files.items() if file is not None}
        _tell_repeats({split: str(files[0].resolve()) for split, files in named.items()})
        if self.files["train"] is None:
            taken = [file.resolve() for files in named.values() for file in files]
            for split in [split for split in self.files if split not in named]:
                files = split_files(folder, split, TABLE_ENDINGS)
                # a file that is named for one split is no other one's, whatever it is called
                named[split] = [file for file in files if file.resolve() not in taken]
        return {split: named[split] for split in self.files if named.get(split)}

    def load_examples(self) -> dict[str, Examples]:
        examples: dict[str, Examples] = {}
        for split, table in self._tables.items():
            if self.problem == "classification":
                table = with_label_numbers(table, self.label_column, self.task.label_names)
            examples[split] = examples_of(self.task, table, labelled=not split.startswith("test"))
            if split == "train":  # before a label of another split seems to be the one that is wrong
                check_labels(self.name, split, self.task, examples[split])
        if "validation" in examples:
            self._tell_idle_draws()
        else:
            total = len(examples["train"])
            rows = self.validation_rows or max(1, round(self.validation_fraction * total))
            examples["train"], examples["validation"] = hold_out(examples["train"], rows, self.subset_seed)
            logger.info(f"{self.name}: no validation split, so {rows} of {total} training rows are held out.")
        return examples

    def _tell_idle_draws(self) -> None:
        reason = "the data have a validation split"
        if self.files["validation"] is None and self.validation_rows is None:  # else it is told before
            tell_idle("validation_fraction", self.validation_fraction, 0.1, reason)
        if self.validation_rows is None and self.train_rows is None:
            tell_idle("subset_seed", self.subset_seed, 42, "all rows are taken")


def _tell_repeats(chosen: Mapping[str, str | None]) -> None:
    """Warns where the same rows were chosen for two purposes: the figures of one say nothing about new rows then."""
    for (first, theirs), (second, ours) in combinations(chosen.items(), 2):
        if theirs is not None and theirs == ours:
            logger.warning(f"The same rows are chosen for {first} and {second}: {ours}.")
