"""The report's tables of settings, differences and runs: the study's columns, then what makes them trustworthy."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from common.errors import InputError
from experiments.report.cells import TOO_FEW, counted, make_table, mean, scale, span, text, title, two_digits
from experiments.report.groups import ALLOCATION_RATE, RANK, RANK_AVERAGE, RATE, Group
from experiments.report.record import UNSOUND, Record
from experiments.report.statistics import PairedDifference, holm, paired_difference
from experiments.results import Metric, RunResults

FIGURES = {"best": "best epoch", "last": "last epoch", "test": "test"}


def settings_table(groups: list[Group], baseline: Group | None) -> pd.DataFrame:
    """One row per settings, best first: the columns of the study's report, and best, last, test, n and difference.

    Rows that were measured alike stand together.
    """
    measures = list(dict.fromkeys(group.measure for group in groups))
    ordered = sorted(groups, key=lambda group: (measures.index(group.measure), -group.score))

    def of_adaptive(name: str) -> Callable[[Group], str]:
        return lambda group: text(group.setting(name)) if group.has_allocation else ""

    return make_table(
        ordered,
        {
            "Method": lambda group: group.label,
            "Task": _task,
            "Rank Min": lambda group: text(group.setting("model.adapter.rank_min")),
            "Rank Max": lambda group: text(group.setting("model.adapter.rank_max")),
            "Alpha Min": of_adaptive("alpha_growth.alpha_min"),
            "Alpha Max": of_adaptive("alpha_growth.alpha_max"),
            "LR": lambda group: text(group.setting(RATE)),
            "Allocation LR": of_adaptive(ALLOCATION_RATE),
            "Rank Avg": requested_rank,
            "Median ± Std": lambda group: group.spread("best"),
            "Last epoch": lambda group: group.spread("last"),
            "Test": lambda group: group.spread("test"),
            **({"Difference to baseline": lambda group: _difference(group, baseline)} if baseline else {}),
            "n": lambda group: str(len(group.values("best"))),
            "Used rank": lambda group: text(mean(used_rank(results) for results in group.results)),
            "Adapter parameters": lambda group: f"{group.entries:,.0f}" if group.results else "",
            "Parameters": lambda group: f"{group.results[0].trainable_parameters.total:,}" if group.results else "",
            "Status": lambda group: ", ".join(f"{count} {status}" for status, count in group.statuses.items()),
        },
    )


def _task(group: Group) -> str:
    return group.results[0].data.name.rpartition("/")[2] if group.results else text(group.setting("data.task"))


def requested_rank(group: Group) -> str:
    """The rank asked for; of a budget, the rank that would use it in every layer, from its start to its end."""
    ends = (group.setting(f"budget_schedule.memory_{end}") for end in ("start", "end"))
    scheduled = [budget for budget in ends if isinstance(budget, int | float)]
    budgets = scheduled or [b for b in (group.setting("model.adapter.budget"),) if isinstance(b, int | float)]
    if not budgets or group.setting("model.adapter.rank_min") is None:
        average = group.setting(RANK_AVERAGE)
        return text(group.setting(RANK) if average in (None, "None") else average)
    done = next((results for results in group.results if results.budget and results.equal_area_rank), None)
    if done is None or done.budget is None or done.equal_area_rank is None:
        return "budget " + " → ".join(f"{budget:,.0f}" for budget in budgets)
    # a rank's area is r² in LoRA-XS, and r (in + out) in LoRA
    root = 0.5 if "XS" in done.adapter else 1.0
    return " → ".join(dict.fromkeys(text(done.equal_area_rank * (b / done.budget.used) ** root) for b in budgets))


def used_rank(results: RunResults) -> float | None:
    """The rank in every layer that would use as much as the run's best epoch; the mean rank where runs don't tell."""
    best = results.at_best_epoch or results
    return results.average_rank if best.equal_area_rank is None else best.equal_area_rank


def _difference(group: Group, baseline: Group) -> str:
    if group is baseline:
        return "baseline"
    if group.measure and baseline.measure and group.measure != baseline.measure:
        return "other data or metric"
    difference = paired_difference(group.values("best"), baseline.values("best"))
    if difference is None:
        return "no common seed"
    told = f"{group.factor * difference.mean:+.2f} {span(difference.interval, group.factor)}".strip()
    return f"{told} ({counted(difference.pairs, 'pair')})"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Settings against the baseline in one figure: best, last or test."""

    group: Group
    baseline: Group
    figure: str
    difference: PairedDifference

    @property
    def is_sound(self) -> pd.Series:
        """By common seed, whether neither run collapsed or diverged."""
        records = (*self.group.records, *self.baseline.records)
        fallen = {record.seed for record in records if record.status in UNSOUND}
        return ~self.difference.by_seed.index.to_series().isin(fallen)


