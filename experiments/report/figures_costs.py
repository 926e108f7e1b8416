"""Score against what it costs, and regret against full fine-tuning by the number of trained entries."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.report.cells import TOO_FEW, make_table, scale, span, title
from experiments.report.drawing import INK, count_axis, keep_in_sight, legend_below, look, panels
from experiments.report.groups import BACKBONE, RANK, RANK_AVERAGE, RATES, Group, alike
from experiments.report.statistics import PairedDifference, paired_difference
from experiments.report.tables import metric_of

_OF_THE_SIZE = (RANK, RANK_AVERAGE, *RATES, "model.adapter.lora_alpha")
SMALL_REGRET = 1.0  # points


def series(groups: list[Group]) -> dict[str, list[Group]]:
    """Groups by what they have in common beside rank and learning rate, each lot by rising number of entries."""
    found = alike([group for group in groups if group.results], _OF_THE_SIZE)
    return {label: sorted(lot, key=lambda group: group.entries) for label, lot in found}


def common_figure(groups: list[Group]) -> str:
    """The test figure where all groups have one, else the best validation figure."""
    return "test" if all(len(group.values("test")) for group in groups if group.results) else "best"


def cost_figure(groups: list[Group]) -> Figure | None:
    """The score against adapter entries, training time and peak memory: a dot per run, a marker for the median."""
    lots, figure_name = series(groups), common_figure(groups)
    metric = metric_of(groups)
    if metric is None or sum(map(len, lots.values())) < 2:
        return None
    factor = scale(metric.name)
    runs = pd.DataFrame(
        {
            "label": label,
            "group": group,
            "score": factor * score,
            "adapter entries": group.entries,
            "minutes, evaluation included": record.results.wall_seconds / 60,
            "peak memory, GiB": (record.results.peak_memory_bytes or np.nan) / 2**30,
        }
        for label, lot in lots.items()
        for group in lot
        for record in group.records
        if record.results and (score := record.figure(figure_name)) is not None
    )
    costs = [name for name in runs.columns[3:] if runs[name].notna().all()]
    figure, all_axes = panels(len(costs), 3.2 * len(costs), 4.0)
    sound = [factor * value for lot in lots.values() for group in lot for value in group.sound_values(figure_name)]
    legend: dict[str, Any] = {}
    for axes, cost in zip(all_axes, costs, strict=True):
        drawn: list[Any] = []
        for number, label in enumerate(lots):
            own, looks = runs[runs["label"] == label], look(number)
            drawn += axes.plot(own[cost], own["score"], ".", color=looks["color"], alpha=0.4, ms=4)
            medians = own.groupby("group", sort=False)[[cost, "score"]].median().sort_values(cost)
            is_first = cost == costs[0]
            (line,) = axes.plot(medians[cost], medians["score"], **looks | {"lw": float(is_first)})
            legend.setdefault(label, line)
            drawn.append(line)
        if cost == "adapter entries":
            count_axis(axes, cost)
        else:
            axes.set(xlim=(0, None), xlabel=cost)
        keep_in_sight(axes, "y", sound, drawn, tells=False)
    all_axes[0].set_ylabel(f"{'test' if figure_name == 'test' else 'best epoch,'} {title(metric.name)}")
    legend_below(figure, legend)
    return figure


@dataclass(frozen=True, eq=False)
class Regret:
    """By how much a group is worse than full fine-tuning at its own best rate, paired seed by seed.

    Attributes:
        label: of the series that the group belongs to.
        difference: full fine-tuning − ours in points, the other way round where lower is better: above zero is worse.
    """

    label: str
    group: Group
    difference: PairedDifference


def regrets(groups: list[Group]) -> list[Regret]:
    """The regret of each group that has seeds in common with full fine-tuning, measured alike, of the same backbone.

    Only for metrics told in points, such as accuracy × 100.
    """
    groups = [group for group in groups if group.factor == 100]
    full: dict[tuple[Any, Any], Group] = {}
    for group in sorted((group for group in groups if group.is_full), key=lambda group: group.score):
        full[group.measure, group.setting(BACKBONE)] = group  # the best comes last and stays
    found = []
    for label, lot in series([group for group in groups if not group.is_full]).items():
        for group in lot:
            other = full.get((group.measure, group.setting(BACKBONE)))
            if other is None:
                continue
            figure = common_figure([one for one in groups if one.measure == group.measure])
            factor = group.sign * group.factor
            difference = paired_difference(factor * other.values(figure), factor * group.values(figure))
            if difference is not None:
                found.append(Regret(label, group, difference))
    return found


def regret_table(found: list[Regret]) -> pd.DataFrame:
    """A row for each group, smallest adapter first."""
    of_several = len({one.group.measure for one in found}) > 1
    data = {"Data": lambda one: one.group.results[0].data.name} if of_several else {}
    return make_table(
        sorted(found, key=lambda one: (str(one.group.measure), one.group.entries)),
        {
            "Adapter": lambda one: one.group.label,
            **data,
            "Adapter entries": lambda one: f"{one.group.entries:,.0f}",
            "Regret": lambda one: f"{one.difference.mean:+.2f}",
            "95 % Student": lambda one: span(one.difference.interval) or TOO_FEW,
            "Seeds in common": lambda one: str(one.difference.pairs),
        },
    )


def regret_figure(found: list[Regret]) -> Figure | None:
    """Regret with its 95 % Student interval against trained entries: a panel per data set, a line per series."""
    if not found:
        return None
    measures = list(dict.fromkeys(one.group.measure for one in found))
    figure, all_axes = panels(len(measures), 7.2 if len(measures) == 1 else 4.4 * len(measures), 4.4)
    legend: dict[str, Any] = {}
    labels = list(dict.fromkeys(one.label for one in found))
    for axes, measure in zip(all_axes, measures, strict=True):
        own = [one for one in found if one.group.measure == measure]
        for number, label in enumerate(labels):
            lot = [one for one in own if one.label == label]
            if not lot:
                continue
            x, y = [one.group.entries for one in lot], np.array([one.difference.mean for one in lot])
            ends = np.array([one.difference.interval or (mean, mean) for one, mean in zip(lot, y, strict=True)]).T
            axes.errorbar(x, y, np.abs(ends - y), fmt="none", ecolor=look(number)["color"], capsize=3, lw=1)
            (legend[label],) = axes.plot(x, y, ms=5, **look(number))
        axes.axhline(0, color=INK, lw=1)
        axes.axhline(SMALL_REGRET, color=INK, lw=1, ls=":")
        count_axis(axes, "trained entries, without the head")
        if measure is not None:
            axes.set_title(f"{measure.data}: {title(measure.metric)}")
    all_axes[0].set_ylabel("points worse than full fine-tuning")
    legend_below(figure, legend)
    return figure
