"""The tables of docs/results/*.md, made from the trials kept beside them: `python -m tests.docs.published`.

A page has a place for each table, between `<!-- table: NAME -->` and `<!-- end -->`; what stands there is replaced.
tables.yaml says what each shows: its files of `trials`, the title of the `first` column, the other `columns` and the
`rows`.

A column has a `cell` (a method of `Cell`), and may have `figure` (best, last or test), `where` (settings of its runs),
`minus` (the method that differences are to) and `by` (what a curve's rate is chosen by: best or loss). A row has a
`label`, and may have `of` (its method), `minus`, `where` and `minus_where` (settings of either), `without` (the status
of runs that are left out), `curve` (a curve over learning rates, by the report's label), `rank` (at which nested runs
are evaluated), `trials` (files of its own) and `cells` (text that no trial tells, by the column's title).
"""

import re
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import ArrayLike
from scipy import stats

from common.files import write_text
from experiments.report.cells import as_markdown, scale, spread
from experiments.report.figures_rates import nested_values
from experiments.report.groups import RANK, Group, make_curves, make_groups, swept_rate
from experiments.report.rate_tables import ChosenRate, choose_rates
from experiments.report.record import Record
from experiments.report.sources import read_records
from experiments.report.statistics import Interval, PairedDifference, paired_difference

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
_PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)
_HIGHEST_RANK = 19  # of the study whose trials tell their ranks


@dataclass(frozen=True)
class Cell:
    """The runs of a row and column; each public method is a cell that tables.yaml can name.

    Attributes:
        other: what they are compared with.
        chosen: the curve over learning rates they are from, at its chosen rate.
        rank: at which nested runs are evaluated.
    """

    group: Group
    figure: str
    other: Group | None = None
    chosen: ChosenRate | None = None
    rank: int = 0

    def nothing(self) -> str:
        return ""  # for a column whose text no trial tells

    def n(self) -> str:
        return str(len(self.group.values(self.figure)))

    def median(self) -> str:
        return spread(_printed(self.group, self.figure), "")

    def seeds(self) -> str:
        """Each seed's figure; a best epoch's says whether the run collapsed."""
        digits = 2 if self.group.metric.name == "perplexity" else 1
        runs = self.group.records if self.figure == "best" else ()
        collapsed = {record.seed for record in runs if record.status == "collapsed"}
        told = {seed: f"{value:.{digits}f}" for seed, value in _printed(self.group, self.figure).items()}
        return ", ".join(f"{value} (collapsed)" if seed in collapsed else value for seed, value in told.items())

    def difference(self) -> str:
        """Mean and bootstrap interval; from two pairs the interval is their range, in parentheses."""
        found, tell = self._compared()
        interval = _between(found.bootstrap, tell)
        return f"{tell(found.mean)} " + (interval if found.pairs > 2 else f"({interval[1:-1]})")

    def student(self) -> str:
        found, tell = self._compared()
        return _between(found.student, tell)

    def _compared(self) -> tuple[PairedDifference, Callable[[float], str]]:
        found = paired_difference(self.group.values(self.figure), self.other.values(self.figure))
        factor = scale(self.group.metric.name)
        return found, lambda value: _signed(factor * value)

    def parameters(self) -> str:
        return f"{self.group.results[0].trainable_parameters.adapter:,}"

    def budget(self) -> str:
        """Entries of R in use at the end, lowest and highest; a fixed rank uses all it has."""
        results = self.group.results
        fixed = [one.trainable_parameters.adapter for one in results if one.adapter == "LoRAXS"]
        used = [one.budget.used for one in results if one.budget] or fixed
        return "–".join(f"{value:,.0f}" for value in sorted({min(used), max(used)})) if used else ""

    def norm(self) -> str:
        """Mean norm of the update at the end; `norms` has each seed's."""
        return f"{np.mean(self._norms('final')):.1f}" if self._norms("final") else "not recorded"

    def norms(self) -> str:
        return _listed(self._norms("final"), 1)

    def norms_at_start(self) -> str:
        return _listed(self._norms("initial"), 0)

    def _norms(self, when: str) -> list[float]:
        norms = [getattr(results.update_norms, when, None) for results in self.group.results]
        return [norm.total for norm in norms if norm is not None]

    def correlations(self) -> str:
        """Spearman's correlation of final ranks between seeds: the mean over pairs, lowest and highest."""
        pairs = rank_correlations(self._ranks("final_ranks"))
        return f"{np.mean(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})".replace("-", "−")

    def change(self) -> str:
        """Mean change of a rank, and the start where it is the same for all; starts above the highest count as that."""
        starts = self._ranks("start_ranks")
        change = np.abs(self._ranks("final_ranks") - np.minimum(starts, _HIGHEST_RANK)).mean()
        return (f"from {starts[0, 0]:.0f}: " if np.ptp(starts) == 0 else "") + f"{change:.1f}"

    def start_to_end(self) -> str:
        """Mean over seeds of Spearman's correlation between the ranks at the start and at the end."""
        pairs = zip(self._ranks("start_ranks"), self._ranks("final_ranks"), strict=True)
        mean = np.mean([rank_correlations(pair)[0] for pair in pairs])
        return "" if np.isnan(mean) else f"{mean:.2f}"

    def _ranks(self, when: str) -> np.ndarray:
        return np.array([results.other[when] for results in self.group.results])

    def nested(self) -> str:
        """Each nested run's figure at the rank."""
        return _listed(self._nested(), 1)

    def separate(self) -> str:
        """Figures of runs trained at the rank alone."""
        return _listed(self._separate(), 1)

    def nested_minus_separate(self) -> str:
        return ", ".join(map(_signed, self._nested() - self._separate()))

    def _nested(self) -> pd.Series:
        found = [record for record in self.group.records if record.results and record.results.rank_curve]
        return 100 * _in_print(nested_values(Group(tuple(found), ""), self.figure)[self.rank])

    def _separate(self) -> pd.Series:
        found = [record for record in self.group.records if record.config.get(RANK) == self.rank]
        return _printed(Group(tuple(found), ""), self.figure)

    def rate(self) -> str:
        return _rate(self.chosen.optimum.chosen or np.nan, 0)

    def optimum(self) -> str:
        """The best rate by the parabola, with its bootstrap interval."""
        optimum = self.chosen.optimum
        return f"{_rate(optimum.rate or np.nan)} {_between(optimum.interval, _rate)}"

    def ratio(self) -> str:
        """Its optimum over full fine-tuning's, with its bootstrap interval."""
        ratio = self.chosen.ratio
        return f"{_two_digits(ratio.value or np.nan)} {_between(ratio.bootstrap, _two_digits)}" if ratio else "1"

    def ratio_of_each_seed(self) -> str:
        return ", ".join(map(_two_digits, self.chosen.ratio.by_seed)) if self.chosen.ratio else ""

    def ratio_student(self) -> str:
        return _between(self.chosen.ratio.student, _two_digits) if self.chosen.ratio else ""


