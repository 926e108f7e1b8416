"""Figures of settings beside each other: runs, differences to a baseline, costs, regret against full fine-tuning."""

import math
from dataclasses import dataclass
from itertools import count

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.report.cells import TOO_FEW, make_table, scale, span, title
from experiments.report.drawing import COLORS, INK, count_axis, keep_in_sight, legend_below, look, panels
from experiments.report.groups import BACKBONE, RANK, RANK_AVERAGE, RATES, Group, Measure, alike
from experiments.report.statistics import PairedDifference, paired_difference
from experiments.report.tables import FIGURES, comparable, comparisons, metric_of

MOST_ROWS = 24
MOST_BARS = 12  # settings
SMALL_REGRET = 1.0  # points
_OF_THE_SIZE = (RANK, RANK_AVERAGE, *RATES, "model.adapter.lora_alpha")


def run_bars(groups: list[Group], baseline: Group | None) -> Figure | None:
    """A bar per run with a figure, settings best first; a line and a band for the baseline's median ± deviation."""
    shown = sorted((group for group in groups if len(group.values("best"))), key=lambda group: -group.score)[:MOST_BARS]
    metric = metric_of(shown)
    if metric is None:
        return None
    factor = scale(metric.name)
    bars = [[factor * best for run in group.records if (best := run.figure("best")) is not None] for group in shown]
    figure, (axes,) = panels(1, 7.2, 1 + 0.12 * sum(len(values) + 1 for values in bars))
    row, middles, ends = count(), [], []
    for group, values in zip(shown, bars, strict=True):
        places = [next(row) for _ in values]
        color = COLORS[7] if group is baseline else COLORS[0]
        axes.barh(places, values, color=color)
        ends += axes.plot(values, places, " ", color=color)
        middles.append(sum(places) / len(places))
        next(row)  # a gap between settings
    if baseline is not None and len(known := factor * baseline.values("best")):
        axes.axvline(known.median(), color=INK, lw=1)
        if len(known) > 1:
            axes.axvspan(known.median() - known.std(), known.median() + known.std(), color=INK, alpha=0.15, lw=0)
    low, high = min(map(min, bars)), max(map(max, bars))
    if low >= 0:
        axes.set_xlim(left=max(low - (high - low or low) / 4, 0))
    axes.margins(y=0.02)
    sound = [factor * value for group in shown for value in group.sound_values("best")]
    keep_in_sight(axes, "x", [*sound, min(sound, default=0) - 0.2 * np.ptp(sound or [0])], ends, tells=False)
    axes.set_yticks(middles, [group.label for group in shown])
    axes.invert_yaxis()
    axes.set_xlabel(f"best epoch, {title(metric.name)}")
    return figure


def difference_figure(groups: list[Group], baseline: Group) -> Figure | None:
    """A row per comparable setting, best first: a dot per common seed, the mean with its 95 % Student interval.

    The interval is cut off at the ends of an axis that the dots set, and isn't drawn below three seeds. Pairs with a
    collapsed run are marked at the edge.
    """
    rows = comparable(groups, baseline)[:MOST_ROWS]
    metric = baseline.metric
    if metric is None or not rows:
        return None
    factor = baseline.factor
    found = {(one.group, one.figure): one for group in rows for one in comparisons(group, baseline)}
    kinds = {kind: label for kind, label in FIGURES.items() if len(baseline.values(kind))}
    figure, all_axes = panels(len(kinds), 9.6, 1.2 + 0.32 * len(rows))
    for place, (axes, (kind, label)) in enumerate(zip(all_axes, kinds.items(), strict=True)):
        shown = {row: found[group, kind] for row, group in enumerate(rows) if (group, kind) in found}
        lines, sound = [], [0.0]
        for row, one in shown.items():
            dots = factor * one.difference.by_seed
            lines += axes.plot(dots, [row] * len(dots), ".", color=COLORS[7], ms=6, zorder=3)
            lines += axes.plot([dots.mean()], [row], "D", color=COLORS[0], ms=5, zorder=4)
            sound += list(dots[one.is_sound])
        axes.axvline(0, color=INK, lw=1)
        axes.plot(0, 0, " ")  # the baseline stays in sight
        axes.locator_params(axis="x", nbins=5)
        keep_in_sight(axes, "x", sound, lines)
        axes.autoscale(False)
        for row, one in shown.items():
            if one.difference.interval is not None:
                axes.plot([factor * end for end in one.difference.interval], [row, row], color=COLORS[0], lw=2)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [group.label for group in rows] if place == 0 else [""] * len(rows))
        axes.set_title(label)
    better = "higher" if metric.higher_is_better else "lower"
    figure.supxlabel(f"{title(metric.name)}: difference to {baseline.label} ({better} is better)", fontsize=10)
    return figure


