"""The splits of a data set: which files of a folder hold them, what `save_to_disk` wrote, and the hub."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import InputError, check_one_of, listing, reason
from common.files import is_plain_name, load_json
from datamodules.files import COLUMN_ENDINGS, read_table
from datamodules.sources import Table, stacked

if TYPE_CHECKING:
    from datasets import Dataset

# Names under which a split may be stored, the hub's own first.
SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("validation", "validation_matched", "dev", "valid", "val"),
    "validation_mismatched": ("validation_mismatched",),
    "test": ("test", "test_matched"),
    "test_mismatched": ("test_mismatched",),
}


def existing_folder(data_dir: str, layouts: str) -> Path:
    """The folder; an InputError that says what it should hold when it isn't one."""
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise InputError(f"data_dir is {data_dir!r}, which is not a folder; allowed: a folder with {layouts}.")
    return folder


def folder_content(folder: Path) -> str:
    """The names in a folder, for messages."""
    return listing(sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir()))


def find_file(folder: Path, name: str) -> Path | None:
    """The file of that name, plain or with `.gz`."""
    candidates = (folder / name, folder / f"{name}.gz")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def require_file(folder: Path, name: str) -> Path:
    """`find_file`, or an InputError that lists what is there."""
    path = find_file(folder, name)
    if path is None:
        raise InputError(
            f"{folder} has no {name} (plain or .gz). It holds: {folder_content(folder)}. "
            "Add the file, or give another --data.data_dir."
        )
    return path


def split_files(folder: Path, split: str, endings: Sequence[str] = COLUMN_ENDINGS) -> list[Path]:
    """The file of a split, or the pieces it was written in; empty when there is none.

    `InputError`: several files could be meant, or pieces are missing: a download that was cut off.
    """
    found: list[list[Path]] = []
    for name in SPLIT_NAMES[split]:
        found += [[file] for ending in endings if (file := find_file(folder, name + ending))]
        shards = sorted(folder.glob(f"{name}-*-of-*.parquet"))
        found += [shards] if shards else []
        for shard in shards:
            promised = shard.stem.rpartition("-of-")[2]
            if promised.isdecimal() and int(promised) != len(shards):
                raise InputError(
                    f"{folder} holds {len(shards)} of the {int(promised)} pieces that {shard.name} belongs to: "
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
    return stacked([read_table(path, wanted, separator) for path in paths])


def check_complete(splits: Mapping[str, object], needed: Sequence[str], source: str) -> None:
    """Raises InputError unless all splits that are needed are there."""
    if missing := [split for split in needed if split not in splits]:
        accepted = "; ".join(" or ".join(SPLIT_NAMES[split]) for split in missing)
        raise InputError(f"no {' and no '.join(missing)} split in {source}. Accepted names: {accepted}.")


def named_tables(folder: Path, wanted: Sequence[str], needed: Sequence[str]) -> dict[str, Table]:
    """The splits of a folder with named columns: what `save_to_disk` wrote, else Parquet and JSON-lines files.

    Empty when there is no training split. `InputError`: a missing split, or a row that can't be read (with file and row
    or line number).
    """
    if saved_folder(folder):
        return saved_tables(folder, wanted, needed)
    files = {split: split_files(folder, split) for split in SPLIT_NAMES}
    if not files["train"]:
        return {}
    tables = {split: read_tables(paths, wanted) for split, paths in files.items() if paths}
    check_complete(tables, needed, f"{folder} (it holds: {folder_content(folder)})")
    return tables


def saved_folder(folder: Path) -> bool:
    """Whether `save_to_disk` of the datasets library wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file()


def saved_tables(
    folder: Path, wanted: Sequence[str], needed: Sequence[str], chosen: Mapping[str, str | None] = {}
) -> dict[str, Table]:
    """The splits in a folder that `DatasetDict.save_to_disk` wrote; the settings are those of `hub_tables`.

    `InputError`: a single data set instead of a DatasetDict, a damaged folder, or see `hub_tables`.
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
    return _split_tables(saved, str(folder), wanted, needed, chosen)


def _check_names(folder: Path) -> None:
    """Refuses a folder whose own lists of splits and files lead out of it."""
    try:
        listed = folder / "dataset_dict.json"
        splits = load_json(listed)["splits"] if listed.is_file() else []
        names = [(listed, split) for split in splits]
        for state in [folder / split / "state.json" for split in splits if is_plain_name(split)]:
            if state.is_file():
                names += [(state, file["filename"]) for file in load_json(state)["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder} can't be read ({type(error).__name__}: {error}). Save it again.") from error
    for path, name in names:
        if not is_plain_name(name):
            raise InputError(f"{path} names {name!r}; allowed: names inside its folder. Save the data set again.")


def hub_tables(
    dataset: str,
    name: str | None,
    revision: str | None,
    instead: str,
    wanted: Sequence[str],
    needed: Sequence[str] = (),
    chosen: Mapping[str, str | None] = {},
) -> dict[str, Table]:
    """The splits of a data set on the hub, or in its cache.

    `InputError`: the hub can't be reached and its cache does not hold the data set; a split that is needed or chosen
    and isn't there, or one without rows.

    Args:
        name: its configuration, where it has several.
        instead: what local files would do instead, for the message.
        wanted: columns that are looked for.
        needed: splits that must be there.
        chosen: the data set's own names of some splits; the others are found under any of their usual names, but for
            names that are chosen.
    """
    import datasets

    parts = (dataset,) if name is None else (dataset, name)
    try:
        loaded = datasets.load_dataset(*parts, revision=revision)
    except Exception as error:  # connection, offline mode, unknown revision: many types, one meaning
        raise InputError(
            f"the data set {' / '.join(parts)} (revision {revision or 'main'}) can't be loaded: {reason(error)} "
            f"Ways on: {instead}; HF_HOME set to a cache that holds it, with HF_HUB_OFFLINE=1; "
            "or `--config quickstart.yaml`, which needs no hub."
        ) from error
    return _split_tables(loaded, dataset if name is None else f"{dataset} ({name})", wanted, needed, chosen)


def _split_tables(
    loaded: Mapping[str, "Dataset"],
    source: str,
    wanted: Sequence[str],
    needed: Sequence[str],
    chosen: Mapping[str, str | None],
) -> dict[str, Table]:
    tables = {}
    taken = [name for name in chosen.values() if name is not None]
    for split, usual in SPLIT_NAMES.items():
        name = chosen.get(split) or next((name for name in usual if name in loaded and name not in taken), None)
        if name is None:
            continue
        check_one_of(f"{split}_split of {source}", name, loaded)
        tables[split] = _table(loaded[name], f"{source}, {name}", wanted)
    hint = "; --data.train_split chooses" if chosen else ""
    check_complete(tables, needed, f"{source} (it has: {listing(tuple(loaded))}{hint})")
    return tables


def _table(data: "Dataset", source: str, wanted: Sequence[str]) -> Table:
    if not len(data):
        raise InputError(f"{source} has no rows. Fetch or write it again.")
    named = {column: getattr(feature, "names", None) for column, feature in data.features.items()}
    class_names = {column: tuple(names) for column, names in named.items() if names}
    columns = {column: data[column][:] if column in wanted else data[column] for column in data.column_names}
    return Table(columns, lambda row: f"{source} row {row + 1}", source, class_names)
