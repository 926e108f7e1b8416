"""The report's tables, as rows of text: the study's columns first, then what makes them trustworthy."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from common.errors import InputError
from experiments.metrics import scale, title
from experiments.report.groups import ALLOCATION_RATE, RATE, Group
from experiments.report.statistics import Interval, median_and_deviation, paired_difference

Row = dict[str, str]


def settings_table(groups: list[Group], baseline: Group | None) -> list[Row]:
    """One row per settings, best first: the columns of the study's report, and best, last, test, n and difference.

    Rows that were measured alike stand together.
    """
    measures = list(dict.fromkeys(group.measure for group in groups))
    ordered = sorted(groups, key=lambda group: (measures.index(group.measure), -group.score))
    return [_settings_row(group, baseline) for group in ordered]


def _settings_row(group: Group, baseline: Group | None) -> Row:
    metric = metric_of([group])
    name = metric["name"] if metric else ""
    results = next((record.results for record in group.records if record.results), None)
    adaptive = group.setting("model.adapter.rank_average") is not None
    row = {
        "Method": group.label,
        "Task": results["data"]["name"].rpartition("/")[2] if results else text(group.setting("data.task")),
        "Rank Min": text(group.setting("model.adapter.rank_min")),
        "Rank Max": text(group.setting("model.adapter.rank_max")),
        "Alpha Min": text(group.setting("alpha_growth.alpha_min") if adaptive else None),
        "Alpha Max": text(group.setting("alpha_growth.alpha_max") if adaptive else None),
        "LR": text(group.setting(RATE)),
        "Allocation LR": text(group.setting(ALLOCATION_RATE) if adaptive else None),
        "Rank Avg": text(_requested_rank(group)),
        "Median ± Std": spread(group.values("best"), name),
        "Last epoch": spread(group.values("last"), name),
        "Test": spread(group.values("test"), name),
    }
    if baseline is not None:
        row["Difference to baseline"] = _difference(group, baseline, name)
    return row | {
        "n": str(len(group.values("best"))),
        "Used rank": text(mean([used_rank(r.results) for r in group.records if r.results])),
        "Parameters": f"{results['trainable_parameters']['total']:,}" if results else "",
        "Status": ", ".join(f"{count} {status}" for status, count in group.statuses.items()),
    }


def used_rank(results: dict[str, Any]) -> float | None:
    """The rank in every layer that would use as much as the run's best epoch; the mean rank where runs don't tell."""
    best = results.get("at_best_epoch") or results
    return best.get("equal_area_rank", results["average_rank"])


def _requested_rank(group: Group) -> Any:
    rank = group.setting("model.adapter.rank_average")
    return group.setting("model.adapter.rank") if rank is None else rank


def _difference(group: Group, baseline: Group, name: str) -> str:
    if group is baseline:
        return "baseline"
    if None not in (group.measure, baseline.measure) and group.measure != baseline.measure:
        return "other data or metric"
    difference = paired_difference(group.values("best"), baseline.values("best"))
    if difference is None:
        return "no common seed"
    factor = scale(name)
    interval = "" if difference.interval is None else f" {span(difference.interval, factor, signed=True)}"
    pairs = "1 pair" if difference.pairs == 1 else f"{difference.pairs} pairs"
    return f"{factor * difference.mean:+.2f}{interval} ({pairs})"


def troubles(groups: list[Group]) -> list[Row]:
    """Every run that didn't simply finish."""
    return [
        {"Run": record.folder.name, "Status": record.status, "What happened": record.error or _trouble(record)}
        for group in groups
        for record in group.records
        if record.status != "finished"
    ]


def _trouble(record: Any) -> str:
    if record.status == "collapsed":
        epochs = record.results.get("collapsed_epochs") or []
        return f"one answer for every validation row at the end (epochs {', '.join(map(str, epochs))})"
    if record.status == "diverged":
        return f"the training loss stopped being finite after {len(record.results['train_losses'])} epochs"
    if record.status == "budget_missed":
        return f"AdaLoRA ended with other ranks than its target: {record.results['average_rank']:.4g} on average"
    return "not finished: run the sweep again" if record.status in ("begun", "waiting") else ""


def find_baseline(groups: list[Group], compared: list[Group], wanted: str | None) -> Group | None:
    """The best group (on validation) of the method, label or run that the user named.

    Args:
        groups: all groups, which a label or a run may name.
        compared: those to compare, each method's at its chosen learning rate; a method names one of these.
        wanted: the name; None: no baseline.

    Raises:
        InputError: nothing has this name.
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


def metric_of(groups: Sequence[Group]) -> dict[str, Any] | None:
    """The validation metric of the first record that has one."""
    return next((record.metric for group in groups for record in group.records if record.metric), None)


def spread(values: dict[int, float], name: str) -> str:
    """Median ± sample standard deviation, × 100 where the metric is a fraction; the median alone for one value."""
    median, deviation = median_and_deviation(list(values.values()))
    factor = scale(name)
    if median is None:
        return "none"
    return f"{factor * median:.2f}" + ("" if deviation is None else f" ± {factor * deviation:.2f}")


def span(interval: Interval, factor: float = 1.0, signed: bool = False) -> str:
    """An interval in brackets."""
    low, high = (factor * end for end in interval)
    return f"[{low:+.2f}, {high:+.2f}]" if signed else f"[{low:.2f}, {high:.2f}]"


def text(value: Any) -> str:
    """A value for a cell; nothing for None."""
    if value is None or value == "None":
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def without_empty_columns(rows: list[Row]) -> list[Row]:
    """Rows for reading: a column that no row fills is left out."""
    filled = {name for row in rows for name, value in row.items() if value}
    return [{name: value for name, value in row.items() if name in filled} for row in rows]


def as_csv(rows: list[Row]) -> str:
    """Rows as CSV text."""
    output = io.StringIO()
    writer = csv.DictWriter(output, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return output.getvalue()


def as_markdown(rows: list[Row]) -> str:
    """Rows as a Markdown table."""
    if not rows:
        return ""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    lines += ["| " + " | ".join(value.replace("|", "\\|") for value in row.values()) + " |" for row in rows]
    return "\n".join(lines)


def headline(groups: list[Group]) -> str:
    """What the figures are, in one line."""
    metrics = {group.measure[0]: metric_of([group]) for group in groups if group.measure is not None}
    if not metrics:
        return "No run has finished yet"
    told = [f"{title(name)} ({_better(metric)} is better)" for name, metric in metrics.items()]
    return f"{' and '.join(told)} on the validation split, best epoch unless said otherwise"


def _better(metric: dict[str, Any] | None) -> str:
    return "higher" if metric and metric["higher_is_better"] else "lower"


def mean(values: list[Any]) -> float | None:
    """Mean of the values there are."""
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None
