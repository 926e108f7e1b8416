"""Figures of the metric against the learning rate, and of training over time."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from experiments.metrics import scale, title
from experiments.report.drawing import COLORS, INK, MARKERS, draw_band, legend_below, panels
from experiments.report.groups import Curve, Group
from experiments.report.optimum import curve_optimum
from experiments.report.rate_law import Law
from experiments.report.record import Record
from experiments.report.tables import metric_of
from experiments.results import Metric

MOST_LINES = 16  # each colour twice: solid, dashed
_MOST_TICKS = 16
_OFF_SCALE = 3.0  # times the best value: a perplexity of thousands would make one line of all others


def rate_curves(curves: list[Curve], figure_name: str, rate: str) -> Figure | None:
    """Metric against learning rate: a line per curve (mean over seeds), a band from the lowest to the highest seed.

    Args:
        curves: full fine-tuning is drawn dashed, in the text's colour.
        figure_name: best (validation), test, or loss (validation).
        rate: the swept setting.
    """
    metric = metric_of([group for curve in curves for group in curve.groups.values()])
    shown = {curve: scores for curve in curves if len((scores := curve.scores(figure_name)).columns) > 1}
    if metric is None or not shown:
        return None
    lower_is_better = figure_name == "loss" or not metric.higher_is_better
    factor = (-1 if lower_is_better else 1) * (1.0 if figure_name == "loss" else scale(metric.name))
    figure, (axes,) = panels(1, 7.2, 4.8)
    lines: list[Any] = []
    for place, (curve, scores) in enumerate(shown.items()):
        color, line = (INK, "--") if curve.is_full else (COLORS[place % len(COLORS)], "-")
        look = {"marker": MARKERS[place % len(MARKERS)], "color": color, "linestyle": line}
        lines.append(draw_band(axes, factor * scores, **look))
        optimum = curve_optimum(scores)
        if figure_name != "test" and optimum.place == "inside" and optimum.rate is not None:
            axes.axvline(optimum.rate, color=color, ls=":", lw=1)
    if lower_is_better:
        _keep_in_sight(axes, lines)
    _rate_axis(axes, sorted({rate for scores in shown.values() for rate in scores.columns}))
    axes.set_xlabel(rate.rpartition(".")[2].replace("_", " "))
    axes.set_ylabel(_axis_title(figure_name, metric))
    legend_below(figure, lines, [curve.label for curve in shown])
    return figure


def _rate_axis(axes: Any, rates: list[float]) -> None:
    axes.set_xscale("log")
    if len(rates) <= _MOST_TICKS:
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates], rotation=0 if len(rates) < 9 else 45)
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _axis_title(figure_name: str, metric: Metric) -> str:
    if figure_name == "loss":
        return "validation loss"
    return ("test " if figure_name == "test" else "validation ") + title(metric.name)


def _keep_in_sight(axes: Any, lines: list[Any]) -> None:
    """Ends the vertical axis above the values that can be told apart, and writes those beyond its end beside it."""
    best = min(float(min(line.get_ydata())) for line in lines)
    beyond = [
        (line, rate, value)
        for line in lines
        for rate, value in zip(line.get_xdata(), line.get_ydata(), strict=True)
        if value > _OFF_SCALE * best
    ]
    if not beyond:
        return
    axes.set_ylim(0.9 * best, _OFF_SCALE * best)
    for place, (line, rate, value) in enumerate(beyond):
        below = (0, -4 - 12 * place)  # points
        axes.annotate(
            f"{value:,.0f} ↑" if value >= 100 else f"{value:.3g} ↑",
            (rate, _OFF_SCALE * best),
            xytext=below,
            textcoords="offset points",
            ha="center",
            va="top",
            color=line.get_color(),
        )


def law_figure(law: Law) -> Figure:
    """Best rates against the rank with one standard error, and the law, a colour for each study and alpha rule."""
    figure, (axes,) = panels(1, 7.2, 4.8)
    lines: dict[str, Any] = {}
    points = pd.DataFrame([{**vars(point), "alpha": point.alpha, "law": law.predict(point)[0]} for point in law.points])
    alone = points.groupby(["study", "alpha"])["rank"].transform("size") == 1  # then its scale may be what stays
    told = {name: f"{name} " + points[name].map("{:g}".format) for name in ("scale", "alpha")}
    points["rule"] = np.where(alone, told["scale"], told["alpha"])
    for number, ((study, rule), found) in enumerate(points.sort_values("rank").groupby(["study", "rule"])):
        color, rates, factors = COLORS[number % len(COLORS)], 10 ** found["log_rate"], 10 ** found["error"].fillna(0)
        ends = [rates - rates / factors, rates * factors - rates]
        look = {"fmt": MARKERS[number % len(MARKERS)], "color": color, "capsize": 3}
        lines[f"{study}, {rule}"] = axes.errorbar(found["rank"], rates, ends, **look)
        axes.plot(found["rank"], 10 ** found["law"], color=color, lw=1)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ticks = sorted(set(points["rank"]))
    axes.set_xticks(ticks, [f"{rank:g}" for rank in ticks])
    axes.set_xlabel("rank")
    axes.set_ylabel("best learning rate")
    legend_below(figure, list(lines.values()), list(lines))
    return figure


def training_curves(groups: list[Group]) -> Figure | None:
    """Training loss, validation loss and validation metric over optimizer steps, one thin line per run."""
    metric = metric_of(groups)
    if metric is None:
        return None
    shown_figures = [
        ("train/epoch_loss", "training loss", 1.0),
        ("val/loss", "validation loss", 1.0),
        (f"val/{metric.name}", title(metric.name), scale(metric.name)),
    ]
    figure, all_axes = panels(3, 9.6, 3.6)
    shown = sorted(groups, key=lambda group: -group.score)[:MOST_LINES]
    lines: dict[str, Any] = {}
    for axes, (name, label, factor) in zip(all_axes, shown_figures, strict=True):
        for number, group in enumerate(shown):
            for record in group.records:
                line = _line(axes, record, name, factor, COLORS[number % len(COLORS)], number)
                if line is not None:
                    lines.setdefault(group.label, line)
        axes.set_xlabel("step")
        axes.set_title(label, fontsize=10)
    if not lines:
        return None
    legend_below(figure, list(lines.values()), list(lines))
    return figure


def _line(axes: Any, record: Record, name: str, factor: float, color: str, number: int) -> Any:
    values = record.metrics.get(name)
    if values is None:
        return None
    # the marker at a line's end tells settings apart without colours
    look: dict[str, Any] = {"marker": MARKERS[number % len(MARKERS)], "ms": 5, "markevery": [len(values) - 1]}
    style = "-" if number < len(COLORS) else "--"
    return axes.plot(values.index, factor * values.to_numpy(), style, color=color, lw=1.2, **look)[0]
