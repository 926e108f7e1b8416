"""Labels: how they may be written, how they are numbered, and which splits have enough of them.

Where the task says beforehand what its labels are, a label is their number or their name. In tables of one's own the
training split says what labels there are, and a label is always one of these names, also where they look like numbers.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import SupportsFloat
from unicodedata import normalize

from common.errors import InputError, listing, shown
from datamodules.sources import Examples, Table, unlabelled_examples
from datamodules.task import Task

_WHOLE_NUMBER = re.compile(r"[+-]?\d{1,100}")
_WHOLE_AS_FRACTION = re.compile(r"([+-]?\d+)\.0*")
_FRACTION = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)[eE][+-]?\d+|\d*\.\d+|\d+\.\d*)")
# Such as a byte-order mark between two files put together, marks of direction, and control characters.
_INVISIBLE = re.compile("[\0-\x08\x0e-\x1b\x7f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_MISSING = ("nan", "nat", "<na>")  # how programs write a label that isn't there
_LARGEST_SCORE = 3.4e38  # of float32
_SEARCHED = 500  # labels in which a near miss is looked for: it takes long


def examples_of(task: Task, table: Table, labelled: bool = True) -> Examples:
    """Checks the columns a task needs and makes `Examples` of them; unless `labelled`, there may be no labels.

    `InputError`: a missing column, an empty text, something that is not text, or a label outside the task's set.
    """
    column = task.label_column
    labels = table.labels(column)
    advice = (
        f"The task {task.name} needs {', '.join(task.columns)} (labels: {task.allowed_labels}). Rename the columns, or "
        "check that these are its files."
    )
    table.require(task.columns if labelled else task.text_fields, advice)
    if labelled and labels is None:
        raise InputError(f"{table.source}: no row has a label: {column} is empty or -1 in each. {advice}")
    examples = unlabelled_examples(task, table)
    if labels is None:
        return examples
    names = table.class_names.get(column, ())
    # Where the data names its labels as the task does, the names count: it may number them differently.
    if set(names) == set(task.label_names) and names != task.label_names:
        labels = [label if (name := _class_name(names, label)) is None else name for label in labels]
    return replace(examples, labels=[_number(task, table, row, label) for row, label in enumerate(labels)])


def split_examples(task: Task, tables: Mapping[str, Table]) -> dict[str, Examples]:
    """`examples_of` each split; those named test may be unlabelled."""
    return {split: examples_of(task, table, not split.startswith("test")) for split, table in tables.items()}


def _class_name(names: Sequence[str], label: object) -> str | None:
    """The name of a class that is given by its number; None for what is no class."""
    return names[label] if isinstance(label, int) and label in range(len(names)) else None


def _number(task: Task, table: Table, row: int, label: object) -> int | float:
    """The index of a label (given as number or name), or a number for regression."""
    if isinstance(label, str) and label in task.label_names:
        return task.label_names.index(label)
    try:
        number = float(label) if isinstance(label, str | SupportsFloat) and not isinstance(label, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if "_" in str(label):  # 1_0 is a number to Python alone
        number = math.nan
    if task.is_regression and abs(number) <= _LARGEST_SCORE:
        return number
    if not task.is_regression and number in range(task.num_labels):
        return int(number)
    raise table.row_error(row, f"{task.label_column} is {shown(label)}", task.allowed_labels)


def label_text(label: object) -> str:
    """How a label is written, the same whether it came as text or as a number: 1, 1.0 and " 1" are all `1`.

    So are labels that look the same: an accented letter is one character, and those that can't be seen are left out.
    None, and a number that is none, are no label: they must not pass for one that is called "None" or "nan".
    """
    if label is None or label != label:
        return ""
    if isinstance(label, float) and label.is_integer():
        label = int(label)  # and not 1e+16
    plain = normalize("NFC", _INVISIBLE.sub("", str(label)))
    text = plain.lower() if isinstance(label, bool) else " ".join(plain.split())
    whole = _WHOLE_AS_FRACTION.fullmatch(text)
    return whole[1] if whole else text


def label_key(label: object) -> str:
    """The same for all ways to write a label: `+1` and `01` are `1`, and `True` is `true`."""
    text = label_text(label)
    if _WHOLE_NUMBER.fullmatch(text):
        return str(int(text))
    return text.lower() if text.lower() in ("true", "false") else text


def label_names(table: Table, column: str) -> tuple[str, ...]:
    """The different labels of a training split: whole numbers by size, names by alphabet, or the data set's own order.

    A label that is written in several ways has the name that is shortest, or else in small letters. `InputError`: a row
    without a label, no name or number, a fraction, or numbers and names mixed.
    """
    if column in table.class_names:
        return _own_names(table, column)
    first: dict[str, int] = {}  # label: the row it is first seen in
    for row, label in enumerate(table.columns[column]):
        first.setdefault(_usable_label(table, column, row, label), row)
    named = {label_key(text): text for text in sorted(first, key=lambda text: (-len(text), text))}
    numbers = [text for text in first if _WHOLE_NUMBER.fullmatch(text)]
    if not numbers:
        return tuple(sorted(named.values()))
    if len(numbers) < len(first):
        odd = next(text for text in first if text not in numbers)
        found = f"{column} is {shown(odd)}, where other rows have whole numbers ({numbers[0]})"
        advice = "Correct the row, or list all labels in --data.label_names."
        raise table.row_error(first[odd], found, "whole numbers throughout, or names", advice)
    return tuple(sorted(named.values(), key=int))


def _usable_label(table: Table, column: str, row: int, label: object) -> str:
    if isinstance(label, bytes | list | tuple | dict):
        found = f"{column} is {shown(label)} ({type(label).__name__})"
        raise table.row_error(row, found, "one name or whole number for each row", "Write the labels as such.")
    text = label_text(label)
    if not text:
        raise table.row_error(row, f"{column} is empty", "a label")
    if text.lower() in _MISSING:
        advice = "Remove the row, or list all labels in --data.label_names if it is the name of one."
        raise table.row_error(row, f"{column} is {text!r}, which programs write for a missing label", "a label", advice)
    if _FRACTION.fullmatch(text) or (isinstance(label, float) and math.isinf(label)):
        allowed = "whole numbers, or names, for classification"
        advice = "For scores set --data.problem regression; list all labels in --data.label_names if they are names."
        raise table.row_error(row, f"{column} is {shown(label)}", allowed, advice)
    return text


def _own_names(table: Table, column: str) -> tuple[str, ...]:
    """The data set's names of its classes, without blanks around them unless that would make two of them one."""
    names = table.class_names.get(column, ())
    tidy = tuple(map(label_text, names))
    return tidy if len(set(map(label_key, tidy))) == len(names) else names