def rank_correlations(rank_sets: ArrayLike) -> list[float]:
    """Spearman's correlation of each pair of seeds' ranks (seeds, layers); NaN where one side is constant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        pairs = combinations(np.asarray(rank_sets, dtype=float), 2)
        return [float(stats.spearmanr(first, second).statistic) for first, second in pairs]


def _printed(group: Group, figure: str) -> pd.Series:
    return _in_print(group.values(figure)) * scale(group.metric.name)


def _in_print(values: pd.Series) -> pd.Series:
    """In the float32 that figures are computed in, so that halves are rounded as they were when the runs ended."""
    return values.astype(np.float32).astype(float)


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _listed(values: Iterable[float], digits: int) -> str:
    return ", ".join(f"{value:,.{digits}f}" for value in values)


def _two_digits(value: float) -> str:
    return f"{value:#.2g}".rstrip(".")


def _rate(rate: float, digits: int = 1) -> str:
    return f"{rate:.{digits}e}".replace("e-0", "e-")


def _between(interval: Interval | None, tell: Callable[[float], str]) -> str:
    return "" if interval is None else f"[{tell(interval[0])}, {tell(interval[1])}]"


def main() -> int:
    """Writes the tables into the pages."""
    for page in RESULTS.glob("*.md"):
        write_text(page, with_tables(page.read_text(encoding="utf-8")))
    return 0


def with_tables(page: str) -> str:
    """The page with its tables made anew."""
    return filled(page, lambda name: _made(definitions()[name]))


@cache
def definitions() -> dict[str, Any]:
    """What each table shows, by its name."""
    return yaml.safe_load((RESULTS / "tables.yaml").read_text(encoding="utf-8"))


def filled(page: str, make: Callable[[str], pd.DataFrame]) -> str:
    """A page whose places for tables hold what is made by their names."""
    return _PLACE.sub(lambda found: f"{found[1]}\n{as_markdown(make(found[2]))}\n\n{found[3]}", page)


def _made(table: dict[str, Any]) -> pd.DataFrame:
    rows = [[row["label"], *(_text(table, row, title) for title in table["columns"])] for row in table["rows"]]
    return pd.DataFrame(rows, columns=[table["first"], *table["columns"]])


def _text(table: dict[str, Any], row: dict[str, Any], title: str) -> str:
    column, trials = table["columns"][title], tuple(row.get("trials", table["trials"]))
    if title in row.get("cells", {}):
        return row["cells"][title]
    figure = column.get("figure", "best")
    if "curve" in row:
        chosen = _chosen_rates(trials, column.get("by", "best"))[row["curve"]]
        return getattr(Cell(chosen.group, figure, chosen=chosen), column["cell"])()
    settings = row.get("where", {}) | column.get("where", {})
    method, minus = row.get("of"), row.get("minus", column.get("minus", ""))
    kept = [one for one in records(trials) if one.status != row.get("without")]
    ours = Group(tuple(one for one in kept if method in (None, one.method) and _has(one, settings)), row["label"])
    others = row["minus_where"] if "minus_where" in row else column.get("minus_where", settings)
    other = Group(tuple(one for one in kept if one.method == minus and _has(one, others)), minus)
    if not ours.records or (minus and ours.records == other.records):
        return ""
    return getattr(Cell(ours, figure, other, rank=row.get("rank", 0)), column["cell"])()


def _has(record: Record, settings: dict[str, Any]) -> bool:
    told = record.config | record.overrides
    return all(told.get(name) == value for name, value in settings.items())


@cache
def records(trials: tuple[str, ...]) -> list[Record]:
    """The runs of published files, read once."""
    return read_records([RESULTS / f"{name}.json" for name in trials])


@cache
def _chosen_rates(trials: tuple[str, ...], by: str) -> dict[str, ChosenRate]:
    found = records(trials)
    curves = make_curves(make_groups(found), swept_rate(found))
    return {chosen.curve.label: chosen for chosen in choose_rates(curves, by)}


if __name__ == "__main__":
    sys.exit(main())
