"""The tables of docs/results/README.md, made from the trials kept beside it: `python -m experiments.report.published`.

tables.yaml says what each table shows. The page has a place for each, between `<!-- table: NAME -->` and
`<!-- end -->`; what stands there is replaced.
"""

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from common.files import write_text
from experiments.metrics import scale
from experiments.report.cells import as_markdown, spread
from experiments.report.groups import Group, make_curves, make_groups, swept_rate
from experiments.report.rank_curves import nested_values
from experiments.report.rate_tables import ChosenRate, choose_rates
from experiments.report.record import Config, Record
from experiments.report.sources import read_records
from experiments.report.statistics import Interval, PairedDifference, paired_difference, rank_correlations
from experiments.typed_json import Part

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
_PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Column(Part):
    """What a column shows: a cell of `CELLS` and the figure it is about (best, last or test).

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
    cells = [
        [row.label, *(row.cells.get(title) or _cell(table, row, column) for title, column in table.columns.items())]
        for row in table.rows
    ]
    return pd.DataFrame(cells, columns=[table.first, *table.columns])


@cache
def _records(trials: tuple[str, ...]) -> list[Record]:
    return read_records([RESULTS / f"{name}.json" for name in trials])


@cache
def _chosen_rates(trials: tuple[str, ...], by: str) -> dict[str, ChosenRate]:
    records = _records(trials)
    return {chosen.curve.label: chosen for chosen in choose_rates(make_curves(make_groups(records), swept_rate(records)), by)}


@dataclass(frozen=True)
class Subject:
    """What a cell is about: runs, those they are compared with, a curve at its chosen rate, a rank."""

    group: Group
    figure: str
    other: Group | None = None
    chosen: ChosenRate | None = None
    rank: int = 0


def _cell(table: Table, row: Row, column: Column) -> str:
    trials = tuple(row.trials or table.trials)
    if row.curve:
        chosen = _chosen_rates(trials, column.by)[row.curve]
        return CELLS[column.cell](Subject(chosen.group, column.figure, chosen=chosen))

    def group(method: str) -> Group | None:
        settings = (row.where | column.where).items()
        found = [
            record
            for record in _records(trials)
            if method in ("", record.method)
            and record.status != row.without
            and all((record.config | record.overrides).get(name) == value for name, value in settings)
        ]
        return Group(tuple(found), method) if found else None

    minus = row.minus or column.minus
    ours, other = group(row.of), group(minus) if minus else None
    if ours is None or minus == row.of != "":
        return ""
    return CELLS[column.cell](Subject(ours, column.figure, other, rank=row.rank))


def _signed(value: float, digits: int = 1) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _listed(values: Iterable[float], digits: int) -> str:
    return ", ".join(f"{value:,.{digits}f}" for value in values)


def _two_digits(value: float) -> str:
    return f"{value:#.2g}".rstrip(".")


def _between(interval: Interval | None, tell: Callable[[float], str]) -> str:
    return "" if interval is None else f"[{tell(interval[0])}, {tell(interval[1])}]"


def _rate(rate: float | None, digits: int) -> str:
    return "" if rate is None else re.sub("e-0", "e-", f"{rate:.{digits}e}")


def _scaled(one: Subject) -> tuple[pd.Series, float]:
    factor = scale(one.group.metric.name if one.group.metric else "")
    return factor * one.group.values(one.figure), factor


def _seeds(one: Subject) -> str:
    """Each seed's figure; a best epoch's says whether the run collapsed."""
    values, factor = _scaled(one)
    collapsed = {record.seed for record in one.group.records if record.status == "collapsed" and one.figure == "best"}
    told = {seed: f"{value:.{1 if factor == 100 else 2}f}" for seed, value in values.items()}
    return ", ".join(f"{value} (collapsed)" if seed in collapsed else value for seed, value in told.items())


def _median(one: Subject) -> str:
    return spread(one.group.values(one.figure), one.group.metric.name if one.group.metric else "")


def _compare(one: Subject) -> tuple[PairedDifference, Callable[[float], str]]:
    assert one.other is not None
    found = paired_difference(one.group.values(one.figure), one.other.values(one.figure))
    assert found is not None
    return found, lambda value: _signed(_scaled(one)[1] * value)


def _difference(one: Subject) -> str:
    """Mean and bootstrap interval; from two pairs the interval is their range, in parentheses."""
    found, tell = _compare(one)
    interval = _between(found.interval, tell)
    return f"{tell(found.mean)} " + (interval if found.pairs > 2 else interval.replace("[", "(").replace("]", ")"))


def _student(one: Subject) -> str:
    found, tell = _compare(one)
    return _between(found.student, tell)


def _budget(one: Subject) -> str:
    """Entries of R in use at the end, lowest and highest; a fixed rank uses all it has."""
    results = one.group.results
    fixed = [found.trainable_parameters.adapter for found in results if found.adapter == "LoRAXS"]
    used = [found.budget.used for found in results if found.budget] or fixed
    return "–".join(f"{value:,.0f}" for value in sorted({min(used), max(used)})) if used else ""


def _parameters(one: Subject) -> str:
    return f"{one.group.results[0].trainable_parameters.adapter:,}"


def _norms(one: Subject, when: str) -> list[float]:
    norms = [getattr(results.update_norms, when, None) for results in one.group.results]
    return [norm.total for norm in norms if norm is not None]


def _norm(one: Subject) -> str:
    norms = _norms(one, "final")
    return f"{np.mean(norms):.1f}" if norms else "not recorded"


def _ranks(one: Subject, when: str) -> list[list[float]]:
    return [results.other[when] for results in one.group.results if when in results.other]


def _correlations(one: Subject) -> str:
    """Spearman's correlation of final ranks between seeds: the mean over pairs, lowest and highest."""
    pairs = rank_correlations(_ranks(one, "final_ranks"))
    return f"{np.mean(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})".replace("-", "−")


