"""Splits with named columns, from files: Parquet, JSON-lines, CSV and tab-separated text."""

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import accumulate
from pathlib import Path
from typing import Any

from common.errors import InputError, one_of
from datamodules.sources import Examples, examples_of, find_file, folder_content, listing, read_lines
from datamodules.sources_delimited import SEPARATORS, check_widths, read_rows
from datamodules.task import Task

# Names under which a split may be stored, the hub's own first.
SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("validation", "validation_matched", "dev", "valid", "val"),
    "validation_mismatched": ("validation_mismatched",),
    "test": ("test", "test_matched"),
    "test_mismatched": ("test_mismatched",),
}
_SEARCHED = 500  # columns in which a near miss is looked for: it takes long
JSON_ENDINGS = (".jsonl", ".json")
COLUMN_ENDINGS = (".parquet", *JSON_ENDINGS)
TABLE_ENDINGS = (*COLUMN_ENDINGS, *SEPARATORS)
# How unlabelled rows are marked: the hub's -1, or nothing at all.
NO_LABEL = (-1, "-1", None, "")


@dataclass(frozen=True)
class Table:
    """The named columns of one split.

    Attributes:
        columns: the values of each column.
        where: names a row (file and line) in messages.
        source: names the whole split in messages.
        class_names: names of the numbers in a column, where the data itself gives them.
    """

    columns: Mapping[str, Sequence[Any]]
    where: Callable[[int], str]
    source: str
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def labels(self, column: str) -> list[Any] | None:
        """The label column; None when there is none or no row is labelled."""
        labels = self.columns.get(column)
        if labels is None or all(label in NO_LABEL for label in labels):
            return None
        return list(labels)

    def with_column(self, name: str, values: Sequence[Any]) -> "Table":
        return replace(self, columns={**self.columns, name: values})


def has_columns(folder: Path) -> bool:
    """Whether the folder has a train split as Parquet or JSON-lines."""
    return bool(split_files(folder, SPLIT_NAMES["train"]))


def read_column_files(task: Task, folder: Path, needed: Sequence[str]) -> dict[str, Examples]:
    """Splits from `train.parquet`, `validation.jsonl`, … or the hub's `train-00000-of-00001.parquet`.

    Args:
        task: says which columns and labels there have to be.
        folder: where the files are.
        needed: splits that have to be there.

    Raises:
        InputError: a missing file or column, or a row that can't be read (with file and row or line number).
    """
    found = {split: split_files(folder, names) for split, names in SPLIT_NAMES.items()}
    wanted = (*task.text_fields, task.label_column)
    tables = {split: read_tables(files, wanted) for split, files in found.items() if files}
    splits = {split: table_examples(task, table, not split.startswith("test")) for split, table in tables.items()}
    check_complete(splits, needed, f"{folder} (it holds: {folder_content(folder)})")
    return splits


def split_files(folder: Path, names: Sequence[str], endings: Sequence[str] = COLUMN_ENDINGS) -> list[Path]:
    """The file of a split, or the pieces it was written in; empty when there is none.

    Raises:
        InputError: several files could be meant, or pieces are missing.
    """
    found: list[list[Path]] = []
    for name in names:
        found += [[file] for ending in endings if (file := find_file(folder, [name + ending]))]
        if shards := sorted(folder.glob(f"{name}-*-of-*.parquet")):
            _check_shards(folder, shards)
            found.append(shards)
    if len(found) > 1:
        raise InputError(
            f"{folder} has several files for one split: {listing([files[0].name for files in found])}; allowed: one. "
            "Move the others elsewhere."
        )
    return found[0] if found else []


def _check_shards(folder: Path, shards: Sequence[Path]) -> None:
    """Raises InputError when the shards are fewer than their names promise: a download that was cut off."""
    for shard in shards:
        promised = shard.stem.rpartition("-of-")[2]
        if promised.isdecimal() and int(promised) != len(shards):
            raise InputError(
                f"{folder} holds {len(shards)} of the {int(promised)} pieces that {shard.name} speaks of: "
                f"{listing([found.name for found in shards])}. Fetch the others, or take the wrong ones away."
            )


def read_tables(paths: Sequence[Path], wanted: Sequence[str], separator: str | None = None) -> Table:
    """`read_table` of each file, one under the other."""
    parts = [read_table(path, wanted, separator) for path in paths]
    if len(parts) == 1:
        return parts[0]
    ends = list(accumulate(len(part) for part in parts))

    def where(row: int) -> str:
        place = bisect_right(ends, row)
        return parts[place].where(row - (ends[place - 1] if place else 0))

    shared = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    columns = {name: [value for part in parts for value in part.columns[name]] for name in shared}
    return Table(columns, where, f"{paths[0].parent} ({paths[0].name} to {paths[-1].name})")


def table_ending(name: str) -> str:
    """The ending that says how a file is read: of plain or .gz files, in small letters."""
    return Path(name.lower().removesuffix(".gz")).suffix


