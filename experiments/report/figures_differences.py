"""Figures of settings beside each other: a bar per run, and the paired differences to a baseline."""

from itertools import count

import numpy as np
from matplotlib.figure import Figure

from experiments.report.cells import scale, title
from experiments.report.drawing import COLORS, INK, keep_in_sight, panels
from experiments.report.groups import Group
from experiments.report.tables import FIGURES, comparable, comparisons, metric_of

MOST_ROWS = 24
MOST_BARS = 12  # settings


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
    """A row per settings, best first: a dot per common seed, the mean with its 95 % Student interval.

    The interval is cut off at the ends of an axis that the dots set, and isn't drawn below three seeds. Groups that
    were measured otherwise than the baseline are left out, and those for which there is no room. Pairs with a collapsed
    run are marked at the edge.
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
