"""The tables of docs/results/README.md, made from the trials kept beside it: `python -m experiments.report.published`.

tables.yaml says what each table shows. The page has a place for each, between `<!-- table: NAME -->` and
`<!-- end -->`; what stands there is replaced.
"""

import re
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from common.files import write_text
from experiments.report.cells import as_markdown
from experiments.report.groups import Group, make_curves, make_groups, swept_rate
from experiments.report.published_cells import Cell
from experiments.report.rate_tables import ChosenRate, choose_rates
from experiments.report.record import Config, Record
from experiments.report.sources import read_records
from experiments.typed_json import Part

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
_PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Column(Part):
    """What a column shows: a method of `Cell`, and the figure it is about (best, last or test).

    Attributes:
        where: settings of the runs it is about.
        minus: the method that differences are to.
        by: what a curve's rate is chosen by: best (the validation metric) or loss.
    """

    cell: str
    figure: str = "best"
    where: Config = field(default_factory=dict)
    minus: str = ""
    by: str = "best"


@dataclass(frozen=True, kw_only=True)
class Row(Part):
    """What a row is about.

    Attributes:
        of: its method; empty for all.
        minus: the method that differences are to.
        without: the status of runs that are left out.
        where: settings of its runs.
        curve: its curve over learning rates, by the report's label.
        rank: the rank at which nested runs are evaluated.
        trials: files of its own.
        cells: text that no trial tells, by the column's title.
    """

    label: str
    of: str = ""
    minus: str = ""
    without: str = ""
    where: Config = field(default_factory=dict)
    curve: str = ""
    rank: int = 0
    trials: list[str] = field(default_factory=list)
    cells: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Table(Part):
    """A table: its files of trials, the first column's title, the other columns by their titles, and the rows."""

    trials: list[str]
    first: str
    columns: dict[str, Column]
    rows: list[Row]


def main() -> int:
    """Writes the tables into the page."""
    page = RESULTS / "README.md"
    write_text(page, with_tables(page.read_text(encoding="utf-8")))
    return 0


def with_tables(page: str) -> str:
    """The page with its tables made anew."""
    content = yaml.safe_load((RESULTS / "tables.yaml").read_text(encoding="utf-8"))
    tables = {name: as_markdown(_made(Table.from_plain(table, name))) for name, table in content.items()}
    return _PLACE.sub(lambda found: f"{found[1]}\n{tables[found[2]]}\n\n{found[3]}", page)


def _made(table: Table) -> pd.DataFrame:
    rows = [[row.label, *(_text(table, row, title) for title in table.columns)] for row in table.rows]
    return pd.DataFrame(rows, columns=[table.first, *table.columns])


def _text(table: Table, row: Row, title: str) -> str:
    column, trials = table.columns[title], tuple(row.trials or table.trials)
    if title in row.cells:
        return row.cells[title]
    if row.curve:
        chosen = _chosen_rates(trials, column.by)[row.curve]
        cell = Cell(chosen.group, column.figure, chosen=chosen)
    else:
        settings, minus = row.where | column.where, row.minus or column.minus
        found = [record for record in _records(trials) if record.status != row.without and _has(record, settings)]
        ours = Group(tuple(record for record in found if row.of in ("", record.method)), row.label)
        other = Group(tuple(record for record in found if record.method == minus), minus)
        if not ours.records or (minus and minus == row.of):
            return ""
        cell = Cell(ours, column.figure, other, rank=row.rank)
    return str(getattr(cell, column.cell)())


def _has(record: Record, settings: Config) -> bool:
    told = record.config | record.overrides
    return all(told.get(name) == value for name, value in settings.items())


@cache
def _records(trials: tuple[str, ...]) -> list[Record]:
    return read_records([RESULTS / f"{name}.json" for name in trials])


@cache
def _chosen_rates(trials: tuple[str, ...], by: str) -> dict[str, ChosenRate]:
    records = _records(trials)
    curves = make_curves(make_groups(records), swept_rate(records))
    return {chosen.curve.label: chosen for chosen in choose_rates(curves, by)}


if __name__ == "__main__":
    sys.exit(main())
