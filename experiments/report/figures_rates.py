"""Figures of the metric against learning rate, rank and time."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.report import drawing
from experiments.report.cells import make_table, scale, spread, title
from experiments.report.groups import RANK, RATE, Curve, Group, alike
from experiments.report.optimum import curve_optimum
from experiments.report.rate_law import Law
from experiments.report.record import UNSOUND, Record
from experiments.report.tables import metric_of

MOST_LINES = 16  # each colour twice: solid, dashed
_MOST_TICKS = 16
_SPLITS = {"best": "val", "test": "test"}
_SPLIT_NAMES = {"best": "validation", "test": "test"}
_OFF_SCALE = 3.0  # times the best value: a perplexity of thousands would make one line of all others

TrainingLine = tuple[int, Group, Record, pd.Series]  # number of its group; values by step or by epoch
RankCurve = tuple[str, dict[str, pd.DataFrame]]  # a label; best or test -> a row per seed, a column per rising rank


def rate_curves(curves: list[Curve], figure_name: str, rate: str) -> Figure | None:
    """Metric against learning rate: a line per curve (mean over seeds), a band from the lowest to the highest seed.

    `figure_name` is best, test, or loss (validation).
    """
    metric = metric_of([group for curve in curves for group in curve.groups.values()])
    shown = {curve: scores for curve in curves if len((scores := curve.scores(figure_name)).columns) > 1}
    if metric is None or not shown:
        return None
    lower_is_better = figure_name == "loss" or not metric.higher_is_better
    factor = (-1 if lower_is_better else 1) * (1.0 if figure_name == "loss" else scale(metric.name))
    figure, (axes,) = drawing.panels(1, 7.2, 4.8)
    lines: dict[str, Line2D] = {}
    for curve, scores in shown.items():
        drawn = drawing.look(curves.index(curve), curve.is_full)
        lines[curve.label] = drawing.draw_band(axes, factor * scores, **drawn)
        if figure_name != "test" and (best := curve_optimum(scores).inside) is not None:
            axes.axvline(best, color=drawn["color"], ls=":", lw=1)
    runs = [value for curve in shown for group in curve.groups.values() for value in group.sound_values(figure_name)]
    sound = abs(factor) * np.asarray(runs)
    shown_values = sound[sound <= _OFF_SCALE * sound.min(initial=np.inf)] if lower_is_better else sound
    drawing.keep_in_sight(axes, "y", shown_values, lines.values())
    rates = sorted({rate for scores in shown.values() for rate in scores.columns})
    axes.set_xscale("log")
    drawing.rate_ticks(axes.xaxis, rates if len(rates) <= _MOST_TICKS else ())
    split = "test" if figure_name == "test" else "validation"
    told = f"{split} {'loss' if figure_name == 'loss' else title(metric.name)}"
    axes.set(xlabel=rate.rpartition(".")[2].replace("_", " "), ylabel=told)
    drawing.legend_below(figure, lines)
    return figure


def law_figure(law: Law) -> Figure:
    """Best rates against the rank with one standard error, and the law, a colour for each study and alpha rule."""
    figure, (axes,) = drawing.panels(1, 7.2, 4.8)
    lines: dict[str, drawing.Drawn] = {}
    points = pd.DataFrame([{**vars(point), "alpha": point.alpha, "law": law.predict(point)[0]} for point in law.points])
    alone = points.groupby(["study", "alpha"])["rank"].transform("size") == 1  # then its scale may be what stays
    told = {name: f"{name} " + points[name].map("{:g}".format) for name in ("scale", "alpha")}
    points["rule"] = np.where(alone, told["scale"], told["alpha"])
    for number, ((study, rule), found) in enumerate(points.sort_values("rank").groupby(["study", "rule"])):
        place, rates, factors = number % len(drawing.COLORS), 10 ** found["log_rate"], 10 ** found["error"].fillna(0)
        color, marker = drawing.COLORS[place], drawing.MARKERS[place]
        ends = [rates - rates / factors, rates * factors - rates]
        lines[f"{study}, {rule}"] = axes.errorbar(found["rank"], rates, ends, fmt=marker, color=color, capsize=3)
        axes.plot(found["rank"], 10 ** found["law"], color=color, lw=1)
    drawing.rank_axis(axes, points["rank"])
    axes.set(yscale="log", ylabel="best learning rate")
    drawing.rate_ticks(axes.yaxis)
    drawing.legend_below(figure, lines)
    return figure


def training_values(groups: list[Group]) -> dict[str, list[TrainingLine]]:
    """What each panel of the training figure draws, by its title; an empty list where no run has kept it.

    Over optimizer steps; over epochs where a file of trials keeps no steps of one of the runs. The index is named so.
    """
    metric = metric_of(groups)
    if metric is None:
        return {}
    shown = sorted(groups, key=lambda group: -group.score)[:MOST_LINES]
    numbered = [(number, group) for number, group in enumerate(groups) if group in shown]
    runs = [(number, group, record) for number, group in numbered for record in group.records]
    by_step = all(record.metrics or record.results is None for *_, record in runs)
    unit = "step" if by_step else "epoch"
    names = {"training loss": "train/epoch_loss", "validation loss": "val/loss"}
    drawn: dict[str, list[TrainingLine]] = {}
    for told, name in {**names, title(metric.name): f"val/{metric.name}"}.items():
        factor = 1.0 if told in names else scale(metric.name)
        found = [(run, run[-1].metrics.get(name) if by_step else run[-1].by_epoch(name)) for run in runs]
        kept = [(run, values.rename_axis(unit)) for run, values in found if values is not None and not values.empty]
        drawn[told] = [(*run, factor * values) for run, values in kept]
    return drawn


def training_curves(groups: list[Group]) -> Figure | None:
    """Training loss, validation loss and validation metric, as far as runs have kept them.

    A line per setting, the median over its runs, and one thin line per run where there are several.
    """
    kept = {told: lines for told, lines in training_values(groups).items() if lines}
    if not kept:
        return None
    figure, all_axes = drawing.panels(len(kept), 3.2 * len(kept), 3.6)
    legend: dict[str, Line2D] = {}
    for axes, (told, lines) in zip(all_axes, kept.items(), strict=True):
        fallen, sound = [], []
        for number, group in dict.fromkeys((number, group) for number, group, *_ in lines):
            drawn, runs = drawing.look(number, group.is_full), [line for line in lines if line[1] is group]
            for *_, record, values in runs:
                if len(runs) > 1:
                    axes.plot(values.index, values.to_numpy(), color=drawn["color"], lw=0.6, alpha=0.35)
                if record.status in UNSOUND:
                    fallen += axes.plot(values.index[-1], values.iloc[-1], " ", color=drawn["color"])
                else:
                    sound += list(values)
            middle = pd.concat([values for *_, values in runs]).groupby(level=0).median()
            drawn |= {"ms": 5, "markevery": [len(middle) - 1], "lw": 1.4}  # a marker at the end alone
            (legend[group.label],) = axes.plot(middle.index, middle.to_numpy(), **drawn)
        drawing.keep_in_sight(axes, "y", sound, fallen)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        axes.set(xlabel=lines[0][-1].index.name, title=told)
    if len(legend) > 1:
        drawing.legend_below(figure, legend)
    return figure


def rank_curves(groups: list[Group]) -> list[RankCurve]:
    """A curve for each nested group, and one for fixed-rank groups that differ in the rank alone (learning rate aside).

    Where rates were swept, there is one group for each rank, that at its chosen rate.
    """
    nested = [group for group in groups if any(results.rank_curve for results in group.results)]
    curves: list[RankCurve] = [
        (group.label, {kind: nested_values(group, kind) for kind in _SPLITS}) for group in nested
    ]
    fixed = [group for group in groups if isinstance(group.setting(RANK), int)]
    for label, found in alike(fixed, (RANK, RATE)):
        if len(found) > 1:
            found.sort(key=lambda group: int(group.setting(RANK)))
            values = {kind: pd.DataFrame({one.setting(RANK): one.values(kind) for one in found}) for kind in _SPLITS}
            curves.append((label, values))
    return curves


def nested_values(group: Group, kind: str) -> pd.DataFrame:
    """Figures of nested runs, best or test: a row per seed, a column per rank."""
    found = [
        (results.seed or 0, int(rank), entry.get(f"{_SPLITS[kind]}/{results.metric.name}"))
        for results in group.results
        for entry in results.rank_curve or []
        if (rank := entry.get("rank")) is not None
    ]
    table = pd.DataFrame(found, columns=["seed", "rank", "figure"]).astype({"figure": float})
    return table.pivot_table(index="seed", columns="rank", values="figure")


def rank_curve_table(groups: list[Group]) -> pd.DataFrame:
    """One row per rank, and for each curve a column of validation and one of test figures; empty without a curve."""
    curves, metric = rank_curves(groups), metric_of(groups)
    if metric is None:
        return pd.DataFrame()
    ranks = sorted({rank for _, values in curves for rank in values["best"].columns})
    tables = {f"{label}, {_SPLIT_NAMES[kind]}": values[kind] for kind in _SPLITS for label, values in curves}
    columns = {
        title: lambda rank, table=table: spread(table.get(rank, pd.Series(dtype=float)).dropna(), metric.name)
        for title, table in tables.items()
        if table.notna().any(axis=None)
    }
    return make_table(ranks, {"Rank": str, **columns})


def rank_curve_figure(groups: list[Group]) -> Figure | None:
    """A panel for validation and one for test: a line per curve (mean over seeds), a band from lowest to highest."""
    curves, metric = rank_curves(groups), metric_of(groups)
    kinds = [kind for kind in _SPLITS if any(values[kind].notna().any(axis=None) for _, values in curves)]
    if metric is None or not kinds:
        return None
    figure, all_axes = drawing.panels(len(kinds), 4.8 * len(kinds), 3.6)
    for axes, kind in zip(all_axes, kinds, strict=True):
        for number, (label, values) in enumerate(curves):
            shown = scale(metric.name) * values[kind].dropna(axis="columns", how="all")
            drawing.draw_band(axes, shown, label=label, **drawing.look(number))
        drawing.rank_axis(axes, (rank for _, values in curves for rank in values[kind].columns))
        axes.set_title(_SPLIT_NAMES[kind], fontsize=10)
    figure.axes[0].set_ylabel(title(metric.name))
    # lines are handed over, since a label that begins with _ would hide its line
    figure.axes[0].legend(figure.axes[0].lines, [label for label, _ in curves], loc="best")
    return figure
