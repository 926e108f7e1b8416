"""Running text for language modelling: text files, and a text column of Parquet, JSON-lines, saved folders or the hub.

A text is a list of rows, each with its line end: joined, they are the split as it stands in the file.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import InputError
from datamodules.sources import folder_content, read_lines, read_text
from datamodules.sources_columns import JSON_ENDINGS, SPLIT_NAMES, parse_record, read_parquet, split_files

COLUMN_ENDINGS = (*JSON_ENDINGS, ".parquet")


def read_rows(path: Path, column: str = "text") -> list[str]:
    """The lines of a text file, or the rows of a column of a JSON-lines or Parquet file; plain or gzip-compressed.

    Raises:
        InputError: a missing, empty or unreadable file, a missing column, or a row that is no text.
    """
    if not path.is_file():
        folder = path.parent
        there = f"{folder} holds: {folder_content(folder)}" if folder.is_dir() else f"there is no folder {folder}"
        raise InputError(f"there is no file {path}; {there}. Check the path.")
    name = path.name.removesuffix(".gz")
    if name.endswith(JSON_ENDINGS):
        return _json_rows(path, column)
    if name.endswith(".parquet"):
        return column_rows(read_parquet(path), column, str(path), lambda row: f"{path}, row {row + 1}")
    return _lines(read_text(path))


def _lines(text: str) -> list[str]:
    # Only line feeds end a line: splitlines would split at other characters, too.
    lines = [line + "\n" for line in text.split("\n")]
    return [*lines[:-1], *([lines[-1][:-1]] if lines[-1] != "\n" else [])]


def _json_rows(path: Path, column: str) -> list[str]:
    lines = read_lines(path)

    def where(row: int) -> str:
        return f"{path}, line {lines[row][0]}"

    records = [parse_record(line, where(row)) for row, (_, line) in enumerate(lines)]
    for row, record in enumerate(records):
        if column not in record:
            raise _no_column(where(row), column, list(record))
    return column_rows({column: [record[column] for record in records]}, column, str(path), where)


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
        f"{source} has no column {column!r} among its columns {', '.join(columns)}. Rename the column, or name the "
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
        InputError: a damaged folder, or a single data set instead of a DatasetDict.
    """
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # whatever a damaged Arrow file makes the library raise
        raise InputError(f"{folder} can't be read by datasets.load_from_disk: {error}. Save it again.") from error
    if not isinstance(saved, dict):
        raise InputError(
            f"{folder} holds a single data set; allowed: a DatasetDict with train and validation. "
            "Save it with DatasetDict(train=…, validation=…).save_to_disk."
        )
    return _from_datasets(saved, column, str(folder))


def read_hub_rows(name: str, variant: str, revision: str | None, column: str, other_ways: str) -> dict[str, list[str]]:
    """Splits of a data set from the hub, or from its cache.

    Args:
        name: the data set, `OWNER/NAME`.
        variant: its configuration.
        revision: branch, tag or commit.
        column: the column that holds the text.
        other_ways: where else the data could come from, for the message.

    Raises:
        InputError: the hub can't be reached and its cache does not hold it.
    """
    import datasets

    try:
        loaded = datasets.load_dataset(name, variant, revision=revision)
    except Exception as error:  # connection, offline mode, unknown revision: many types, one meaning
        reason = str(error).strip().split("\n")[0][:300]
        raise InputError(
            f"the data set {name} ({variant}, revision {revision or 'main'}) can't be loaded: {reason} Ways on: "
            f"{other_ways}; or HF_HOME set to a cache that holds it, with HF_HUB_OFFLINE=1."
        ) from error
    return _from_datasets(loaded, column, f"{name} ({variant})")


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
