"""Full fine-tuning's best rate, forecast from LoRA's: the gap between the two is learned from other studies."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.report.cells import make_table
from experiments.report.rate_law import LinearFit, Point, weighted_fit
from experiments.report.statistics import Array, Interval

# "LoRA Without Regret" (Schulman and Thinking Machines Lab 2025): ten times, at alpha 32 over rank, whatever the rank.
_LITERATURE = (1.0, 32.0)  # decades, alpha
# Rates come from grids of about a factor of 3: an optimum lies uniformly within a step, and a gap has two of them.
_STUDY_SPREAD = np.sqrt(2) * np.log10(3) / np.sqrt(12)  # decades


@dataclass(frozen=True)
class Forecast:
    """A study's full fine-tuning, without its runs."""

    study: str
    log_rate: float  # log10 of the best rate
    interval: Interval  # 95 %, of the same
    regret: float  # expected loss of score at this rate: the LoRA curves' curvature times the forecast's variance
    found: Point | None  # the optimum of its full fine-tuning, where there is one after all

    @property
    def real_regret(self) -> float:
        """Score lost at this rate by the parabola of full fine-tuning's own curve; NaN where it wasn't run."""
        return self.found.curvature * (self.log_rate - self.found.log_rate) ** 2 if self.found else float("nan")


def forecasts(points: list[Point]) -> list[Forecast]:
    """A forecast of each study from its LoRA curves and the gaps of the studies on other data or backbones."""
    found = []
    for study in sorted({point.study for point in points if point.rank > 0}):
        ours = [point for point in points if point.study == study]
        # a longer run on the same data and backbone tells much of a shorter one
        others = [point for point in points if point.study.split(", ")[::2] != study.split(", ")[::2]]
        told = 1 + len({point.study for point in others if point.rank == 0})  # with the literature
        common = _STUDY_SPREAD**2 * (1 + 1 / told)  # this study's own gap, and the mean gap of the others
        found.append(_forecast(study, [one for one in ours if one.rank > 0], _gap_fit(others), common, _full(ours)))
    return found


def _full(points: list[Point]) -> Point | None:
    return next((point for point in points if point.rank == 0), None)


def _gap_fit(points: list[Point]) -> LinearFit | None:
    """log10 of LoRA's rate over full fine-tuning's, against log10 of alpha; None where no study tells the slope."""
    rows = [(1.0, np.log10(_LITERATURE[1]))]
    gaps, errors = [_LITERATURE[0]], [_STUDY_SPREAD]
    for point in points:
        full = _full([one for one in points if one.study == point.study])
        if point.rank > 0 and full is not None:
            rows.append((1.0, float(np.log10(point.alpha))))
            gaps.append(point.log_rate - full.log_rate)
            errors.append(float(np.hypot(np.nan_to_num(point.error), np.nan_to_num(full.error))))
    design = np.array(rows)
    if len(rows) < 4 or np.ptp(design[:, 1]) < 1e-6:
        return None
    return weighted_fit(design, np.array(gaps), np.array(errors))


def _forecast(study: str, lora: list[Point], gap: LinearFit | None, common: float, full: Point | None) -> Forecast:
    """Each curve's forecast, weighted by its own error; `common` is the variance that all curves share."""
    errors = np.array([np.nan_to_num(point.error, nan=0.1) for point in lora])
    weights: Array = 1 / np.maximum(errors, 0.02) ** 2
    weights = weights / weights.sum()
    design = weights @ np.array([(1.0, np.log10(point.alpha)) for point in lora])
    if gap is None:  # the literature's factor, and from its alpha any slope between 0 and −1
        away = design[1] - np.log10(_LITERATURE[1])
        expected, variance = _LITERATURE[0] - 0.5 * away, away**2 / 12
    else:
        expected, variance = float(design @ gap.coefficients), float(design @ gap.covariance @ design)
    centre = float(weights @ [point.log_rate for point in lora]) - expected
    variance += float(weights**2 @ errors**2) + common
    reach = 1.96 * np.sqrt(variance)
    curvature = float(np.nanmedian([point.curvature for point in lora]))
    return Forecast(study, centre, (centre - reach, centre + reach), curvature * variance, full)


def forecast_table(found: list[Forecast]) -> pd.DataFrame:
    """A row per study: the rate forecast and, where full fine-tuning was run after all, its optimum and the regret."""
    return make_table(
        found,
        {
            "Study": lambda row: row.study,
            "Full fine-tuning's rate, forecast": lambda row: (
                f"{10**row.log_rate:.2g} [{10 ** row.interval[0]:.2g}, {10 ** row.interval[1]:.2g}]"
            ),
            "Expected regret (loss or perplexity)": lambda row: f"{row.regret:.2g}",
            "Found": lambda row: f"{10**row.found.log_rate:.2g}" if row.found else "not run",
            "Off by": lambda row: f"{10 ** abs(row.log_rate - row.found.log_rate):.2f}×" if row.found else "",
            "Regret": lambda row: f"{row.real_regret:.2g}" if row.found else "",
        },
    )
