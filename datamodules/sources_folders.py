"""Folders: which of their files hold which split."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from common.errors import InputError, listing
from datamodules.sources import Table
from datamodules.sources_datasets import SPLIT_NAMES, check_complete, load_saved, saved_folder, split_tables
from datamodules.sources_files import COLUMN_ENDINGS, read_table


def existing_folder(data_dir: str, layouts: str) -> Path:
    """The folder; an InputError that says what it should hold when it isn't one."""
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise InputError(f"data_dir is {data_dir!r}, which is not a folder; allowed: a folder with {layouts}.")
    return folder


def find_file(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of `names` that is in `folder`, plain or with `.gz`."""
    candidates = (folder / f"{name}{ending}" for name in names for ending in ("", ".gz"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def require_file(folder: Path, name: str) -> Path:
    """`find_file`, or an InputError that lists what was looked for and what is there."""
    path = find_file(folder, (name,))
    if path is None:
        raise InputError(
            f"{folder} has no {name} (plain or .gz). It holds: {folder_content(folder)}. "
            "Add the file, or give another --data.data_dir."
        )
    return path


def folder_content(folder: Path) -> str:
    """The names in a folder, for messages."""
    return listing(sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir()))


def named_tables(folder: Path, wanted: Sequence[str], needed: Sequence[str]) -> dict[str, Table]:
    """The splits of a folder with named columns: what `save_to_disk` wrote, else Parquet and JSON-lines files.

    Empty when there is no training split.

    Raises:
        InputError: a missing split, or a row that can't be read (with file and row or line number).
    """
    if saved_folder(folder):
        return split_tables(load_saved(folder), str(folder), wanted, needed)
    files = {split: split_files(folder, split) for split in SPLIT_NAMES}
    if not files["train"]:
        return {}
    tables = {split: read_tables(paths, wanted) for split, paths in files.items() if paths}
    check_complete(tables, needed, f"{folder} (it holds: {folder_content(folder)})")
    return tables


def split_files(folder: Path, split: str, endings: Sequence[str] = COLUMN_ENDINGS) -> list[Path]:
    """The file of a split, or the pieces it was written in; empty when there is none.

    Raises:
        InputError: several files could be meant, or pieces are missing: a download that was cut off.
    """
    found: list[list[Path]] = []
    for name in SPLIT_NAMES[split]:
        found += [[file] for ending in endings if (file := find_file(folder, [name + ending]))]
        shards = sorted(folder.glob(f"{name}-*-of-*.parquet"))
        found += [shards] if shards else []
        for shard in shards:
            promised = shard.stem.rpartition("-of-")[2]
            if promised.isdecimal() and int(promised) != len(shards):
                raise InputError(
                    f"{folder} holds {len(shards)} of the {int(promised)} pieces that {shard.name} speaks of: "
                    f"{listing([found.name for found in shards])}. Fetch the others, or take the wrong ones away."
                )
    if len(found) > 1:
        raise InputError(
            f"{folder} has several files for one split: {listing([files[0].name for files in found])}; allowed: one. "
            "Move the others elsewhere."
        )
    return found[0] if found else []


def read_tables(paths: Sequence[Path], wanted: Sequence[str], separator: str | None = None) -> Table:
    """`read_table` of each file, one under the other."""
    parts = [read_table(path, wanted, separator) for path in paths]
    if len(parts) == 1:
        return parts[0]
    starts = [0, *accumulate(len(part) for part in parts)]

    def where(row: int) -> str:
        place = bisect_right(starts, row) - 1
        return parts[place].where(row - starts[place])

    shared = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    columns = {name: [value for part in parts for value in part.columns[name]] for name in shared}
    return Table(columns, where, f"{paths[0].parent} ({paths[0].name} to {paths[-1].name})")