def _change(one: Subject) -> str:
    """Mean change of a rank in the study on CoLA, whose ranks end at 19; all start at 15 where no start is told."""
    ends, starts = np.array(_ranks(one, "final_ranks")), _ranks(one, "start_ranks")
    change = np.abs(ends - np.minimum(starts or 15, 19)).mean()
    return ("" if starts else "from 15: ") + f"{change:.1f}"


def _start_to_end(one: Subject) -> str:
    pairs = zip(_ranks(one, "start_ranks"), _ranks(one, "final_ranks"), strict=False)
    correlations = [rank_correlations(pair)[0] for pair in pairs]
    return f"{np.mean(correlations):.2f}" if correlations else ""


def _nested(one: Subject) -> pd.Series:
    nested = Group(tuple(record for record in one.group.records if record.results and record.results.rank_curve), "")
    return 100 * nested_values(nested, one.figure)[one.rank]


def _separate(one: Subject) -> pd.Series:
    found = [record for record in one.group.records if record.config.get("model.adapter.rank") == one.rank]
    return 100 * Group(tuple(found), "").values(one.figure)


def _optimum(one: Subject) -> str:
    assert one.chosen is not None
    optimum = one.chosen.optimum
    return f"{_rate(optimum.rate, 1)} {_between(optimum.interval, lambda rate: _rate(rate, 1))}"


def _ratio(one: Subject, tell: Callable[..., str]) -> str:
    assert one.chosen is not None
    return "" if one.chosen.ratio is None else tell(one.chosen.ratio)


CELLS: dict[str, Callable[[Subject], str]] = {
    "median": _median,
    "seeds": _seeds,
    "difference": _difference,
    "student": _student,
    "n": lambda one: str(len(one.group.values(one.figure))),
    "parameters": _parameters,
    "budget": _budget,
    "norm": _norm,
    "norms": lambda one: _listed(_norms(one, "final"), 1),
    "norms at the start": lambda one: _listed(_norms(one, "initial"), 0),
    "correlations": _correlations,
    "change": _change,
    "start to end": _start_to_end,
    "nested": lambda one: _listed(_nested(one), 1),
    "separate": lambda one: _listed(_separate(one), 1),
    "nested - separate": lambda one: ", ".join(_signed(value) for value in _nested(one) - _separate(one)),
    "rate": lambda one: _rate(one.chosen and one.chosen.optimum.chosen, 0),
    "optimum": _optimum,
    "ratio": lambda one: _ratio(one, lambda ratio: f"{_two_digits(ratio.value)} {_between(ratio.interval, _two_digits)}")
    or "1",
    "ratio of each seed": lambda one: _ratio(one, lambda ratio: ", ".join(map(_two_digits, ratio.by_seed))),
    "ratio, student": lambda one: _ratio(one, lambda ratio: _between(ratio.student, _two_digits)),
    "nothing": lambda one: "",
}

if __name__ == "__main__":
    sys.exit(main())
