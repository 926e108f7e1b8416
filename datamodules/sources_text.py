"""Plain text files to predict on: one sentence, or one tab-separated pair, on each line."""

from pathlib import Path

from common.errors import InputError
from datamodules.sources import Examples, examples_of, read_lines
from datamodules.task import Task


def read_sentences(task: Task, file: str) -> Examples:
    """Unlabelled examples, one a line.

    Raises:
        InputError: a missing or empty file, an empty line, or for pairs a line without exactly one tab.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise InputError(f"predict_file is {file!r}, which is not a file; allowed: a text file.")
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
