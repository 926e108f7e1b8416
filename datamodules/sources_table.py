"""The user's own tables: where they are, and what their labels are."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.terminal import warn
from datamodules.sources import folder_content, listing
from datamodules.sources_columns import (
    SPLIT_NAMES,
    TABLE_ENDINGS,
    Table,
    check_complete,
    read_tables,
    split_files,
)
from datamodules.sources_datasets import load_hub, load_saved, saved_folder, split_tables

_WHOLE_NUMBER = re.compile(r"[+-]?\d+")
_WHOLE_AS_FRACTION = re.compile(r"([+-]?\d+)\.0*")
_FRACTION = re.compile(r"[+-]?(\d*\.\d+|\d+\.\d*)([eE][+-]?\d+)?")
_SEARCHED = 500  # labels in which a near miss is looked for: it takes long


@dataclass(frozen=True)
class TableSource:
    """Where the splits of a table are: in files, or in a data set of the hub or a `save_to_disk` folder.

    Attributes:
        files: the file of each split, where named.
        data_dir: folder of the files; where no train file is named, files called train, validation and test in it.
        dataset: `owner/name` on the hub, or a folder that save_to_disk wrote.
        dataset_name: its configuration, where it has several.
        dataset_revision: branch, tag or commit.
        splits: the data set's own name of each split, where chosen.
    """

    files: Mapping[str, str | None]
    data_dir: str | None
    dataset: str | None
    dataset_name: str | None
    dataset_revision: str | None
    splits: Mapping[str, str | None]

    @property
    def places(self) -> list[Path]:
        """Files and folders that the splits may be read from."""
        folder = Path(self.data_dir or ".").expanduser()
        named = [folder / Path(file).expanduser() for file in self.files.values() if file is not None]
        whole = [place for place in (self.data_dir, self.dataset) if place is not None]
        return [*named, *(Path(place).expanduser() for place in whole)]

    @property
    def name(self) -> str:
        """What to call the data in results and messages."""
        if self.dataset is not None:
            return self.dataset if self.dataset_name is None else f"{self.dataset}/{self.dataset_name}"
        return self.files["train"] or self.data_dir or "table"

    def check(self) -> None:
        """Raises InputError unless there is one source."""
        named = [f"{split}_file" for split, file in self.files.items() if file is not None]
        if self.dataset is not None and (named or self.data_dir is not None):
            other = ", ".join([*named, *["data_dir"] * (self.data_dir is not None)])
            raise InputError(f"dataset is {self.dataset!r} and {other} given too; allowed: one source of the data.")
        self._check_effect()
        if self.dataset is None and self.data_dir is None and self.files["train"] is None:
            raise InputError(
                "the data has no source; allowed: --data.train_file FILE, --data.data_dir FOLDER with a file called "
                f"train ({', '.join(TABLE_ENDINGS)}), or --data.dataset NAME."
            )

    def _check_effect(self) -> None:
        """Raises InputError for a choice within a data set where there is none to choose in."""
        if self.dataset is not None:
            return
        choices = {"dataset_name": self.dataset_name, "dataset_revision": self.dataset_revision}
        if self.files["train"] is not None or not saved_folder(Path(self.data_dir or ".").expanduser()):
            choices |= {f"{split}_split": name for split, name in self.splits.items()}
        for name, value in choices.items():
            if value is not None:
                raise InputError(
                    f"{name} is {value!r}, but would have no effect: it chooses in a data set, and the data are files. "
                    "Leave it out, or give --data.dataset."
                )

    def read(self, wanted: Sequence[str], separator: str | None) -> dict[str, Table]:
        """The splits as tables; `train` is always among them.

        Args:
            wanted: columns that are looked for.
            separator: see `read_table`.
        """
        if self.dataset is not None:
            return self._read_dataset(self.dataset)
        folder = Path(self.data_dir or ".").expanduser()
        if not folder.is_dir():
            raise InputError(f"data_dir is {self.data_dir!r}, which is not a folder; allowed: a folder with the data.")
        if self.files["train"] is None and saved_folder(folder):
            return self._complete(load_saved(folder), str(folder))
        named = {split: [folder / Path(file).expanduser()] for split, file in self.files.items() if file is not None}
        _tell_repeats({split: str(files[0].resolve()) for split, files in named.items()})
        if self.files["train"] is None:
            taken = [file.resolve() for files in named.values() for file in files]
            for split in [split for split in self.files if split not in named]:
                files = split_files(folder, SPLIT_NAMES[split], TABLE_ENDINGS)
                # a file that is named for one split is no other one's, whatever it is called
                named[split] = [file for file in files if file.resolve() not in taken]
        found = {split: named[split] for split in self.files if named.get(split)}
        check_complete(found, ("train",), f"{folder} (it holds: {folder_content(folder)})")
        return {split: read_tables(files, wanted, separator) for split, files in found.items()}

    def _read_dataset(self, dataset: str) -> dict[str, Table]:
        if saved_folder(Path(dataset).expanduser()):
            return self._complete(load_saved(Path(dataset).expanduser()), dataset)
        instead = "--data.train_file FILE or --data.data_dir FOLDER with the data as .csv, .tsv, .jsonl or .parquet"
        return self._complete(load_hub(dataset, self.dataset_name, self.dataset_revision, instead), self.name)

    def _complete(self, loaded: Mapping[str, Any], source: str) -> dict[str, Table]:
        _tell_repeats(self.splits)
        tables = split_tables(loaded, source, self.splits)
        check_complete(tables, ("train",), f"{source} (it has: {', '.join(loaded)}; --data.train_split chooses)")
        return tables


def _tell_repeats(chosen: Mapping[str, Any]) -> None:
    """Warns where the same rows were chosen for two purposes: the figures of one say nothing about new rows then."""
    for (first, theirs), (second, ours) in combinations(chosen.items(), 2):
        if theirs is not None and theirs == ours:
            warn(f"The same rows are chosen for {first} and {second}: {ours}.")


def label_text(label: Any) -> str:
    """How a label is written, the same whether it came as text or as a number: 1, 1.0 and " 1" are all `1`.

    None is no label: it must not pass for one that is called "None".
    """
    if label is None:
        return ""
    if isinstance(label, bool):
        return str(label).lower()
    text = " ".join(str(label).split())
    whole = _WHOLE_AS_FRACTION.fullmatch(text)
    return whole[1] if whole else text


def label_names(table: Table, column: str) -> tuple[str, ...]:
    """The different labels of a training split: whole numbers by size, names by alphabet, or the data set's own order.

    Raises:
        InputError: a row without a label, a fraction, or numbers and names mixed.
    """
    if column in table.class_names:
        return table.class_names[column]
    first: dict[str, int] = {}  # label: the row it is first seen in
    for row, label in enumerate(table.columns[column]):
        text = label_text(label)
        if text in ("", "nan"):
            raise InputError(f"{table.where(row)}: {column} is empty; allowed: a label. Correct or remove the row.")
        if _FRACTION.fullmatch(text):
            raise InputError(
                f"{table.where(row)}: {column} is {label!r}; allowed for classification: whole numbers, or names. "
                "For scores set --data.problem regression."
            )
        first.setdefault(text, row)
    numbers = [text for text in first if _WHOLE_NUMBER.fullmatch(text)]
    if len(numbers) == len(first):
        return tuple(sorted(first, key=int))
    if numbers:
        odd = min((text for text in first if text not in numbers), key=first.__getitem__)
        raise InputError(
            f"{table.where(first[odd])}: {column} is {odd!r}, where other rows have whole numbers ({numbers[0]}); "
            "allowed: whole numbers throughout, or names. Correct the row, or list all labels in --data.label_names."
        )
    return tuple(sorted(first))


def with_label_numbers(table: Table, column: str, names: Sequence[str]) -> Table:
    """`table` with each label replaced by its place in `names`.

    Raises:
        InputError: a label that is not among them.
    """
    labels = table.columns.get(column)
    if labels is None:
        return table
    if column in table.class_names:
        return _renumbered(table, column, labels, names)
    places = {name: place for place, name in enumerate(names)}
    if table.labels(column) is None and not any(label_text(label) in places for label in labels):
        return table  # unlabelled; but -1 is a label like any other where the training split has it
    numbers = []
    for row, label in enumerate(labels):
        text = label_text(label)
        if text not in places:
            raise _unknown_label(f"{table.where(row)}: {column}", text, names)
        numbers.append(places[text])
    return table.with_column(column, numbers)


def _renumbered(table: Table, column: str, labels: Sequence[Any], names: Sequence[str]) -> Table:
    """Class labels, which are numbers already, by their names; other names for as many classes stand in their order."""
    theirs = [label_text(name) for name in table.class_names[column]]
    if theirs == list(names) or (len(theirs) == len(names) and not set(theirs) & set(names)):
        return table
    places = {name: place for place, name in enumerate(names)}
    numbers = []
    for row, label in enumerate(labels):
        name = theirs[label] if label in range(len(theirs)) else None
        if name is not None and name not in places:
            raise _unknown_label(f"{table.where(row)}: {column}", name, names)
        numbers.append(label if name is None else places[name])
    rest = {other: kept for other, kept in table.class_names.items() if other != column}
    return replace(table.with_column(column, numbers), class_names=rest)


def _unknown_label(what: str, text: str, names: Sequence[str]) -> InputError:
    shown = listing(names)
    near = get_close_matches(text, names[:_SEARCHED], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(
        f"{what} is {text!r}; allowed: {shown} (the labels of the training split, or of --data.label_names).{hint} "
        "Correct or remove the row."
    )
