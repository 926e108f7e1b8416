"""AG-News from a local folder: the official CSV files, or named columns."""

from pathlib import Path

from common.errors import InputError
from datamodules.sources import Examples, examples_of, find_file, folder_content, require_file
from datamodules.sources_columns import has_columns, read_column_files
from datamodules.sources_datasets import dataset_examples, load_saved, saved_folder
from datamodules.sources_delimited import check_widths, read_rows
from datamodules.task import Task

NEEDED = ("train", "test")
COLUMNS = ("class", "title", "description")
LAYOUTS = (
    "train.csv and test.csv (class 1 to 4, title, description; plain or .gz), train and test as .parquet or .jsonl "
    "with the columns text and label, or what save_to_disk of datasets wrote"
)


def read_ag_news_folder(task: Task, data_dir: str) -> dict[str, Examples]:
    """The splits `train` and `test` (and `validation`, should the files have one) in `data_dir`.

    Raises:
        InputError: no known layout, a missing file, or a row that can't be read (with file and line number).
    """
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise InputError(f"data_dir is {data_dir!r}, which is not a folder; allowed: a folder with {LAYOUTS}.")
    if saved_folder(folder):
        return dataset_examples(task, load_saved(folder), NEEDED, str(folder))
    if find_file(folder, ("train.csv",)):
        return {split: _read_csv(task, require_file(folder, (f"{split}.csv",))) for split in NEEDED}
    if has_columns(folder):
        return read_column_files(task, folder, NEEDED)
    raise InputError(
        f"data_dir is {data_dir!r}, which holds: {folder_content(folder)}; allowed: a folder with {LAYOUTS}."
    )


def _read_csv(task: Task, path: Path) -> Examples:
    """Three columns without names: class 1 to 4, title, description."""
    rows = read_rows(path, ",")
    check_widths(path, rows, COLUMNS, ",")
    if rows[0].cells[0].lower().startswith("class"):  # some copies name the columns
        rows = rows[1:]
    if not rows:
        raise InputError(f"{path} has a header and no rows. Fetch the file again.")

    def where(row: int) -> str:
        return f"{path}, line {rows[row].line}"

    numbers = {str(number): number - 1 for number in range(1, task.num_labels + 1)}
    for row, (_, cells) in enumerate(rows):
        if cells[0] not in numbers:
            allowed = ", ".join(f"{index + 1} ({name})" for index, name in enumerate(task.label_names))
            raise InputError(f"{where(row)}: class is {cells[0]!r}; allowed: {allowed}. Correct or remove the row.")
    texts = [f"{title} {description}" for _, (_, title, description) in rows]
    return examples_of(task, [texts], [numbers[cells[0]] for _, cells in rows], where)
