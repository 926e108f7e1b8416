"""The metric against the rank: of nested runs, which have many, and of runs trained at one rank each."""

from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from experiments.report.cells import make_table, scale, spread, title
from experiments.report.drawing import COLORS, MARKERS, draw_band, panels, rank_axis
from experiments.report.groups import RANK, RATE, Group, alike, by_seed
from experiments.report.tables import metric_of

_SPLITS = {"best": "val", "test": "test"}
_SPLIT_NAMES = {"best": "validation", "test": "test"}


@dataclass(frozen=True)
class RankCurve:
    """Figures by rank.

    Attributes:
        label: of the settings that the ranks share.
        values: best (validation) or test -> figures as in results.json, a row per seed and a column per rising rank.
    """

    label: str
    values: dict[str, pd.DataFrame]


def rank_curves(groups: list[Group]) -> list[RankCurve]:
    """A curve for each nested group, and one for fixed-rank groups that differ in the rank alone (learning rate aside).

    Where rates were swept, there is one group for each rank, that at its chosen rate.
    """
    nested = [group for group in groups if any(results.rank_curve for results in group.results)]
    curves = [RankCurve(group.label, {kind: nested_values(group, kind) for kind in _SPLITS}) for group in nested]
    fixed = [group for group in groups if isinstance(group.setting(RANK), int)]
    for label, found in alike(fixed, (RANK, RATE)):
        if len(found) > 1:
            found.sort(key=lambda group: int(group.setting(RANK)))
            values = {kind: pd.DataFrame({one.setting(RANK): one.values(kind) for one in found}) for kind in _SPLITS}
            curves.append(RankCurve(label, values))
    return curves


def nested_values(group: Group, kind: str) -> pd.DataFrame:
    """Figures of nested runs, best or test: a row per seed, a column per rank."""
    found: dict[int, list[tuple[int, float | None]]] = {}
    for results in group.results:
        for entry in results.rank_curve or []:
            if (rank := entry.get("rank")) is not None:
                figure = entry.get(f"{_SPLITS[kind]}/{results.metric.name}")
                found.setdefault(int(rank), []).append((results.seed or 0, figure))
    return pd.DataFrame({rank: by_seed(found[rank]) for rank in sorted(found)})


def rank_curve_table(groups: list[Group]) -> pd.DataFrame:
    """One row per rank, and for each curve a column of validation and one of test figures; empty without a curve."""
    curves, metric = rank_curves(groups), metric_of(groups)
    if metric is None:
        return pd.DataFrame()
    ranks = sorted({rank for curve in curves for rank in curve.values["best"].columns})
    tables = {f"{curve.label}, {_SPLIT_NAMES[kind]}": curve.values[kind] for kind in _SPLITS for curve in curves}
    columns = {
        title: lambda rank, table=table: spread(table.get(rank, pd.Series(dtype=float)).dropna(), metric.name)
        for title, table in tables.items()
        if table.notna().any(axis=None)
    }
    return make_table(ranks, {"Rank": str, **columns})


def rank_curve_figure(groups: list[Group]) -> Figure | None:
    """A panel for validation and one for test: a line per curve (mean over seeds), a band from lowest to highest."""
    curves, metric = rank_curves(groups), metric_of(groups)
    kinds = [kind for kind in _SPLITS if any(curve.values[kind].notna().any(axis=None) for curve in curves)]
    if metric is None or not kinds:
        return None
    figure, all_axes = panels(len(kinds), 4.8 * len(kinds), 3.6)
    for axes, kind in zip(all_axes, kinds, strict=True):
        for number, curve in enumerate(curves):
            color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
            values = scale(metric.name) * curve.values[kind].dropna(axis="columns", how="all")
            draw_band(axes, values, marker=marker, color=color, label=curve.label)
        ranks = {rank for curve in curves for rank in curve.values[kind].columns}
        rank_axis(axes, ranks)
        axes.set_title(_SPLIT_NAMES[kind], fontsize=10)
    figure.axes[0].set_ylabel(title(metric.name))
    # lines are handed over, since a label that begins with _ would hide its line
    figure.axes[0].legend(figure.axes[0].lines, [curve.label for curve in curves], loc="best")
    return figure
