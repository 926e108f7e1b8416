"""Tables of text: values as cells, and tables as CSV and Markdown that no name can break."""

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

import pandas as pd

from common.files import FORMULA_SIGNS
from experiments.report.statistics import Interval

Row = TypeVar("Row")

TOO_FEW = "too few seeds for an interval"

# What stands in a cell of ours that begins with a sign: a number, maybe with its interval and the number of pairs.
_NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?( \[[-+\d., ]+\])?( \(\d+ pairs?\))?")
_MARKUP = re.compile(r"[\\`*|]|~~|(?<![^\W_])_|_(?![^\W_])|(?<=\])\(")

# metrics whose values are printed × 100, as papers do
_FRACTIONS = {"matthews_correlation", "accuracy", "f1", "pearson", "spearman", "average"}


def make_table(rows: Iterable[Row], columns: dict[str, Callable[[Row], str]]) -> pd.DataFrame:
    """A table of text; `columns` holds how a cell is told, by the column's title."""
    return pd.DataFrame([[cell(row) for cell in columns.values()] for row in rows], columns=list(columns), dtype=str)


def without_empty_columns(table: pd.DataFrame) -> pd.DataFrame:
    """The table for reading: a column that no row fills is left out."""
    return table.loc[:, (table != "").any()]


def without_constant_columns(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The table without columns that say the same in each of several rows, and what they say, as a line of text."""
    same = table.columns[(table.nunique() == 1) & (len(table) > 1)]
    told = ", ".join(f"{name} {table[name].iloc[0]}" for name in same)
    return table.drop(columns=same), told


def as_csv(table: pd.DataFrame) -> str:
    """The table as CSV text; a spreadsheet shows what begins like a formula as the text it is."""
    return table.map(_no_formula).to_csv(index=False, lineterminator="\n")


def _no_formula(cell: str) -> str:
    return f"'{cell}" if cell.startswith(FORMULA_SIGNS) and not _NUMBER.fullmatch(cell) else cell


def as_markdown(table: pd.DataFrame) -> str:
    """The table in Markdown; nothing for one without rows."""
    if table.empty:
        return ""
    cells = [map(plain, row) for row in (table.columns, *table.to_numpy())]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + " --- |" * len(table.columns), *lines[1:]])


def plain(text: str) -> str:
    """Text that Markdown shows as it is: one line, no tags, no links, no emphasis."""
    text = " ".join(text.splitlines())
    return _MARKUP.sub(r"\\\g<0>", text).replace("<", "&lt;")


def scale(name: str) -> float:
    """What a value is multiplied with for print: 100 for fractions, as papers do."""
    return 100.0 if name in _FRACTIONS else 1.0


def title(name: str) -> str:
    """The metric's name in words, with × 100 where values are printed so."""
    return name.replace("_", " ") + (" × 100" if scale(name) == 100 else "")


def spread(values: pd.Series, name: str, digits: int = 2) -> str:
    """Median ± sample standard deviation, × 100 where the metric is a fraction; the median alone for one value."""
    told = [scale(name) * figure for figure in (values.median(), values.std()) if figure == figure]
    return " ± ".join(f"{figure:.{digits}f}" for figure in told) or "none"


def span(interval: Interval | None, factor: float = 1.0) -> str:
    """An interval of differences in brackets; nothing for None."""
    return "" if interval is None else f"[{factor * interval[0]:+.2f}, {factor * interval[1]:+.2f}]"


def two_digits(value: float) -> str:
    """A number to two significant digits; nothing for NaN."""
    return f"{value:.2g}" if value == value else ""


def ratio(value: float) -> str:
    """A ratio to two significant digits, never with an exponent."""
    return f"{value:.2g}" if value < 100 else f"{float(f'{value:.2g}'):,.0f}"


def counted(count: int, name: str) -> str:
    """1 run, 2 runs."""
    return f"{count} {name}{'' if count == 1 else 's'}"


def text(value: object) -> str:
    """A value for a cell; nothing for None."""
    if value is None or value == "None":
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values there are."""
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None