def difference_table(groups: list[Group], baseline: Group | None, bootstrap: bool = False) -> pd.DataFrame:
    """A row per settings and figure, best settings first; empty without a baseline that has results.

    The p-values are corrected for all comparisons in the table (Holm).
    """
    rows, factor = all_comparisons(groups, baseline) if baseline else [], baseline.factor if baseline else 1.0
    corrected = dict(zip(rows, holm(row.difference.p_value for row in rows), strict=True))
    resampled = {"95 % bootstrap": lambda row: span(row.difference.bootstrap, factor)}
    return make_table(
        rows,
        {
            "Settings": lambda row: row.group.label,
            "Figure": lambda row: FIGURES[row.figure],
            "Mean difference": lambda row: f"{factor * row.difference.mean:+.2f}",
            "95 % Student": lambda row: span(row.difference.interval, factor) or TOO_FEW,
            **(resampled if bootstrap else {}),
            "p": lambda row: two_digits(row.difference.p_value),
            f"p, Holm over {len(rows)}": lambda row: two_digits(corrected[row]),
            "Seeds in common": lambda row: str(row.difference.pairs),
        },
    )


def comparable(groups: list[Group], baseline: Group) -> list[Group]:
    """Settings measured like the baseline, with seeds in common, best first."""
    ordered = sorted((group for group in groups if group is not baseline), key=lambda group: -group.score)
    alike = [group for group in ordered if group.measure == baseline.measure]
    return [group for group in alike if paired_difference(group.values("best"), baseline.values("best"))]


def all_comparisons(groups: list[Group], baseline: Group) -> list[Comparison]:
    """Those of all comparable settings, best first."""
    return [found for group in comparable(groups, baseline) for found in comparisons(group, baseline)]


def comparisons(group: Group, baseline: Group) -> list[Comparison]:
    """The differences in each figure that both have."""
    found = {kind: paired_difference(group.values(kind), baseline.values(kind)) for kind in FIGURES}
    return [Comparison(group, baseline, kind, difference) for kind, difference in found.items() if difference]


def find_baseline(groups: list[Group], compared: list[Group], wanted: str | None) -> Group | None:
    """The best group (on validation) that the user named: by method among those compared, by label or run among all.

    `InputError`: nothing has this name.
    """
    if wanted is None:
        return None
    named = [group for group in compared if group.method == wanted]
    named = named or [group for group in groups if group.label == wanted]
    named = named or [group for group in groups if wanted in {record.folder.name for record in group.records}]
    if not named:
        known = sorted({group.method or group.label for group in groups} | {group.label for group in groups})
        raise InputError(
            f"baseline is {wanted!r}; allowed: a method, a row's label or a run's name: {', '.join(known)}."
        )
    return max(named, key=lambda group: group.score)


def trouble_table(records: list[Record]) -> pd.DataFrame:
    """Every run that didn't simply finish."""
    return make_table(
        [record for record in records if record.status != "finished"],
        {
            "Run": lambda record: record.folder.name,
            "Status": lambda record: record.status,
            "What happened": lambda record: record.error or _trouble(record),
        },
    )


def _trouble(record: Record) -> str:
    results = record.results
    if record.status == "paused":
        return "others did better: stopped early; to train it to the end, run the sweep without --stop_early"
    if record.status in ("begun", "waiting"):
        return "not finished: run the sweep again"
    if results is None:
        return ""
    if record.status == "collapsed":
        epochs = ", ".join(map(str, results.collapsed_epochs))
        return f"one answer for every validation row at the end (epochs {epochs})"
    if record.status == "diverged":
        return f"the training loss stopped being finite after {len(results.train_losses or [])} epochs"
    if record.status == "budget_missed":
        return f"AdaLoRA ended with other ranks than its target: {text(results.average_rank)} on average"
    return ""


def run_table(records: list[Record]) -> pd.DataFrame:
    """Every run's own figures."""

    def of_results(tell: Callable[[RunResults], str]) -> Callable[[Record], str]:
        return lambda record: tell(record.results) if record.results else ""

    def figure(kind: str) -> Callable[[Record], str]:
        def cell(record: Record) -> str:
            value = record.figure(kind)
            return "" if value is None or record.results is None else f"{scale(record.results.metric.name) * value:.2f}"

        return cell

    return make_table(
        records,
        {
            "Run": lambda record: record.folder.name,
            "Status": lambda record: record.status,
            "Seed": lambda record: str(record.seed),
            "Best": figure("best"),
            "Best epoch (from 0)": of_results(lambda results: text(results.metric.best_epoch)),
            "Last": figure("last"),
            "Test": figure("test"),
            "Used rank": of_results(lambda results: text(used_rank(results))),
            "Seconds": of_results(lambda results: f"{results.wall_seconds:.0f}"),
            "Peak MiB": of_results(
                lambda results: f"{results.peak_memory_bytes / 2**20:,.0f}" if results.peak_memory_bytes else ""
            ),
        },
    )


def metric_of(groups: list[Group]) -> Metric | None:
    """The validation metric of the first group that has one."""
    return next((group.metric for group in groups if group.metric), None)


def headline(groups: list[Group]) -> str:
    """What the figures are, in one line."""
    metrics = {group.metric.name: group.metric for group in groups if group.metric}
    if not metrics:
        return "No run has finished yet"
    better = {True: "higher", False: "lower"}
    told = [f"{title(name)} ({better[metric.higher_is_better]} is better)" for name, metric in metrics.items()]
    return f"{' and '.join(told)} on the validation split, best epoch unless said otherwise"
