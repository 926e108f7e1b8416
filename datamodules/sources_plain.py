"""Running text for language modelling: text files, and a text column of Parquet, JSON-lines, saved folders or the hub.

A text is a list of rows, each with its line end: joined, they are the split as it stands in the file.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import InputError
from datamodules.sources import folder_content, listing, read_text
from datamodules.sources_columns import SPLIT_NAMES, TABLE_ENDINGS, read_table, split_files, table_ending
from datamodules.sources_datasets import load_hub, load_saved


def read_rows(path: Path, column: str = "text") -> list[str]:
    """The lines of a text file, or the rows of a column of a CSV, JSON-lines or Parquet file; plain or gzip-compressed.

    Raises:
        InputError: a missing, empty or unreadable file, a missing column, or a row that is no text.
    """
    if not path.is_file():
        folder = path.parent
        there = f"{folder} holds: {folder_content(folder)}" if folder.is_dir() else f"there is no folder {folder}"
        raise InputError(f"there is no file {path}; {there}. Check the path.")
    if table_ending(path.name) in TABLE_ENDINGS:
        table = read_table(path, (column,))
        return column_rows(table.columns, column, table.source, table.where)
    return _lines(read_text(path))


def _lines(text: str) -> list[str]:
    # Only line feeds end a line: splitlines would split at other characters, too.
    lines = [line + "\n" for line in text.split("\n")]
    return [*lines[:-1], *([lines[-1][:-1]] if lines[-1] != "\n" else [])]


def column_rows(
    columns: Mapping[str, Sequence[Any]], column: str, source: str, where: Callable[[int], str]
) -> list[str]:
    """The rows of a column; one without a line end gets one.

    Raises:
        InputError: the column is missing or empty, or a row is no text.
    """
    if column not in columns:
        raise _no_column(source, column, list(columns))
    rows = list(columns[column])
    for row, text in enumerate(rows):
        if not isinstance(text, str):
            raise InputError(f"{where(row)}: {column} is {text!r}; allowed: text. Correct or remove the row.")
    if not any(text.strip() for text in rows):
        raise InputError(f"{source} has no text in its column {column}. Fetch or write it again.")
    return [text if text.endswith("\n") else f"{text}\n" for text in rows]


def _no_column(source: str, column: str, columns: list[str]) -> InputError:
    return InputError(
        f"{source} has no column {column!r} among its columns {listing(columns)}. Rename the column, or name the "
        "one that holds the text with --data.text_column."
    )


def read_split_files(folder: Path, column: str) -> dict[str, list[str]]:
    """Splits from `train.parquet`, `validation.jsonl`, … or the hub's shards; those that are there."""
    splits = {}
    for split in ("train", "validation", "test"):
        files = split_files(folder, SPLIT_NAMES[split])
        if files:
            splits[split] = [row for path in files for row in read_rows(path, column)]
    return splits


def read_saved_rows(folder: Path, column: str) -> dict[str, list[str]]:
    """Splits from a folder that `DatasetDict.save_to_disk` wrote.

    Raises:
        InputError: see `load_saved`; or a missing column.
    """
    return _from_datasets(load_saved(folder), column, str(folder))


def read_hub_rows(
    name: str, variant: str | None, revision: str | None, column: str, instead: str
) -> dict[str, list[str]]:
    """Splits of a data set from the hub, or from its cache.

    Args:
        name: the data set, `OWNER/NAME`.
        variant: its configuration, if it has several.
        revision: branch, tag or commit.
        column: the column that holds the text.
        instead: what local files would do instead, for the message.

    Raises:
        InputError: see `load_hub`; or a missing column.
    """
    return _from_datasets(
        load_hub(name, variant, revision, instead), column, f"{name} ({variant or revision or 'main'})"
    )


def _from_datasets(loaded: Mapping[str, Any], column: str, source: str) -> dict[str, list[str]]:
    splits = {}
    for split in ("train", "validation", "test"):
        name = next((name for name in SPLIT_NAMES[split] if name in loaded), None)
        if name is None:
            continue
        place = f"{source}, {name}"
        if column not in loaded[name].column_names:
            raise _no_column(place, column, loaded[name].column_names)
        rows = {column: loaded[name][column][:]}
        splits[split] = column_rows(rows, column, place, lambda row, place=place: f"{place} row {row + 1}")  # type: ignore[misc]
    return splits
