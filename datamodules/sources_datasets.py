"""Splits from the datasets library: the hub, its cache, and `save_to_disk` folders."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import InputError, listing, one_of, reason
from common.files import is_plain_name
from datamodules.sources import Table

# Names under which a split may be stored, the hub's own first.
SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("validation", "validation_matched", "dev", "valid", "val"),
    "validation_mismatched": ("validation_mismatched",),
    "test": ("test", "test_matched"),
    "test_mismatched": ("test_mismatched",),
}


def saved_folder(folder: Path) -> bool:
    """Whether `save_to_disk` of the datasets library wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file()


def load_saved(folder: Path) -> Mapping[str, Any]:
    """The splits in a folder that `DatasetDict.save_to_disk` wrote.

    Raises:
        InputError: a single data set instead of a DatasetDict, or a damaged folder.
    """
    import datasets

    _check_names(folder)
    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # whatever a damaged Arrow file makes the library raise
        raise InputError(
            f"{folder} can't be read by datasets.load_from_disk: {reason(error)}. Save it again."
        ) from error
    if not isinstance(saved, dict):
        raise InputError(
            f"{folder} holds a single data set; allowed: a DatasetDict with train and validation. "
            "Save it with DatasetDict(train=…, validation=…).save_to_disk."
        )
    return saved


def _check_names(folder: Path) -> None:
    """Refuses a folder whose own lists of splits and files lead out of it."""
    try:
        listed = folder / "dataset_dict.json"
        splits = json.loads(listed.read_text())["splits"] if listed.is_file() else []
        names = [(listed, split) for split in splits]
        for state in [folder / split / "state.json" for split in splits if is_plain_name(split)]:
            if state.is_file():
                names += [(state, file["filename"]) for file in json.loads(state.read_text())["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder} can't be read ({type(error).__name__}: {error}). Save it again.") from error
    for path, name in names:
        if not is_plain_name(name):
            raise InputError(f"{path} names {name!r}; allowed: names inside its folder. Save the data set again.")


def load_hub(dataset: str, name: str | None, revision: str | None, instead: str) -> Mapping[str, Any]:
    """The splits of a data set on the hub, or in its cache.

    Args:
        name: its configuration, where it has several.
        instead: what local files would do instead, for the message.

    Raises:
        InputError: the hub can't be reached and its cache does not hold the data set.
    """
    import datasets

    parts = (dataset,) if name is None else (dataset, name)
    try:
        return datasets.load_dataset(*parts, revision=revision)
    except Exception as error:  # connection, offline mode, unknown revision: many types, one meaning
        raise InputError(
            f"the data set {' / '.join(parts)} (revision {revision or 'main'}) can't be loaded: {reason(error)} "
            f"Ways on: {instead}; HF_HOME set to a cache that holds it, with HF_HUB_OFFLINE=1; "
            "or `--config quickstart.yaml`, which needs no hub."
        ) from error


def check_complete(splits: Mapping[str, object], needed: Sequence[str], source: str) -> None:
    """Raises InputError unless all splits that are needed are there."""
    if missing := [split for split in needed if split not in splits]:
        accepted = "; ".join(f"{split} may be called {', '.join(SPLIT_NAMES[split])}" for split in missing)
        raise InputError(f"no {' and no '.join(missing)} split in {source}. Accepted names: {accepted}.")


def split_tables(
    loaded: Mapping[str, Any],
    source: str,
    wanted: Sequence[str],
    needed: Sequence[str],
    chosen: Mapping[str, str | None] = {},
) -> dict[str, Table]:
    """Splits as tables.

    Args:
        loaded: what `load_hub` or `load_saved` gave.
        wanted: columns that are looked for.
        chosen: the data set's own names of some splits; the others are found under any of their usual names, but for
            names that are chosen.

    Raises:
        InputError: a split that is needed or chosen and isn't there, or one without rows.
    """
    tables = {}
    taken = [name for name in chosen.values() if name is not None]
    for split, usual in SPLIT_NAMES.items():
        name = chosen.get(split) or next((name for name in usual if name in loaded and name not in taken), None)
        if name is None:
            continue
        if name not in loaded:
            raise one_of(f"{split}_split of {source}", name, tuple(loaded))
        tables[split] = _table(loaded[name], f"{source}, {name}", wanted)
    hint = "; --data.train_split chooses" if chosen else ""
    check_complete(tables, needed, f"{source} (it has: {listing(tuple(loaded))}{hint})")
    return tables


def _table(data: Any, source: str, wanted: Sequence[str]) -> Table:
    if not len(data):
        raise InputError(f"{source} has no rows. Fetch or write it again.")
    named = {column: getattr(feature, "names", None) for column, feature in data.features.items()}
    class_names = {column: tuple(names) for column, names in named.items() if names}
    columns = {column: data[column][:] if column in wanted else data[column] for column in data.column_names}
    return Table(columns, lambda row: f"{source} row {row + 1}", source, class_names)
