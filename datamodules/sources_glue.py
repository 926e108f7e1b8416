"""GLUE tasks from local folders: the official CoLA release, GLUE's own tab-separated files, or named columns.

Quotation marks in all of these are text: there is no CSV quoting.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.errors import InputError
from common.terminal import say
from datamodules.sources import Examples, examples_of, find_file, folder_content, listing, require_file
from datamodules.sources_columns import has_columns, read_column_files
from datamodules.sources_datasets import dataset_examples, load_hub, load_saved, saved_folder
from datamodules.sources_delimited import Row, check_widths, read_rows
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
COLA_COLUMNS = ("source", "label", "star", "sentence")


def read_glue_folder(task: Task, data_dir: str, cola_validation: CoLAValidation = "in_domain") -> dict[str, Examples]:
    """The splits of a GLUE task found in `data_dir`, or in its subfolder of GLUE's or the hub's name.

    Returns:
        `train`, `validation` and where there is one `test`; for mnli also `validation_mismatched` and
        `test_mismatched`. A test split without labels has `labels` None.

    Raises:
        InputError: no known layout, a missing file, or a row that can't be read (with file and line number).
    """
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise InputError(f"data_dir is {data_dir!r}, which is not a folder; allowed: a folder with {_layouts(task)}.")
    for folder in (root, root / LAYOUTS[task.name].folder, root / task.name):
        if not folder.is_dir():
            continue
        if saved_folder(folder):
            return dataset_examples(task, load_saved(folder), _needed(task), str(folder))
        if task.name == "cola" and find_file(folder, OFFICIAL_COLA):
            return _read_official_cola(task, folder, cola_validation)
        if find_file(folder, ("train.tsv",)):
            return _read_glue(task, folder)
        if has_columns(folder):
            return read_column_files(task, folder, _needed(task))
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
    return dataset_examples(task, loaded, _needed(task), f"{HUB_GLUE} ({task.name})")


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
    train, in_domain, out_of_domain = (_read_cola_file(task, require_file(folder, (name,))) for name in OFFICIAL_COLA)
    if cola_validation == "combined":
        labels = [*(in_domain.labels or []), *(out_of_domain.labels or [])]
        texts = in_domain.texts + out_of_domain.texts
        return {"train": train, "validation": Examples(texts, labels=labels)}
    # The epoch is chosen on one file, the reported test figure comes from the other.
    return {"train": train, "validation": in_domain, "test": out_of_domain}


def _read_cola_file(task: Task, path: Path) -> Examples:
    """Four columns and no header: source, label, the author's mark, sentence."""
    rows = read_rows(path, "\t")
    check_widths(path, rows, COLA_COLUMNS)
    where = _line_namer(path, rows)
    return examples_of(task, [[row.cells[3] for row in rows]], [row.cells[1] for row in rows], where)


def _read_glue(task: Task, folder: Path) -> dict[str, Examples]:
    files = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
    if task.name == "mnli":
        files["validation"], files["validation_mismatched"] = "dev_matched.tsv", "dev_mismatched.tsv"
        files["test"], files["test_mismatched"] = "test_matched.tsv", "test_mismatched.tsv"
    splits: dict[str, Examples] = {}
    for split, name in files.items():
        is_test = split.startswith("test")
        path = find_file(folder, (name,)) if is_test else require_file(folder, (name,))
        if path is not None:
            headerless = task.name == "cola" and not is_test
            read = _read_cola_file if headerless else _read_table
            splits[split] = read(task, path)
    return splits


def _read_table(task: Task, path: Path) -> Examples:
    """A tab-separated file whose first line names the columns; a test file may lack the label column."""
    layout = LAYOUTS[task.name]
    (_, header), *rows = read_rows(path, "\t")
    is_test = path.name.startswith("test")
    wanted = layout.text_columns if is_test else (*layout.text_columns, layout.label_column)
    missing = [column for column in wanted if column not in header]
    if missing:
        raise InputError(
            f"{path}, line 1: the header has no column {', '.join(missing)}; it has {listing(header)}. "
            f"Allowed: GLUE's own {layout.folder} files. Check that the folder belongs to {task.name}."
        )
    if not rows:
        raise InputError(f"{path} has a header and no rows. Fetch the file again, or take it away.")
    if task.name == "qqp":
        rows = _whole_rows(path, rows, len(header))
    check_widths(path, rows, header)
    texts = [[row.cells[header.index(column)] for row in rows] for column in layout.text_columns]
    has_labels = layout.label_column in header
    labels = [row.cells[header.index(layout.label_column)] for row in rows] if has_labels else None
    return examples_of(task, texts, labels, _line_namer(path, rows))


def _whole_rows(path: Path, rows: list[Row], columns: int) -> list[Row]:
    """QQP's published files hold some questions with line breaks: such rows are left out, as on the hub."""
    whole = [row for row in rows if len(row.cells) == columns]
    if len(whole) < len(rows):
        say(f"{path}: left out {len(rows) - len(whole)} lines that are pieces of broken rows.")
    return whole


def _line_namer(path: Path, rows: Sequence[Row]) -> Callable[[int], str]:
    return lambda row: f"{path}, line {rows[row].line}"
