"""Rows: as the named columns of a split, and as the checked `Examples` that are tokenised."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import accumulate
from pathlib import Path

from common.errors import InputError, listing, shown
from datamodules.task import Task

_SEARCHED = 500  # columns in which a near miss is looked for: it takes long
# How unlabelled rows are marked: the hub's -1, or nothing at all (a number that is none counts as nothing).
NO_LABEL = (-1, "-1", None, "")


@dataclass(frozen=True)
class Examples:
    """The rows of one split."""

    texts: list[str]  # first (or only) text of each row
    pairs: list[str] | None = None  # second text of each row, None for single sentences
    # label index of each row, a number for regression, None when the split is unlabelled
    labels: list[int] | list[float] | None = None
    tags: list[str] | None = None  # a group each row belongs to, such as its phenomenon
    # names a row (file and line) in messages
    where: Callable[[int], str] = field(default=lambda row: f"row {row + 1}", compare=False)

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Sequence[int]) -> "Examples":
        """The given rows, in the given order."""
        columns = {
            name: [column[row] for row in rows] for name, column in vars(self).items() if isinstance(column, list)
        }
        return replace(self, **columns, where=lambda row: self.where(rows[row]))


@dataclass(frozen=True)
class Table:
    """The named columns of one split, whatever file or data set they come from."""

    columns: Mapping[str, Sequence[object]]  # the values of each column
    where: Callable[[int], str]  # names a row (file and line) in messages
    source: str  # names the whole split in messages
    # names of the numbers in a column, where the data itself gives them
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def labels(self, column: str) -> list[object] | None:
        """The label column; None when there is none or no row is labelled."""
        labels = self.columns.get(column)
        if labels is None or all(label in NO_LABEL or label != label for label in labels):
            return None
        return list(labels)

    def with_column(self, name: str, values: Sequence[object]) -> "Table":
        return replace(self, columns={**self.columns, name: values})

    def require(self, needed: Sequence[str], advice: str) -> None:
        """Raises InputError, with the columns there are and near misses, unless all that are needed are there."""
        there = list(self.columns)
        if not (missing := [name for name in needed if name not in self.columns]):
            return
        close = (get_close_matches(name, there[:_SEARCHED], cutoff=0.5) for name in missing)
        near = sorted({match for matches in close for match in matches} - {*needed})
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise InputError(
            f"{self.source} has no {' and no '.join(missing)} among its columns {listing(there)}.{hint} {advice}"
        )

    def row_error(self, row: int, found: str, allowed: str, advice: str = "Correct or remove the row.") -> InputError:
        """What to raise for a row that can't be used: its file and line, what was found there and what may be."""
        return InputError(f"{self.where(row)}: {found}; allowed: {allowed}. {advice}")

    def texts(self, column: str, may_be_empty: bool = False) -> list[str]:
        """A column of texts that can be tokenised.

        `InputError`: a row that is no text, is empty, or holds what is no valid Unicode.
        """
        texts: list[str] = []
        for row, text in enumerate(self.columns[column]):
            if not isinstance(text, str):
                raise self.row_error(row, f"{column} is {shown(text)}", "text")
            if not text.strip() and not may_be_empty:
                raise self.row_error(row, f"{column} is empty ({shown(text)})", "text")
            if "\x00" in text or text.encode(errors="ignore").decode() != text:
                found = f"{column} is {shown(text)}, which holds a NUL or half of a surrogate pair"
                raise self.row_error(row, found, "valid Unicode text")
            texts.append(text)
        return texts


def stacked(parts: Sequence[Table]) -> Table:
    """The columns that all tables have, one table under the other."""
    if len(parts) == 1:
        return parts[0]
    starts = [0, *accumulate(map(len, parts))]

    def where(row: int) -> str:
        place = bisect_right(starts, row) - 1
        return parts[place].where(row - starts[place])

    shared = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    columns = {name: [value for part in parts for value in part.columns[name]] for name in shared}
    return Table(columns, where, f"{parts[0].source} to {Path(parts[-1].source).name}")


def unlabelled_examples(task: Task, table: Table) -> Examples:
    """The texts of a table, checked."""
    # QQP's published files have a few empty questions.
    columns = [table.texts(column, may_be_empty=task.name == "qqp") for column in task.text_fields]
    return Examples(columns[0], columns[1] if task.is_pair else None, where=table.where)
