"""A law for the best learning rate: log rate against log rank, log scale and log width, and what follows from it.

The optima of a study's curves are fitted with their own uncertainty and a spread of the curves around the law (random
effects: Paule and Mandel 1982), one intercept for each study. Intervals are Student's (Knapp and Hartung 2003).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import optimize, stats

from common.errors import InputError
from experiments.report.cells import make_table, span
from experiments.report.groups import Curve, make_curves, make_groups, swept_rate
from experiments.report.optimum import curve_optimum, parabola
from experiments.report.record import Record
from experiments.report.statistics import LEVEL, Array, Interval

_ALPHA = 32.0  # where a file of trials doesn't tell: the constant of this project's configs
REGIMES = {"rank-invariant": 0.0, "proportional to 1/rank": -1.0}  # slopes of log rate against log rank


@dataclass(frozen=True)
class Point:
    """The optimum of one curve."""

    study: str  # curves of one study share data, backbone and length of training
    label: str
    rank: float  # of LoRA; 0 in full fine-tuning
    scale: float  # s of the update s·B·A
    log_rate: float  # log10 of the best rate
    error: float  # its standard error; NaN with single seeds
    width: float | None = None  # the backbone's hidden size; None where nobody tells
    curvature: float = float("nan")  # by how much the score falls one decade from the optimum

    @property
    def alpha(self) -> float:
        return self.scale * self.rank


def points_of(records: Iterable[Record]) -> list[Point]:
    """The optima that lie inside their grids: by perplexity, or else by validation loss; study for study."""
    studies: dict[str, list[Record]] = {}
    for record in records:
        if (results := record.results) is not None:
            data = results.data
            name = f"{data.name}, {data.train_rows:,} rows, {results.backbone.removeprefix('package:')}"
            studies.setdefault(name, []).append(record)
    found = []
    for study, ours in studies.items():
        curves = make_curves(make_groups(ours), swept_rate(ours))
        found += [point for curve in curves if (point := _point(study, curve)) is not None]
    return found


def _point(study: str, curve: Curve) -> Point | None:
    metric = curve.chosen.metric
    scores = curve.scores("best" if metric is not None and metric.name == "perplexity" else "loss")
    optimum = curve_optimum(scores)
    if optimum.inside is None or not (curve.is_full or curve.rank):
        return None
    places = np.log10(scores.columns.to_numpy(dtype=float))
    return Point(
        study=study,
        label=curve.label,
        rank=0.0 if curve.is_full else curve.rank,
        scale=1.0 if curve.is_full else _scale(curve),
        log_rate=float(np.log10(optimum.inside)),
        error=optimum.error,
        width=curve.chosen.results[0].width,
        curvature=parabola(places, scores.mean().to_numpy())[1],
    )


def _scale(curve: Curve) -> float:
    told = curve.chosen.setting("model.adapter.lora_alpha")
    multiple = curve.chosen.setting("model.adapter.alpha_per_rank")
    alpha = float(multiple) * curve.rank if isinstance(multiple, int | float) else told
    alpha = float(alpha) if isinstance(alpha, int | float) else _ALPHA
    rule = curve.chosen.setting("model.adapter.scaling")
    return alpha / {"constant": 1.0, "alpha_over_sqrt_rank": curve.rank**0.5}.get(str(rule), curve.rank)


@dataclass(frozen=True)
class LinearFit:
    """A weighted linear fit, with the points' deviation from it beyond their own errors (`spread`)."""

    coefficients: Array
    covariance: Array
    freedom: int
    spread: float

    def at(self, weights: Array, extra: float = 0.0) -> tuple[float, Interval]:
        """A combination of coefficients with its 95 % interval; `extra` is a variance that comes on top."""
        value = float(weights @ self.coefficients)
        reach = stats.t.ppf((1 + LEVEL) / 2, self.freedom) * np.sqrt(weights @ self.covariance @ weights + extra)
        return value, (value - float(reach), value + float(reach))


def weighted_fit(design: Array, values: Array, errors: Array) -> LinearFit:
    """Least squares with each value's error and a common spread, which is as large as the residuals ask for.

    Args:
        design: (points, coefficients), of full rank and with fewer columns than rows.
        values: (points,)
        errors: (points,); NaN, where nobody knows it, counts as the median of the others.
    """
    freedom = len(values) - design.shape[1]
    known = np.where(np.isnan(errors), np.nanmedian(errors) if np.isfinite(errors).any() else 0.0, errors) ** 2

    def solved(spread: float) -> tuple[Array, Array, float]:
        weights = 1 / np.maximum(known + spread, 1e-9)
        covariance: Array = np.linalg.inv(design.T @ (weights[:, None] * design)).astype(float)
        coefficients = covariance @ design.T @ (weights * values)
        return coefficients, covariance, float((weights * (values - design @ coefficients) ** 2).sum())

    spread = 0.0
    if solved(0.0)[2] > freedom:
        spread = float(optimize.brentq(lambda value: solved(value)[2] - freedom, 0.0, 1e3))
    coefficients, covariance, left = solved(spread)
    return LinearFit(coefficients, covariance * max(left / freedom, 1.0), freedom, float(np.sqrt(spread)))


