"""The table of learning rates: each curve's chosen rate, its optimum, and the ratio to full fine-tuning's."""

from typing import Any

from experiments.report.groups import BACKBONE, Curve
from experiments.report.optimum import Optimum, Ratio, curve_optimum, rate_ratio
from experiments.report.statistics import median_and_deviation
from experiments.report.tables import Row, mean, metric_of, spread, text


def rate_table(curves: list[Curve]) -> list[Row]:
    """One row per curve: chosen rate, optimum, ratio to full fine-tuning, test figure and update norm at the choice."""
    rows = []
    for curve in curves:
        full = _reference(curve, curves)
        metric = metric_of([curve.chosen])
        optimum = curve_optimum(curve.scores())
        name = metric["name"] if metric else ""
        row = {
            "Curve": curve.label,
            "Rates": str(len(curve.groups)),
            "Chosen rate (validation)": text(optimum.chosen),
            "Optimum (parabola)": _told(curve, optimum),
            "Validation there": spread(curve.chosen.values("best"), name),
            "Test there": spread(curve.chosen.values("test"), name),
            "Update norm there": text(mean([_norm(record.results) for record in curve.chosen.records])),
        }
        if any(other.is_full for other in curves):
            row |= _ratio_cells(curve, full, "best")
        rows.append(row)
    return rows


def loss_table(curves: list[Curve]) -> list[Row]:
    """The same by validation loss, where the metric isn't one: smooth where an accuracy is flat."""
    rows = []
    for curve in curves:
        metric = metric_of([curve.chosen])
        optimum = curve_optimum(curve.scores("loss"))
        if metric is None or metric["name"] == "perplexity" or optimum.chosen is None:
            continue
        median, deviation = median_and_deviation(list(curve.groups[optimum.chosen].values("loss").values()))
        row = {
            "Curve": curve.label,
            "Rate of the lowest loss": text(optimum.chosen),
            "Loss there": f"{median:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}"),
            "Optimum (parabola)": _told(curve, optimum),
        }
        if any(other.is_full for other in curves):
            row |= _ratio_cells(curve, _reference(curve, curves), "loss")
        rows.append(row)
    return rows


def _reference(curve: Curve, curves: list[Curve]) -> Curve | None:
    """The first full fine-tuning that was measured alike, of the same backbone."""
    alike = (other for other in curves if other.is_full and other.chosen.measure == curve.chosen.measure)
    return next((other for other in alike if other.chosen.setting(BACKBONE) == curve.chosen.setting(BACKBONE)), None)


def _told(curve: Curve, optimum: Optimum) -> str:
    return optimum_text(optimum) + _collapse_beside(curve, optimum) + _uneven(curve)


def _ratio_cells(curve: Curve, full: Curve | None, figure: str) -> Row:
    ratio = None if full is None or curve is full else rate_ratio(curve.scores(figure), full.scores(figure))
    if ratio is None:
        told = "1 (reference)" if curve is full else "unknown (no full fine-tuning on the same data and backbone)"
    else:
        told = ratio_text(ratio)
    by_seed = ", ".join(f"{value:.2g}" for value in ratio.by_seed) if ratio and len(ratio.by_seed) > 1 else ""
    student = f"[{ratio.student[0]:.2g}, {ratio.student[1]:.2g}]" if ratio and ratio.student else ""
    return {"Optimum / full fine-tuning's": told, "Ratio of each seed": by_seed, "Ratio, 95 % Student": student}


def _uneven(curve: Curve) -> str:
    """A warning where a rate lacks seeds that another has: their means are over different seeds then."""
    seeds = {frozenset(by_seed) for by_seed in curve.scores().values()}
    return "" if len(seeds) < 2 else ", from means over different seeds: some rates lack some"


def _collapse_beside(curve: Curve, optimum: Optimum) -> str:
    """A warning where the parabola leans on a collapsed rate: its vertex is the middle of the step before it then."""
    rates = sorted(curve.groups)
    if optimum.place != "inside" or optimum.chosen not in rates:
        return ""
    place = rates.index(optimum.chosen)
    beside = [record.status for rate in rates[max(place - 1, 0) : place + 2] for record in curve.groups[rate].records]
    return ", set by the grid: a rate beside the chosen one collapsed" if "collapsed" in beside else ""


def optimum_text(optimum: Optimum) -> str:
    """The best rate with its interval, or why there is none."""
    if optimum.place in ("lower edge", "upper edge"):
        return f"at the {optimum.place} of the grid ({optimum.chosen:g}): the true one may lie outside"
    if optimum.place != "inside" or optimum.rate is None:
        return f"none: {optimum.place}"
    interval = "" if optimum.interval is None else f" [{optimum.interval[0]:.2g}, {optimum.interval[1]:.2g}]"
    edges = f", at the grid's edge in {optimum.edge_share:.0%} of resamples" if optimum.edge_share else ""
    return f"{optimum.rate:.2g}{interval}{edges}"


def ratio_text(ratio: Ratio) -> str:
    """A ratio with its interval, or why there is none."""
    if ratio.value is None:
        return f"unknown ({ratio.reason})"
    interval = "" if ratio.interval is None else f" [{ratio.interval[0]:.2g}, {ratio.interval[1]:.2g}]"
    return f"{ratio.value:.2g}×{interval}"


def _norm(results: dict[str, Any] | None) -> float | None:
    norms = (results or {}).get("update_norms") or {}
    return (norms.get("final") or {}).get("total")
