"""Running text for language modelling: text files, or a text column of any table.

A text is a list of rows, each with its line end: joined, they are the split as it stands in the file.
"""

from collections.abc import Mapping
from pathlib import Path

from common.errors import InputError
from datamodules.files import TABLE_ENDINGS, read_lines, read_table, table_ending
from datamodules.sources import Table
from datamodules.splits import folder_content


def read_running_text(path: Path, column: str = "text") -> list[str]:
    """The lines of a text file, or the rows of a column of a CSV, JSON-lines or Parquet file; plain or gzip-compressed.

    `InputError`: a missing, empty or unreadable file, a missing column, or a row that is no text.
    """
    if not path.is_file():
        folder = path.parent
        there = f"{folder} holds: {folder_content(folder)}" if folder.is_dir() else f"there is no folder {folder}"
        raise InputError(f"there is no file {path}; {there}. Check the path.")
    if table_ending(path.name) in TABLE_ENDINGS:
        return running_text(read_table(path, (column,)), column)
    *lines, last = read_lines(path)
    return [*(f"{line}\n" for line in lines), *([last] if last else [])]


def running_text(table: Table, column: str) -> list[str]:
    """The rows of a column; one without a line end gets one.

    `InputError`: the column is missing or empty, or a row is no text.
    """
    table.require((column,), "Rename the column, or name the one that holds the text with --data.text_column.")
    rows = table.texts(column, may_be_empty=True)
    if not any(map(str.strip, rows)):
        raise InputError(f"{table.source} has no text in its column {column}. Fetch or write it again.")
    return [text if text.endswith("\n") else f"{text}\n" for text in rows]


def running_texts(tables: Mapping[str, Table], column: str) -> dict[str, list[str]]:
    """`running_text` of the splits that language modelling uses."""
    return {split: running_text(tables[split], column) for split in ("train", "validation", "test") if split in tables}
