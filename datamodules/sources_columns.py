"""Splits with named columns: Parquet and JSON-lines files, `save_to_disk` folders, and the hub."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import InputError
from datamodules.sources import Examples, examples_of, find_file, folder_content, read_lines
from datamodules.task import Task

HUB_GLUE = "nyu-mll/glue"
LABEL_COLUMN = "label"
# Names under which a split may be stored, the hub's own first.
SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("validation", "validation_matched", "dev", "valid"),
    "validation_mismatched": ("validation_mismatched",),
    "test": ("test", "test_matched"),
    "test_mismatched": ("test_mismatched",),
}
JSON_ENDINGS = (".jsonl", ".json")


def has_columns(folder: Path) -> bool:
    """Whether the folder has a train split as Parquet or JSON-lines."""
    return bool(split_files(folder, SPLIT_NAMES["train"]))


def read_column_files(task: Task, folder: Path) -> dict[str, Examples]:
    """Splits from `train.parquet`, `validation.jsonl`, … or the hub's `train-00000-of-00001.parquet`.

    Raises:
        InputError: a missing file or column, or a row that can't be read (with file and row or line number).
    """
    splits = {}
    for split, names in SPLIT_NAMES.items():
        files = split_files(folder, names)
        if files:
            parts = [_read_file(task, path, labelled=not split.startswith("test")) for path in files]
            splits[split] = _joined(parts)
    _check_complete(task, splits, f"{folder} (it holds: {folder_content(folder)})")
    return splits


def split_files(folder: Path, names: Sequence[str]) -> list[Path]:
    """The Parquet or JSON-lines files of a split that may have these names; one, or the hub's shards."""
    for name in names:
        shards = sorted(folder.glob(f"{name}-*-of-*.parquet"))
        single = find_file(folder, (f"{name}.parquet", *(name + ending for ending in JSON_ENDINGS)))
        if single or shards:
            return [single] if single else shards
    return []


def _read_file(task: Task, path: Path, labelled: bool) -> Examples:
    if path.name.removesuffix(".gz").endswith(JSON_ENDINGS):
        columns, where = _read_json_lines(task, path)
    else:
        columns, where = read_parquet(path), lambda row: f"{path}, row {row + 1}"
    return _from_columns(task, columns, where, str(path), labelled)


def _read_json_lines(task: Task, path: Path) -> tuple[dict[str, list[Any]], Callable[[int], str]]:
    lines = read_lines(path)

    def where(row: int) -> str:
        return f"{path}, line {lines[row][0]}"

    records = [parse_record(line, where(row)) for row, (_, line) in enumerate(lines)]
    wanted = [*task.text_fields, *([LABEL_COLUMN] if LABEL_COLUMN in records[0] else [])]
    for row, record in enumerate(records):
        missing = [name for name in wanted if name not in record]
        if missing:
            raise InputError(
                f"{where(row)}: no {' and no '.join(missing)} among {', '.join(record)}; every line needs "
                f"{', '.join(wanted)}. Correct or remove the row."
            )
    return {name: [record[name] for record in records] for name in wanted}, where


def parse_record(line: str, where: str) -> dict[str, Any]:
    """The object on one line of a JSON-lines file."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: {line[:60]!r} is not JSON ({error}); allowed: one JSON object per line.") from error
    if not isinstance(record, dict):
        raise InputError(f"{where}: {line[:60]!r} is not a JSON object; allowed: one JSON object per line.")
    return record


def read_parquet(path: Path) -> dict[str, list[Any]]:
    """The columns of a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} can't be read as Parquet: {error}. Fetch or write the file again.") from error


