"""Figures of settings beside each other: a bar per run, and the paired differences to a baseline."""

from itertools import count
from typing import Any

from matplotlib.figure import Figure

from experiments.metrics import scale, title
from experiments.report.drawing import COLORS, INK, panels
from experiments.report.groups import Group
from experiments.report.statistics import PairedDifference
from experiments.report.tables import FIGURES, comparable, comparisons, metric_of

MOST_ROWS = 24
MOST_BARS = 12  # settings
_LINEAR_UP_TO = 10
_TICKS = (0, 2, 5, 10, 20, 50)
_LABEL_WIDTH = 0.15  # of an axis


def run_bars(groups: list[Group], baseline: Group | None) -> Figure | None:
    """A bar per run with a figure, settings best first; a line and a band for the baseline's median ± deviation."""
    shown = sorted((group for group in groups if len(group.values("best"))), key=lambda group: -group.score)[:MOST_BARS]
    metric = metric_of(shown)
    if metric is None:
        return None
    name = metric.name
    bars = [
        [scale(name) * best for run in group.records if (best := run.figure("best")) is not None] for group in shown
    ]
    figure = Figure(figsize=(7.2, 1 + 0.12 * sum(len(values) + 1 for values in bars)), layout="constrained")
    axes, row, middles = figure.add_subplot(), count(), []
    for group, values in zip(shown, bars, strict=True):
        places = [next(row) for _ in values]
        axes.barh(places, values, color=COLORS[7] if group is baseline else COLORS[0])
        middles.append(sum(places) / len(places))
        next(row)  # a gap between settings
    if baseline is not None and len(known := scale(name) * baseline.values("best")):
        axes.axvline(known.median(), color=INK, lw=1)
        if len(known) > 1:
            axes.axvspan(known.median() - known.std(), known.median() + known.std(), color=INK, alpha=0.15, lw=0)
    low, high = min(map(min, bars)), max(map(max, bars))
    if low >= 0:
        # a perplexity of thousands would make one length of all others
        axes.set_xlim(
            max(low - (high - low or low) / 4, 0), None if metric.higher_is_better else min(high * 1.05, 3 * low)
        )
    axes.margins(y=0.02)
    axes.set_yticks(middles, [group.label for group in shown])
    axes.invert_yaxis()
    axes.set_xlabel(f"best epoch, {title(name)}")
    return figure


def difference_figure(groups: list[Group], baseline: Group) -> Figure | None:
    """A row per settings, best first: a dot per common seed, the mean with its 95 % Student interval.

    Student's interval is cut off at the ends of an axis that the dots set. Groups that were measured otherwise than the
    baseline are left out, and those for which there is no room. Where differences exceed 10, the axis is logarithmic
    beyond 5, so that a collapsed seed doesn't squash the rest.
    """
    rows = comparable(groups, baseline)[:MOST_ROWS]
    metric = baseline.metric
    if metric is None or not rows:
        return None
    factor = scale(metric.name)
    found = {(one.group, one.figure): one.difference for group in rows for one in comparisons(group, baseline)}
    kinds = {kind: label for kind, label in FIGURES.items() if len(baseline.values(kind))}
    figure, all_axes = panels(len(kinds), 9.6, 1.2 + 0.32 * len(rows))
    for place, (axes, (kind, label)) in enumerate(zip(all_axes, kinds.items(), strict=True)):
        differences = {row: found[group, kind] for row, group in enumerate(rows) if (group, kind) in found}
        for row, difference in differences.items():
            _draw_row(axes, row, difference, factor)
        axes.axvline(0, color=INK, lw=1)
        _scale(axes)
        axes.autoscale(False)
        for row, difference in differences.items():
            if difference.student is not None:
                axes.plot([factor * end for end in difference.student], [row, row], color=COLORS[0], lw=2)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [group.label for group in rows] if place == 0 else [""] * len(rows))
        axes.set_title(label, fontsize=10)
    better = "higher" if metric.higher_is_better else "lower"
    figure.supxlabel(f"{title(metric.name)}: difference to {baseline.label} ({better} is better)", fontsize=10)
    return figure


def _draw_row(axes: Any, row: int, difference: PairedDifference, factor: float) -> None:
    dots = factor * difference.by_seed.to_numpy()
    axes.plot(dots, [row] * len(dots), ".", color=COLORS[7], ms=6, zorder=3)
    axes.plot([factor * difference.mean], [row], "D", color=COLORS[0], ms=5, zorder=4)


def _scale(axes: Any) -> None:
    low, high = axes.get_xlim()
    if max(-low, high) <= _LINEAR_UP_TO:
        axes.locator_params(axis="x", nbins=5)
        return
    axes.set_xscale("symlog", linthresh=5)
    ticks = _apart([sign * tick for tick in _TICKS for sign in (-1, 1) if low <= sign * tick <= high], axes, low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlim(low, high)


def _apart(ticks: list[int], axes: Any, low: float, high: float) -> list[int]:
    """Those ticks whose labels have room, the ones nearest to zero first."""
    place = axes.xaxis.get_transform().transform
    kept: list[int] = []
    for tick in ticks:
        gaps = [abs(place(tick) - place(other)) / (place(high) - place(low)) for other in kept]
        if min(gaps, default=1.0) >= _LABEL_WIDTH:
            kept.append(tick)
    return sorted(kept)
