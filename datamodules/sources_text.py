"""Files to predict on: one sentence, or one tab-separated pair, on each line; or a table with named columns."""

from pathlib import Path

from common.errors import InputError
from datamodules.sources import Examples, examples_of, read_lines
from datamodules.sources_columns import TABLE_ENDINGS, read_table, require_columns, table_ending
from datamodules.task import Task

_ADVICE = "A file of this ending is read by its columns: rename them, or call a file of plain lines .txt."


def read_predict_file(task: Task, file: str, separator: str | None = None, advice: str = _ADVICE) -> Examples:
    """Unlabelled examples: of a table by its text columns, of any other file one a line.

    Args:
        task: says how many texts a row has, and the columns that hold them.
        file: the file; its ending says whether it is a table.
        separator: see `read_table`.
        advice: what to do where a column is missing.

    Raises:
        InputError: a missing or empty file, a missing column, an empty text, or for pairs a line of a plain file
            without exactly one tab.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        endings = ", ".join(TABLE_ENDINGS)
        raise InputError(
            f"predict_file is {file!r}, which is not a file; allowed: a text file, or a table ({endings})."
        )
    if table_ending(path.name) not in TABLE_ENDINGS:
        return _read_sentences(task, path)
    table = read_table(path, task.text_fields, separator)
    require_columns(table, task.text_fields, advice)
    return examples_of(task, [list(table.columns[column]) for column in task.text_fields], None, table.where)


def _read_sentences(task: Task, path: Path) -> Examples:
    lines = read_lines(path)

    def where(row: int) -> str:
        return f"{path}, line {lines[row][0]}"

    # In single sentences a tab is text like any other.
    rows = [line.split("\t") if task.is_pair else [line] for _, line in lines]
    for row, texts in enumerate(rows):
        if len(texts) != len(task.text_fields):
            raise InputError(
                f"{where(row)}: {len(texts)} tab-separated texts in {lines[row][1][:80]!r}; allowed: "
                f"{len(task.text_fields)} ({', '.join(task.text_fields)}). Correct or remove the line."
            )
    return examples_of(task, list(zip(*rows, strict=True)), None, where)
