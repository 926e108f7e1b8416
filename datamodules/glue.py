"""The nine GLUE tasks: the official CoLA release, GLUE's tab-separated files, named columns, or the hub.

Quotation marks in the tab-separated files are text: there is no CSV quoting.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from common.errors import InputError, check_one_of
from datamodules.files import read_delimited
from datamodules.labels import examples_of, split_examples
from datamodules.sources import Examples, stacked
from datamodules.splits import (
    existing_folder,
    find_file,
    folder_content,
    hub_tables,
    named_tables,
    require_file,
    saved_folder,
)
from datamodules.subsets import validated_on_training_rows
from datamodules.task import GLUE_TASKS, Task
from datamodules.text_classification import TextClassificationDataModule
from datamodules.tokenized_data import check_positive, tell_idle

CoLAValidation = Literal["in_domain", "combined"]
# GLUE's own folder of each task, and its names of columns where they aren't the hub's
FOLDERS = {
    **{"cola": "CoLA", "sst2": "SST-2", "mrpc": "MRPC", "qqp": "QQP", "stsb": "STS-B", "mnli": "MNLI", "qnli": "QNLI"},
    **{"rte": "RTE", "wnli": "WNLI"},
}
_COLUMNS: dict[str, dict[str, Any]] = {
    "mrpc": {"text_fields": ("#1 String", "#2 String"), "label_column": "Quality"},
    "qqp": {"label_column": "is_duplicate"},
    "stsb": {"label_column": "score"},
    "mnli": {"text_fields": ("sentence1", "sentence2"), "label_column": "gold_label"},
}
OFFICIAL_COLA = ("in_domain_train.tsv", "in_domain_dev.tsv", "out_of_domain_dev.tsv")
COLA_COLUMNS = ("source", "label", "star", "sentence")  # their files, and GLUE's for CoLA, have no header


class GLUEDataModule(TextClassificationDataModule):
    """A GLUE task: from `data_dir` when given, else nyu-mll/glue from the hub or its cache.

    Args:
        task: cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte or wnli.
        data_dir: folder with the task's files: GLUE's .tsv files, .parquet, .jsonl, a save_to_disk folder, or
            for cola the official release; text files may be gzip-compressed.
        cola_validation: for the official CoLA release. in_domain validates on the in-domain and tests on the
            out-of-domain file; combined validates on both, as GLUE does, and leaves no test.
        dataset_revision: hub branch, tag or commit of the data set.
        held_out_rows: validate on so many random training rows and test on the published validation split, so that
            no split is both chosen on and reported; null validates on the published one.
        metric: which of the task's metrics chooses the best epoch, if not the first: matthews_correlation or accuracy
            for cola; f1, accuracy or average (GLUE's mean of the two) for mrpc and qqp; pearson, spearman or average
            for stsb; accuracy for the others.
    """

    def __init__(
        self,
        task: str = "cola",
        data_dir: str | None = None,
        cola_validation: CoLAValidation = "in_domain",
        dataset_revision: str | None = None,
        held_out_rows: int | None = None,
        metric: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.task_name = task
        self.data_dir = data_dir
        self.cola_validation = cola_validation
        self.dataset_revision = dataset_revision
        self.held_out_rows = held_out_rows
        self.metric = metric

    @property
    def task(self) -> Task:
        check_one_of("task", self.task_name, GLUE_TASKS)
        task = GLUE_TASKS[self.task_name]
        if self.metric is None:
            return task
        return replace(task, metrics=tuple(dict.fromkeys((self.metric, *task.metrics))))  # `check_settings` checks it

    @property
    def name(self) -> str:
        return f"glue/{self.task_name}"

    def check_settings(self) -> None:
        super().check_settings()
        check_one_of("cola_validation", self.cola_validation, get_args(CoLAValidation))
        check_positive("held_out_rows", self.held_out_rows)
        if self.metric is not None:
            check_one_of(f"metric for {self.task_name}", self.metric, GLUE_TASKS[self.task.name].metrics)

    def load_examples(self) -> dict[str, Examples]:
        if self.data_dir is None:
            _tell_idle_validation(self.task, self.cola_validation == "combined")
            examples = read_hub(self.task, self.dataset_revision)
        else:
            examples = read_glue_folder(self.task, self.data_dir, self.cola_validation == "combined")
        if self.held_out_rows is None:
            return examples
        return validated_on_training_rows(examples, self.held_out_rows, self.subset_seed)


def read_glue_folder(task: Task, data_dir: str, combined: bool = False) -> dict[str, Examples]:
    """The splits of a GLUE task found in `data_dir`, or in its subfolder of GLUE's or the hub's name.

    `train`, `validation` and where there is one `test`, perhaps without labels; for mnli also `validation_mismatched`
    and `test_mismatched`. If `combined`, both dev files of the official CoLA release validate. `InputError`: no known
    layout, a missing file, or a row that can't be read (with file and line number).
    """
    root = existing_folder(data_dir, _layouts(task))
    for folder in (root, root / FOLDERS[task.name], root / task.name):
        if not folder.is_dir():
            continue
        if not saved_folder(folder):
            if task.name == "cola" and any(find_file(folder, name) for name in OFFICIAL_COLA):
                return _read_official_cola(task, folder, combined)
            if find_file(folder, "train.tsv"):
                _tell_idle_validation(task, combined)
                return _read_glue(task, folder)
        if tables := named_tables(folder, task.columns, _needed(task)):
            _tell_idle_validation(task, combined)
            return split_examples(task, tables)
    raise InputError(
        f"data_dir is {data_dir!r}, which holds: {folder_content(root)}. Looked there and in its folders "
        f"{FOLDERS[task.name]} and {task.name} for {_layouts(task)}. Give the folder that has them."
    )


def _tell_idle_validation(task: Task, combined: bool) -> None:
    """Warns where both dev files of CoLA were asked for and there is one: with another task it is told before."""
    if task.name == "cola":
        tell_idle("cola_validation", combined, False, "the data aren't CoLA's official release")


def read_hub(task: Task, revision: str | None) -> dict[str, Examples]:
    """The splits of a GLUE task from nyu-mll/glue on the hub; see `hub_tables`."""
    layouts = "GLUE's .tsv, .parquet, .jsonl, or a save_to_disk folder"
    instead = f"--data.data_dir FOLDER with the files of {task.name} ({layouts})"
    tables = hub_tables("nyu-mll/glue", task.name, revision, instead, task.columns, _needed(task))
    return split_examples(task, tables)


def _needed(task: Task) -> tuple[str, ...]:
    return ("train", "validation", "validation_mismatched") if task.name == "mnli" else ("train", "validation")


def _layouts(task: Task) -> str:
    official = f"{', '.join(OFFICIAL_COLA)} (the official release), " if task.name == "cola" else ""
    dev = "dev_matched.tsv, dev_mismatched.tsv" if task.name == "mnli" else "dev.tsv"
    return (
        f"{official}train.tsv, {dev} (GLUE's layout), train and validation as .parquet or .jsonl "
        f"with the columns {', '.join((*task.text_fields, 'label'))}, or what save_to_disk of datasets wrote"
    )


def _read_official_cola(task: Task, folder: Path, combined: bool) -> dict[str, Examples]:
    files = [read_delimited(require_file(folder, name), "\t", COLA_COLUMNS, quoted=False) for name in OFFICIAL_COLA]
    train, in_domain, out_of_domain = files
    # The epoch is chosen on one file, the reported test figure comes from the other.
    splits = {"train": train, "validation": in_domain, "test": out_of_domain}
    if combined:
        splits = {"train": train, "validation": stacked([in_domain, out_of_domain])}
    return {split: examples_of(task, table) for split, table in splits.items()}


def _read_glue(task: Task, folder: Path) -> dict[str, Examples]:
    files = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
    if task.name == "mnli":
        files |= {"validation": "dev_matched.tsv", "validation_mismatched": "dev_mismatched.tsv"}
        files |= {"test": "test_matched.tsv", "test_mismatched": "test_mismatched.tsv"}
    stored = replace(task, **_COLUMNS.get(task.name, {}))
    splits: dict[str, Examples] = {}
    for split, name in files.items():
        is_test = split.startswith("test")
        path = find_file(folder, name) if is_test else require_file(folder, name)
        if path is not None:
            names = COLA_COLUMNS if task.name == "cola" and not is_test else None
            table = read_delimited(path, "\t", names, skip_broken=task.name == "qqp", quoted=False)
            splits[split] = examples_of(stored, table, labelled=not is_test)
    return splits