def read_table(path: Path, wanted: Sequence[str], separator: str | None = None) -> Table:
    """Reads a file by its ending: .parquet, .jsonl, .json, .csv or .tsv, all but Parquet plain or .gz.

    Args:
        path: the file.
        wanted: columns the caller looks for; once there, no row may lack them.
        separator: what stands between the cells of a .csv or .tsv file, if not comma or tab.

    Raises:
        InputError: another ending, no rows, or a row that can't be read (with file and row or line number).
    """
    ending = table_ending(path.name)
    if ending == ".parquet":
        table = _read_parquet(path, wanted)
    elif ending in JSON_ENDINGS:
        table = _read_json_lines(path, wanted)
    elif ending in SEPARATORS:
        table = _read_delimited(path, separator or SEPARATORS[ending])
    else:
        raise one_of(f"the ending of {path}", ending, TABLE_ENDINGS)
    if not len(table):
        raise InputError(f"{path} has no rows. Fetch or write it again, or take it away.")
    return table


def _read_delimited(path: Path, separator: str) -> Table:
    (_, names), *rows = read_rows(path, separator)
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InputError(f"{path}, line 1: the header has {listing(twice)} more than once; rename one of them.")
    check_widths(path, rows, names, separator)
    columns = {name: [row.cells[place] for row in rows] for place, name in enumerate(names)}
    return Table(columns, lambda row: f"{path}, line {rows[row].line}", str(path))


def _read_json_lines(path: Path, wanted: Sequence[str]) -> Table:
    lines = read_lines(path)

    def where(row: int) -> str:
        return f"{path}, line {lines[row][0]}"

    records = [_parse_record(line, where(row)) for row, (_, line) in enumerate(lines)]
    needed = [name for name in wanted if any(name in record for record in records)]
    for row, record in enumerate(records):
        missing = [name for name in needed if name not in record]
        if missing:
            raise InputError(
                f"{where(row)}: no {' and no '.join(missing)} among {listing(list(record))}; every line needs "
                f"{', '.join(needed)}. Correct or remove the row."
            )
    return Table({name: [record.get(name) for record in records] for name in records[0]}, where, str(path))


def _parse_record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # thousands of brackets in one another
        raise InputError(f"{where}: {line[:60]!r} is not JSON ({error}); allowed: one JSON object per line.") from error
    if not isinstance(record, dict):
        raise InputError(f"{where}: {line[:60]!r} is not a JSON object; allowed: one JSON object per line.")
    return record


def _read_parquet(path: Path, wanted: Sequence[str]) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        # the other columns stay as they are: Python may not know their values, such as a date in the year 20,000
        columns = {name: table[name].to_pylist() if name in wanted else table[name] for name in table.column_names}
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{path} can't be read as Parquet: {error}. Fetch or write the file again.") from error
    return Table(columns, lambda row: f"{path}, row {row + 1}", str(path))


def require_columns(table: Table, needed: Sequence[str], advice: str) -> None:
    """Raises InputError, with the columns there are and near misses, unless `table` has all that are needed."""
    missing = [name for name in needed if name not in table.columns]
    if not missing:
        return
    there = list(table.columns)
    likely = there[:_SEARCHED]
    near = sorted({match for name in missing for match in get_close_matches(name, likely, cutoff=0.5)} - set(needed))
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise InputError(
        f"{table.source} has no {' and no '.join(missing)} among its columns {listing(there)}.{hint} {advice}"
    )


def table_examples(task: Task, table: Table, labelled: bool) -> Examples:
    """Checks the columns a task needs and makes `Examples` of them.

    Args:
        task: says which columns and labels there have to be.
        table: the columns of a split.
        labelled: whether the split has to have labels.
    """
    labels = table.labels(task.label_column)
    wanted = (*task.text_fields, task.label_column)
    advice = (
        f"The task {task.name} needs {', '.join(wanted)} (labels: {task.allowed_labels}). Rename the columns, or check "
        "that these are its files."
    )
    if labelled and labels is None and table.columns.get(task.label_column) is not None:
        raise InputError(f"{table.source}: no row has a label: {task.label_column} is empty or -1 in each. {advice}")
    if labelled and labels is None:
        rest = {name: values for name, values in table.columns.items() if name != task.label_column}
        require_columns(replace(table, columns=rest), wanted, advice)
    require_columns(table, task.text_fields, advice)
    names = table.class_names.get(task.label_column, ())
    # Where the data names its labels as the task does, the names count: it may number them differently.
    if labels is not None and set(names) == set(task.label_names) and names != task.label_names:
        labels = [names[label] if label in range(len(names)) else label for label in labels]
    return examples_of(task, [list(table.columns[name]) for name in task.text_fields], labels, table.where)


def check_complete(splits: Mapping[str, Any], needed: Sequence[str], source: str) -> None:
    """Raises InputError unless all splits that are needed are there."""
    missing = [split for split in needed if split not in splits]
    if missing:
        accepted = "; ".join(f"{split} may be called {', '.join(SPLIT_NAMES[split])}" for split in missing)
        raise InputError(f"no {' and no '.join(missing)} split in {source}. Accepted names: {accepted}.")