def _series(groups: list[Group]) -> dict[str, list[Group]]:
    """Groups by what they have in common beside rank and learning rate, each lot by rising number of entries."""
    found = alike([group for group in groups if group.results], _OF_THE_SIZE)
    return {label: sorted(lot, key=lambda group: group.entries) for label, lot in found}


def common_figure(groups: list[Group]) -> str:
    """The test figure where all groups have one, else the best validation figure."""
    return "test" if all(len(group.values("test")) for group in groups if group.results) else "best"


def cost_figure(groups: list[Group]) -> Figure | None:
    """The score against adapter entries, training time and peak memory: a dot per run, a marker for the median."""
    lots, figure_name = _series(groups), common_figure(groups)
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
    legend: dict[str, Line2D] = {}
    for axes, cost in zip(all_axes, costs, strict=True):
        drawn: list[Line2D] = []
        for number, (label, lot) in enumerate(lots.items()):
            own, looks = runs[runs["label"] == label], look(number, lot[0].is_full)
            drawn += axes.plot(own[cost], own["score"], ".", color=looks["color"], alpha=0.4, ms=4)
            medians = own.groupby("group", sort=False)[[cost, "score"]].median().sort_values(cost)
            drawn += axes.plot(medians[cost], medians["score"], **looks | {"lw": float(cost == costs[0])})
            legend.setdefault(label, drawn[-1])
        if cost == "adapter entries":
            count_axis(axes, cost)
        else:
            axes.set(xlim=(0, 1.06 * runs[cost].max()), xlabel=cost)
        keep_in_sight(axes, "y", sound, drawn, tells=False)
    all_axes[0].set_ylabel(f"{'test' if figure_name == 'test' else 'best epoch,'} {title(metric.name)}")
    legend_below(figure, legend)
    return figure


@dataclass(frozen=True, eq=False)
class Regret:
    """By how much a group is worse than full fine-tuning at its own best rate, paired seed by seed."""

    label: str  # of the series that the group belongs to
    number: int  # of the series, for its look
    group: Group
    # full fine-tuning − ours in points, the other way round where lower is better: above zero is worse
    difference: PairedDifference


def regrets(groups: list[Group]) -> list[Regret]:
    """The regret of each group that has seeds in common with full fine-tuning, measured alike, of the same backbone.

    Only for metrics told in points, such as accuracy × 100.
    """
    groups = [group for group in groups if group.factor == 100]
    full: dict[tuple[Measure | None, object], Group] = {}
    for group in sorted((group for group in groups if group.is_full), key=lambda group: group.score):
        full[group.measure, group.setting(BACKBONE)] = group  # the best comes last and stays
    found = []
    for number, (label, lot) in enumerate(_series(groups).items()):
        for group in lot:
            other = full.get((group.measure, group.setting(BACKBONE)))
            if other is None or group.is_full:
                continue
            figure = common_figure([one for one in groups if one.measure == group.measure])
            factor = group.sign * group.factor
            difference = paired_difference(factor * other.values(figure), factor * group.values(figure))
            if difference is not None:
                found.append(Regret(label, number, group, difference))
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


def _side_by_side(one: Regret, shown: list[Regret]) -> float:
    """Where to draw an adapter: at its entries, or a little beside them where others have about as many."""
    alike = [other for other in shown if math.isclose(other.group.entries, one.group.entries, rel_tol=0.1)]
    place = next(place for place, other in enumerate(alike) if other is one)
    return float(one.group.entries * 1.1 ** (place - (len(alike) - 1) / 2))


def regret_figure(found: list[Regret]) -> Figure | None:
    """Regret with its 95 % Student interval against trained entries: a panel per data set, a line per series."""
    if not found:
        return None
    measures = list(dict.fromkeys(one.group.measure for one in found))
    figure, all_axes = panels(len(measures), 7.2 if len(measures) == 1 else 4.4 * len(measures), 4.4)
    legend: dict[str, Line2D] = {}
    series = {one.label: one.number for one in found}
    for axes, measure in zip(all_axes, measures, strict=True):
        shown = [one for one in found if one.group.measure == measure]
        for label, number in series.items():
            lot = [one for one in shown if one.label == label]
            if not lot:
                continue
            x, y = [_side_by_side(one, shown) for one in lot], np.array([one.difference.mean for one in lot])
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
