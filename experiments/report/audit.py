"""What makes a comparison unfair, where a report's runs show it: a line for each fault, none where there is none."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import pandas as pd

from experiments.report.cells import make_table
from experiments.report.groups import RANK, RANK_AVERAGE, RATES, SAME_BUDGET, Curve, Group, alike
from experiments.report.optimum import curve_optimum

_BUDGETS = (RANK, RANK_AVERAGE, "model.adapter.budget")


class Finding(NamedTuple):
    """One fault, and the rows it concerns."""

    fault: str
    rows: list[str]


def audit_table(
    groups: list[Group], curves: list[Curve], compared: list[Group], baseline: Group | None
) -> pd.DataFrame:
    """A row per fault; empty for a clean study. The arguments are a `Study`'s, `curves` its swept ones."""
    found = [*_edges(curves, baseline)]
    for same in _by_measure(groups):
        found += _tries([*same, *(group for group in groups if group.was_paused and not group.results)])
    for same in _by_measure(compared):
        found += [*_budgets(same, baseline), *_counts(same), *_splits(same)]
    return make_table(
        [finding for finding in found if finding.rows],
        {"Not fair": lambda finding: finding.fault, "Rows": lambda finding: "; ".join(finding.rows)},
    )


def _by_measure(groups: list[Group]) -> Iterable[list[Group]]:
    """Groups with results, those that can be compared together."""
    measured = sorted((group for group in groups if group.results), key=lambda group: str(group.measure))
    return (list(found) for _, found in groupby(measured, key=lambda group: group.measure))


def _edges(curves: list[Curve], baseline: Group | None) -> Iterator[Finding]:
    rows = []
    for curve in curves:
        scores = curve.scores()
        tried = [rate for rate, group in curve.groups.items() if rate in scores or group.was_paused]
        place = next((place for place, rate in enumerate(tried) if curve.groups[rate] is curve.chosen), 0)
        if len(tried) < 2 or 0 < place < len(tried) - 1 or curve_optimum(scores).place == "flat":
            continue
        edge = "of two rates" if len(tried) == 2 else "upper edge" if place else "lower edge"
        whose = ", the baseline" if baseline in curve.groups.values() else ""
        rows.append(f"{curve.label} ({tried[place]:g}, {edge}{whose})")
    yield Finding("the best rate lies at the edge of its grid: a better one may lie outside", rows)


def _tries(groups: list[Group]) -> Iterator[Finding]:
    tries = {label: len(found) for label, found in alike(groups, RATES) if any(group.results for group in found)}
    fewest = min(tries.values())
    rows = [f"{label} ({count})" for label, count in tries.items() if count > fewest]
    yield Finding(f"more learning rates were tried than for others, which had {fewest}", rows)


def _budgets(groups: list[Group], baseline: Group | None) -> Iterator[Finding]:
    """Where ranks vary within a method, budgets are what is studied; full fine-tuning has none."""
    by_method: dict[str, set[str]] = {}
    for group in groups:
        by_method.setdefault(group.method, set()).add(repr([group.setting(name) for name in _BUDGETS]))
    used = {group: group.entries for group in groups if not group.is_full}
    if len(used) < 2 or any(len(settings) > 1 for settings in by_method.values()):
        return
    middle = sorted(used.values())[(len(used) - 1) // 2] if baseline not in used else used[baseline]
    other = {group.label: budget for group, budget in used.items() if abs(budget - middle) > SAME_BUDGET * middle}
    rows = [f"{label} ({budget:,.0f})" for label, budget in other.items()]
    whose = "the baseline's" if baseline in used else "the median"
    yield Finding(f"the budget used is more than 2 % from {whose}, {middle:,.0f} adapter entries", rows)


def _counts(groups: list[Group]) -> Iterator[Finding]:
    """Parameters and passes that one side has and the other lacks."""
    without = [group.label for group in groups if not any(one.trainable_parameters.head for one in group.results)]
    yield Finding("a head is trained and counted for the others only", without if len(without) < len(groups) else [])
    passes = {group: max(one.factors.rows if one.factors else 0 for one in group.results) for group in groups}
    rows = [f"{group.label} ({count:,} rows)" for group, count in passes.items() if count]
    yield Finding("passes over data before training, which the others lack", rows if len(rows) < len(groups) else [])


def _splits(groups: list[Group]) -> Iterator[Finding]:
    choosing = [group for group in groups if any(len(results.val_losses or []) > 1 for results in group.results)]
    untested = [group.label for group in choosing if group.values("test").empty]
    yield Finding("no test figure: the best epoch was chosen on the split it is reported on", untested)
    same = [group.label for group in choosing if len(group.records) > 1 and _is_validation_again(group)]
    yield Finding("the test split gives the validation's figures: epochs were chosen on it", same)


def _is_validation_again(group: Group) -> bool:
    both = pd.DataFrame({figure: group.values(figure) for figure in ("best", "test")}).dropna()
    return len(both) > 1 and bool((both["best"] == both["test"]).all())
