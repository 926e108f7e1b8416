"""What a pair is, and how its runs become one entry of the output."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.settings import Settings

Sides = tuple[float, float]


@dataclass(frozen=True)
class Pair:
    """Two things to compare.

    Attributes:
        measure: one repetition: settings and its number to the figures of ours and of the reference.
        unit: of both figures.
        better: whether a `higher` or a `lower` ratio ours / reference is the better one.
        what: what is measured on each side, for the output.
    """

    measure: Callable[[Settings, int], Sides]
    unit: str
    better: str
    what: str


def summarise(name: str, pair: Pair, runs: list[Sides]) -> dict[str, Any]:
    """The entry of a pair in the output: medians of both sides, and the median of the runs' own ratios."""
    rows = [{"ours": ours, "reference": reference, "ratio": ours / reference} for ours, reference in runs]
    middle = {key: median(row[key] for row in rows) for key in ("ours", "reference", "ratio")}
    return {
        "name": name,
        "ours": middle["ours"],
        "reference": middle["reference"],
        "unit": pair.unit,
        "ratio": middle["ratio"],
        "better": pair.better,
        "what": pair.what,
        "runs": rows,
    }
