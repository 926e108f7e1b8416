"""GLUE tasks from local folders: the official CoLA release, GLUE's own tab-separated files, or named columns.

Quotation marks in all of these are text: there is no CSV quoting.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from common.errors import InputError
from datamodules.labels import examples_of, split_examples
from datamodules.sources import Examples, joined
from datamodules.sources_datasets import load_hub, saved_folder, split_tables
from datamodules.sources_files import read_delimited
from datamodules.sources_folders import existing_folder, find_file, folder_content, named_tables, require_file
from datamodules.task import Task

HUB_GLUE = "nyu-mll/glue"
CoLAValidation = Literal["in_domain", "combined"]
COLA_VALIDATION = ("in_domain", "combined")


@dataclass(frozen=True)
class Layout:
    """How GLUE itself stores a task: folder and column names."""

    folder: str
    text_columns: tuple[str, ...]
    label_column: str


LAYOUTS = {
    "cola": Layout("CoLA", ("sentence",), "label"),
    "sst2": Layout("SST-2", ("sentence",), "label"),
    "mrpc": Layout("MRPC", ("#1 String", "#2 String"), "Quality"),
    "qqp": Layout("QQP", ("question1", "question2"), "is_duplicate"),
    "stsb": Layout("STS-B", ("sentence1", "sentence2"), "score"),
    "mnli": Layout("MNLI", ("sentence1", "sentence2"), "gold_label"),
    "qnli": Layout("QNLI", ("question", "sentence"), "label"),
    "rte": Layout("RTE", ("sentence1", "sentence2"), "label"),
    "wnli": Layout("WNLI", ("sentence1", "sentence2"), "label"),
}
OFFICIAL_COLA = ("in_domain_train.tsv", "in_domain_dev.tsv", "out_of_domain_dev.tsv")
COLA_COLUMNS = ("source", "label", "star", "sentence")  # their files, and GLUE's for CoLA, have no header


def read_glue_folder(task: Task, data_dir: str, cola_validation: CoLAValidation = "in_domain") -> dict[str, Examples]:
    """The splits of a GLUE task found in `data_dir`, or in its subfolder of GLUE's or the hub's name.

    Returns:
        `train`, `validation` and where there is one `test`; for mnli also `validation_mismatched` and
        `test_mismatched`. A test split without labels has `labels` None.

    Raises:
        InputError: no known layout, a missing file, or a row that can't be read (with file and line number).
    """
    root = existing_folder(data_dir, _layouts(task))
    for folder in (root, root / LAYOUTS[task.name].folder, root / task.name):
        if not folder.is_dir():
            continue
        if not saved_folder(folder):
            if task.name == "cola" and find_file(folder, OFFICIAL_COLA):
                return _read_official_cola(task, folder, cola_validation)
            if find_file(folder, ("train.tsv",)):
                return _read_glue(task, folder)
        if tables := named_tables(folder, task.columns, _needed(task)):
            return split_examples(task, tables)
    raise InputError(
        f"data_dir is {data_dir!r}, which holds: {folder_content(root)}. Looked there and in its folders "
        f"{LAYOUTS[task.name].folder} and {task.name} for {_layouts(task)}. Give the folder that has them."
    )


def read_hub(task: Task, revision: str | None) -> dict[str, Examples]:
    """The splits of a GLUE task from nyu-mll/glue on the hub, or from its cache.

    Raises:
        InputError: the hub can't be reached and its cache does not hold the task.
    """
    layouts = "GLUE's .tsv, .parquet, .jsonl, or a save_to_disk folder"
    instead = f"--data.data_dir FOLDER with the files of {task.name} ({layouts})"
    loaded = load_hub(HUB_GLUE, task.name, revision, instead)
    return split_examples(task, split_tables(loaded, f"{HUB_GLUE} ({task.name})", task.columns, _needed(task)))


def _needed(task: Task) -> tuple[str, ...]:
    return ("train", "validation", "validation_mismatched") if task.name == "mnli" else ("train", "validation")


def _layouts(task: Task) -> str:
    official = f"{', '.join(OFFICIAL_COLA)} (the official release), " if task.name == "cola" else ""
    dev = "dev_matched.tsv, dev_mismatched.tsv" if task.name == "mnli" else "dev.tsv"
    return (
        f"{official}train.tsv, {dev} (GLUE's layout), train and validation as .parquet or .jsonl "
        f"with the columns {', '.join((*task.text_fields, 'label'))}, or what save_to_disk of datasets wrote"
    )


def _read_official_cola(task: Task, folder: Path, cola_validation: CoLAValidation) -> dict[str, Examples]:
    files = (read_delimited(require_file(folder, name), "\t", COLA_COLUMNS, quoted=False) for name in OFFICIAL_COLA)
    train, in_domain, out_of_domain = (examples_of(task, table) for table in files)
    if cola_validation == "combined":
        return {"train": train, "validation": joined(in_domain, out_of_domain)}
    # The epoch is chosen on one file, the reported test figure comes from the other.
    return {"train": train, "validation": in_domain, "test": out_of_domain}


def _read_glue(task: Task, folder: Path) -> dict[str, Examples]:
    files = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
    if task.name == "mnli":
        files |= {"validation": "dev_matched.tsv", "validation_mismatched": "dev_mismatched.tsv"}
        files |= {"test": "test_matched.tsv", "test_mismatched": "test_mismatched.tsv"}
    layout = LAYOUTS[task.name]
    stored = replace(task, text_fields=layout.text_columns, label_column=layout.label_column)
    splits: dict[str, Examples] = {}
    for split, name in files.items():
        is_test = split.startswith("test")
        path = find_file(folder, (name,)) if is_test else require_file(folder, name)
        if path is not None:
            names = COLA_COLUMNS if task.name == "cola" and not is_test else None
            table = read_delimited(path, "\t", names, skip_broken=task.name == "qqp", quoted=False)
            splits[split] = examples_of(stored, table, labelled=not is_test)
    return splits
