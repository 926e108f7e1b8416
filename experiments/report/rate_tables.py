"""The tables of learning rates: each curve's chosen rate, its optimum, and the ratio to full fine-tuning's."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pandas as pd

from experiments.report.cells import TOO_FEW, make_table, mean, ratio, spread, text
from experiments.report.groups import BACKBONE, Curve, Group
from experiments.report.optimum import Optimum, Ratio, curve_optimum, rate_ratio
from experiments.report.statistics import FEWEST_SEEDS, Interval

_WIDEST = 100.0  # times: an interval of more says nothing of a rate


@dataclass(frozen=True)
class ChosenRate:
    """Where a curve is best by a figure, and its ratio to full fine-tuning."""

    curve: Curve
    full: Curve | None  # the first full fine-tuning that was measured alike, of the same backbone; None without one
    figure: str  # best (the validation metric) or loss
    optimum: Optimum
    ratio: Ratio | None  # None for full fine-tuning itself, and without one

    @property
    def group(self) -> Group:
        """The curve's group at the chosen rate; the first one where no rate has a figure."""
        groups = self.curve.groups
        return next(iter(groups.values())) if self.optimum.chosen is None else groups[self.optimum.chosen]

    @property
    def update_norm(self) -> float | None:
        """Mean norm of the update at the chosen rate, where runs measured it."""
        return mean(norms.final.total for r in self.group.results if (norms := r.update_norms) and norms.final)


def choose_rates(curves: list[Curve], figure: str = "best") -> list[ChosenRate]:
    found = []
    for curve in curves:
        alike = [one for one in curves if one.is_full and one.chosen.measure == curve.chosen.measure]
        full = [one for one in alike if one.chosen.setting(BACKBONE) == curve.chosen.setting(BACKBONE)]
        found.append(_choose(curve, full[0] if full else None, figure))
    return found


@cache  # seeds are resampled a thousand times, and page, answer and figures ask
def _choose(curve: Curve, full: Curve | None, figure: str) -> ChosenRate:
    scores = curve.scores(figure)
    ratio = None if full is None or full is curve else rate_ratio(scores, full.scores(figure))
    return ChosenRate(curve, full, figure, curve_optimum(scores), ratio)


def rate_table(curves: list[Curve], bootstrap: bool = False) -> pd.DataFrame:
    """One row per curve: chosen rate, optimum, ratio to full fine-tuning, test figure and update norm at the choice."""
    return make_table(
        choose_rates(curves),
        {
            "Curve": lambda row: row.curve.label,
            "Rates": lambda row: str(len(row.curve.groups)),
            "Chosen rate (validation)": lambda row: text(row.optimum.chosen),
            "Optimum (parabola)": _told,
            "Validation there": lambda row: row.group.spread("best"),
            "Test there": lambda row: row.group.spread("test"),
            "Update norm there": lambda row: text(row.update_norm),
            **_ratio_columns(curves, bootstrap),
        },
    )


def loss_table(curves: list[Curve], bootstrap: bool = False) -> pd.DataFrame:
    """The same by validation loss, where the metric isn't one: smooth where an accuracy is flat."""
    measured = [curve for curve in curves if curve.chosen.metric and curve.chosen.metric.name != "perplexity"]
    return make_table(
        [row for row in choose_rates(measured, "loss") if row.optimum.chosen is not None],
        {
            "Curve": lambda row: row.curve.label,
            "Rate of the lowest loss": lambda row: text(row.optimum.chosen),
            "Loss there": lambda row: spread(row.group.values("loss"), "", digits=4),
            "Optimum (parabola)": _told,
            **_ratio_columns(curves, bootstrap),
        },
    )


def _ratio_columns(curves: list[Curve], bootstrap: bool) -> dict[str, Callable[[ChosenRate], str]]:
    if not any(curve.is_full for curve in curves):
        return {}
    resampled = {"Ratio, 95 % bootstrap": lambda row: _interval(row.ratio.bootstrap) if row.ratio else ""}
    return {
        "Optimum / full fine-tuning's": _ratio,
        "Ratio of each seed": _ratio_by_seed,
        **(resampled if bootstrap else {}),
    }


def _ratio(row: ChosenRate) -> str:
    if row.curve is row.full:
        return "1 (reference)"
    if row.ratio is None:
        return "unknown (no full fine-tuning on the same data and backbone)"
    if row.ratio.value is None:
        return f"unknown ({row.ratio.reason})"
    return f"{ratio(row.ratio.value)}× {_interval(row.ratio.student, len(row.ratio.by_seed))}".strip()


def _ratio_by_seed(row: ChosenRate) -> str:
    ratios = row.ratio.by_seed if row.ratio else ()
    return ", ".join(map(ratio, ratios)) if len(ratios) > 1 else ""


def _interval(interval: Interval | None, seeds: int = FEWEST_SEEDS) -> str:
    """An interval of rates or their ratios in brackets, where it tells anything; nothing for None."""
    if interval is None:
        return ""
    if seeds < FEWEST_SEEDS or interval[1] > _WIDEST * interval[0]:
        return f"({TOO_FEW})"
    return f"[{ratio(interval[0])}, {ratio(interval[1])}]"


def _told(row: ChosenRate) -> str:
    """The best rate with its interval and what weakens it, or why there is none."""
    seeds = len(row.curve.scores(row.figure).dropna())
    # where a rate lacks seeds that another has, their means are over different seeds
    is_uneven = row.curve.scores().isna().any(axis=None)
    uneven = ", from means over different seeds: some rates lack some" if is_uneven else ""
    return _optimum(row.optimum, seeds) + _collapse_beside(row) + uneven


def _optimum(optimum: Optimum, seeds: int) -> str:
    if optimum.place in ("lower edge", "upper edge"):
        return f"at the {optimum.place} of the grid ({optimum.chosen:g}): the true one may lie outside"
    if optimum.inside is None:
        return f"none: {optimum.place}"
    edges = f", at the grid's edge in {optimum.edge_share:.0%} of resamples" if optimum.edge_share else ""
    return f"{optimum.inside:.2g} {_interval(optimum.interval, seeds)}".strip() + edges


def _collapse_beside(row: ChosenRate) -> str:
    """A warning where the parabola leans on a collapsed rate: its vertex is the middle of the step before it then."""
    rates, groups = list(row.curve.groups), list(row.curve.groups.values())
    if row.optimum.place != "inside" or row.optimum.chosen not in rates:
        return ""
    place = rates.index(row.optimum.chosen)
    beside = {status for group in groups[max(place - 1, 0) : place + 2] for status in group.statuses}
    return ", set by the grid: a rate beside the chosen one collapsed" if "collapsed" in beside else ""
