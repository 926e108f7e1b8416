"""The metric against the rank: of nested runs, which have many, and of runs trained at one rank each."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.metrics import scale, title
from experiments.report.drawing import COLORS, MARKERS
from experiments.report.groups import NOT_STUDIED, RANK, RATE, Group, alike, by_seed
from experiments.report.tables import Row, metric_of, spread

_SPLITS = {"best": "val", "test": "test"}
_SPLIT_NAMES = {"best": "validation", "test": "test"}


@dataclass(frozen=True)
class RankCurve:
    """Figures by rank.

    Attributes:
        label: of the settings that the ranks share.
        values: best (validation) or test -> rank -> seed -> figure, as in results.json.
    """

    label: str
    values: dict[str, dict[int, dict[int, float]]]


def rank_curves(groups: list[Group]) -> list[RankCurve]:
    """A curve for each nested group, and one for fixed-rank groups that differ in the rank alone (learning rate aside).

    Args:
        groups: one for each rank, so those at their chosen rates where rates were swept.
    """
    fixed = [group for group in groups if isinstance(group.setting(RANK), int)]
    curves = [RankCurve(group.label, _nested_values(group)) for group in groups if _is_nested(group)]
    for label, found in alike(fixed, (*NOT_STUDIED, RANK, RATE)):
        if len(found) > 1:
            ordered = sorted(found, key=lambda group: int(group.setting(RANK)))
            values = {kind: {int(group.setting(RANK)): group.values(kind) for group in ordered} for kind in _SPLITS}
            curves.append(RankCurve(label, values))
    return curves


def _is_nested(group: Group) -> bool:
    return any((record.results or {}).get("rank_curve") for record in group.records)


def _nested_values(group: Group) -> dict[str, dict[int, dict[int, float]]]:
    found: dict[str, dict[int, list[tuple[int, float | None]]]] = {kind: {} for kind in _SPLITS}
    for record in group.records:
        for entry in (record.results or {}).get("rank_curve") or []:
            for kind, split in _SPLITS.items():
                figure = entry.get(f"{split}/{record.metric['name']}") if record.metric else None
                found[kind].setdefault(entry["rank"], []).append((record.seed, figure))
    return {kind: {rank: by_seed(figures) for rank, figures in ranks.items()} for kind, ranks in found.items()}


def rank_curve_table(groups: list[Group]) -> list[Row]:
    """One row per rank, and for each curve a column of validation and one of test figures; empty without a curve."""
    curves, metric = rank_curves(groups), metric_of(groups)
    ranks = sorted({rank for curve in curves for rank in curve.values["best"]})
    if metric is None or not ranks:
        return []
    columns = [(curve, kind) for kind in _SPLITS for curve in curves if any(curve.values[kind].values())]
    return [
        {"Rank": str(rank)}
        | {
            f"{curve.label}, {_SPLIT_NAMES[kind]}": spread(curve.values[kind].get(rank, {}), metric["name"])
            for curve, kind in columns
        }
        for rank in ranks
    ]


def rank_curve_figure(groups: list[Group]) -> Figure | None:
    """A panel for validation and one for test: a line per curve (mean over seeds), a band from lowest to highest."""
    curves, metric = rank_curves(groups), metric_of(groups)
    panels = [kind for kind in _SPLITS if any(any(curve.values[kind].values()) for curve in curves)]
    if metric is None or not panels:
        return None
    figure = Figure(figsize=(4.8 * len(panels), 3.6), layout="constrained")
    for place, kind in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for number, curve in enumerate(curves):
            found = {rank: list(by_seed.values()) for rank, by_seed in sorted(curve.values[kind].items()) if by_seed}
            values = [[scale(metric["name"]) * value for value in seeds] for seeds in found.values()]
            color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
            axes.plot(list(found), [np.mean(v) for v in values], marker=marker, color=color, label=curve.label, ms=5)
            axes.fill_between(
                list(found), [min(v) for v in values], [max(v) for v in values], color=color, alpha=0.15, lw=0
            )
        ranks = sorted({rank for curve in curves for rank in curve.values[kind]})
        axes.set_xscale("log", base=2)
        axes.set_xticks(ranks, [str(rank) for rank in ranks])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("rank")
        axes.set_title(_SPLIT_NAMES[kind], fontsize=10)
    figure.axes[0].set_ylabel(title(metric["name"]))
    lines = figure.axes[0].lines  # handed over, since a label that begins with _ would hide its line
    figure.axes[0].legend(lines, [curve.label for curve in curves], loc="best")
    return figure