def with_label_numbers(table: Table, column: str, names: Sequence[str]) -> Table:
    """`table` with each label replaced by its place in `names`.

    Class labels of a data set, which are numbers already, count by their names; other names for as many classes stand
    in their order. `InputError`: a label that is not among them.
    """
    labels = table.columns.get(column)
    theirs = _own_names(table, column)
    renamed = len(theirs) == len(names) and not set(theirs) & set(names)
    if labels is None or theirs == tuple(names) or renamed:
        return table
    places = {label_key(name): place for place, name in enumerate(names)}
    # -1 is a label like any other where the training split has it
    if not theirs and table.labels(column) is None and not any(label_key(label) in places for label in labels):
        return table
    numbers: list[object] = []
    for row, label in enumerate(labels):
        text = _class_name(theirs, label) if theirs else label_text(label)
        if text is not None and label_key(text) not in places:
            near = get_close_matches(text, names[:_SEARCHED], n=1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            allowed = f"{listing(names)} (the labels of the training split, or of --data.label_names)"
            raise table.row_error(row, f"{column} is {shown(text)}", allowed, f"{hint}Correct or remove the row.")
        numbers.append(label if text is None else places[label_key(text)])  # no class: the row has no label
    rest = {other: kept for other, kept in table.class_names.items() if other != column}
    return replace(table.with_column(column, numbers), class_names=rest)


def check_labels(name: str, split: str, task: Task, examples: Examples) -> None:
    """Raises InputError when a split has no labels or only one: nothing could be learnt from it, or chosen by it."""
    if examples.labels is None:
        raise InputError(f"the {split} split of {name} has no labels; allowed: {task.allowed_labels} in each row.")
    found = sorted(set(examples.labels))
    if len(found) < 2:
        label = found[0] if task.is_regression else task.label_names[int(found[0])]
        raise InputError(
            f"all {len(examples)} {split} rows of {name} have the label {shown(label)}; a {split} split needs at "
            f"least two different labels. Check the file, or take more rows (--data.{split}_rows)."
        )