@dataclass(frozen=True)
class Law:
    """The fit to LoRA's optima: an intercept for each study, and rank, scale, width, as far as the points tell."""

    points: list[Point]
    studies: list[str]
    terms: list[str]
    fit: LinearFit

    def slope(self, **by: float) -> tuple[float, Interval]:
        """Slope of log rate along a direction, such as rank=1, scale=-1 (alpha stays as it is), with its interval."""
        return self.fit.at(np.array([0.0] * len(self.studies) + [by.get(term, 0.0) for term in self.terms]))

    def predict(self, point: Point) -> tuple[float, Interval]:
        """log10 of the best rate of another curve of one of the studies, with its prediction interval."""
        return self.fit.at(_row(point, self.studies, self.terms), extra=self.fit.spread**2)


def _row(point: Point, studies: list[str], terms: list[str]) -> Array:
    values = {"rank": point.rank, "scale": point.scale, "width": point.width or 1.0}
    return np.array([float(study == point.study) for study in studies] + [np.log10(values[term]) for term in terms])


def fit_law(points: list[Point]) -> Law:
    """The law of LoRA's optima; full fine-tuning's are left aside.

    `InputError`: fewer than three ranks, or no more curves than coefficients.
    """
    lora = _across_widths(points)
    ranks = sorted({point.rank for point in lora})
    if len(ranks) < 3:
        told = ", ".join(f"{rank:g}" for rank in ranks) or "none"
        raise InputError(
            f"ranks with an optimum inside their grid of rates are {told}; a law takes 3 or more. Sweep another rank, "
            "widen the grids whose optimum lies at an edge, give more sweeps, or leave --law out."
        )
    return _fitted(lora)


def _across_widths(points: list[Point]) -> list[Point]:
    """LoRA's points; where all tell a width and these differ, it takes the place of the backbone's own intercept."""
    lora = [point for point in points if point.rank > 0]
    if len({point.width for point in lora}) < 2 or any(point.width is None for point in lora):
        return lora
    return [replace(point, study=point.study.rpartition(", ")[0]) for point in lora]


def _fitted(lora: list[Point]) -> Law:
    studies = sorted({point.study for point in lora})
    terms: list[str] = []
    whole = len(studies)
    for term in ("rank", "scale", "width"):
        design = np.array([_row(point, studies, [*terms, term]) for point in lora])
        if np.linalg.matrix_rank(design, tol=1e-6) == whole + 1 < len(lora):
            terms, whole = [*terms, term], whole + 1
    if "rank" not in terms:
        raise InputError(
            f"{len(lora)} optima of {len(studies)} studies don't tell a slope over ranks; allowed: more curves than "
            "studies. Give sweeps with several ranks each."
        )
    design = np.array([_row(point, studies, terms) for point in lora])
    values, errors = (np.array([getattr(point, name) for point in lora]) for name in ("log_rate", "error"))
    return Law(lora, studies, terms, weighted_fit(design, values, errors))


def regime(slope: tuple[float, Interval]) -> str:
    """Which regime of the literature a slope agrees with: one, neither, or more than one."""
    held = [name for name, value in REGIMES.items() if slope[1][0] <= value <= slope[1][1]]
    return held[0] if len(held) == 1 else "neither" if not held else "undecided: both"


def law_table(law: Law) -> pd.DataFrame:
    """The slopes over ranks, with scale or alpha held, each with the regime that it agrees with."""
    rows = {"rank": law.slope(rank=1)}
    if "scale" in law.terms:
        rows = {
            "rank, alpha as it is": law.slope(rank=1, scale=-1),
            "rank, scale as it is": law.slope(rank=1),
            "scale, rank as it is": law.slope(scale=1),
        }
    if "width" in law.terms:
        rows["width"] = law.slope(width=1)
    return make_table(
        rows.items(),
        {
            "log rate against log": lambda row: row[0],
            "Slope": lambda row: f"{row[1][0]:+.2f} {span(row[1][1])}",
            "Regime": lambda row: regime(row[1]) if row[0].startswith("rank") else "",
            "Curves": lambda row: str(len(law.points)),
            "Spread (decades)": lambda row: f"{law.fit.spread:.2f}",
        },
    )


def left_out(points: list[Point]) -> pd.DataFrame:
    """Each rank's optima as a law of the other ranks predicts them, and by what factor it misses."""
    rows = []
    points = _across_widths(points)
    for rank in sorted({point.rank for point in points}):
        others = [point for point in points if point.rank != rank]
        try:
            law = _fitted(others)
        except InputError:  # too few are left
            continue
        rows += [(one, law.predict(one)) for one in points if one.rank == rank and one.study in law.studies]
    return make_table(
        rows,
        {
            "Left out": lambda row: f"rank {row[0].rank:g}: {row[0].label}",
            "Study": lambda row: row[0].study,
            "Predicted": lambda row: f"{10 ** row[1][0]:.2g} {_rates(row[1][1])}",
            "Found": lambda row: f"{10 ** row[0].log_rate:.2g}",
            "Off by": lambda row: f"{10 ** abs(row[1][0] - row[0].log_rate):.2f}×",
        },
    )


def _rates(logs: Interval) -> str:
    """An interval of rates; what spans many decades, as it does from two ranks, bounds nothing."""
    return f"[{10 ** logs[0]:.2g}, {10 ** logs[1]:.2g}]" if logs[1] - logs[0] < 4 else "(unbounded)"