def _from_columns(
    task: Task,
    columns: Mapping[str, Sequence[Any]],
    where: Callable[[int], str],
    source: str,
    labelled: bool,
) -> Examples:
    """Checks named columns. The hub marks unlabelled splits with -1 in every row."""
    missing = [name for name in task.text_fields if name not in columns]
    labels = columns.get(LABEL_COLUMN)
    if labels is not None and all(label == -1 or label is None for label in labels):
        labels = None
    if labelled and labels is None:
        missing.append(LABEL_COLUMN)
    if missing:
        raise InputError(
            f"{source} has no {' and no '.join(missing)} among its columns {', '.join(columns)}; the task "
            f"{task.name} needs {', '.join((*task.text_fields, LABEL_COLUMN))} "
            f"(labels: {task.allowed_labels}). Rename the columns, or check --data.task."
        )
    texts = [list(columns[name]) for name in task.text_fields]
    if not texts[0]:
        raise InputError(f"{source} has no rows. Fetch or write it again, or take it away.")
    return examples_of(task, texts, labels, where)


def _joined(parts: list[Examples]) -> Examples:
    if len(parts) == 1:
        return parts[0]

    def join(columns: list[Any]) -> list[Any] | None:
        return None if None in columns else [value for column in columns for value in column]

    texts = [text for part in parts for text in part.texts]
    return Examples(texts, join([part.pairs for part in parts]), join([part.labels for part in parts]))


def saved_folder(folder: Path) -> bool:
    """Whether `save_to_disk` of the datasets library wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file()


def read_saved(task: Task, folder: Path) -> dict[str, Examples]:
    """Splits from a folder that `DatasetDict.save_to_disk` wrote.

    Raises:
        InputError: a single data set instead of a DatasetDict, a damaged folder, missing splits or columns.
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
    return _from_datasets(task, saved, str(folder))


def read_hub(task: Task, revision: str | None) -> dict[str, Examples]:
    """Splits of nyu-mll/glue from the hub, or from its cache.

    Raises:
        InputError: the hub can't be reached and its cache does not hold the task.
    """
    import datasets

    try:
        loaded = datasets.load_dataset(HUB_GLUE, task.name, revision=revision)
    except Exception as error:  # connection, offline mode, unknown revision: many types, one meaning
        reason = str(error).strip().split("\n")[0][:300]
        raise InputError(
            f"the data set {HUB_GLUE} ({task.name}, revision {revision or 'main'}) can't be loaded: {reason} "
            f"Ways on: --data.data_dir FOLDER with the files of {task.name} (GLUE's .tsv, .parquet, .jsonl, "
            "or a save_to_disk folder); HF_HOME set to a cache that holds it, with HF_HUB_OFFLINE=1; "
            "or `--config quickstart.yaml`, which needs no hub."
        ) from error
    return _from_datasets(task, loaded, f"{HUB_GLUE} ({task.name})")


def _from_datasets(task: Task, loaded: Mapping[str, Any], source: str) -> dict[str, Examples]:
    splits = {}
    for split, names in SPLIT_NAMES.items():
        name = next((name for name in names if name in loaded), None)
        if name is None:
            continue
        columns: dict[str, list[Any]] = dict(loaded[name][:])
        _use_label_names(task, columns, loaded[name].features)

        def where(row: int, name: str = name) -> str:
            return f"{source}, {name} row {row + 1}"

        splits[split] = _from_columns(task, columns, where, f"{source}, {name}", not split.startswith("test"))
    _check_complete(task, splits, f"{source} (it has: {', '.join(loaded)})")
    return splits


def _use_label_names(task: Task, columns: dict[str, list[Any]], features: Mapping[str, Any]) -> None:
    """Where the data names its labels as the task does, the names count: it may number them differently."""
    names = getattr(features.get(LABEL_COLUMN), "names", None)
    if names and set(names) == set(task.label_names) and tuple(names) != task.label_names:
        columns[LABEL_COLUMN] = [names[label] if label in range(len(names)) else label for label in columns["label"]]


def _check_complete(task: Task, splits: dict[str, Examples], source: str) -> None:
    needed = ["train", "validation"] + ["validation_mismatched"] * (task.name == "mnli")
    missing = [split for split in needed if split not in splits]
    if missing:
        accepted = "; ".join(f"{split} may be called {', '.join(SPLIT_NAMES[split])}" for split in missing)
        raise InputError(f"no {' and no '.join(missing)} split in {source}. Accepted names: {accepted}.")
