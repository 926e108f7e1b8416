"""The table of paired differences to a baseline, for each figure that runs have, with both kinds of interval."""

from experiments.metrics import scale
from experiments.report.groups import Group
from experiments.report.statistics import Interval, paired_difference
from experiments.report.tables import Row, metric_of, span

FIGURES = {"best": "best epoch", "last": "last epoch", "test": "test"}


def difference_table(groups: list[Group], baseline: Group | None) -> list[Row]:
    """A row per settings and figure, best settings first.

    Args:
        groups: settings to compare; those without a common seed, or measured otherwise than the baseline, are left
            out.
        baseline: what they are compared with; without it the table is empty.
    """
    metric = metric_of([baseline]) if baseline else None
    if baseline is None or metric is None:
        return []
    factor = scale(metric["name"])
    return [row for group in comparable(groups, baseline) for row in _rows(group, baseline, factor)]


def comparable(groups: list[Group], baseline: Group) -> list[Group]:
    """Settings measured like the baseline, with seeds in common, best first."""
    ordered = sorted((group for group in groups if group is not baseline), key=lambda group: -group.score)
    alike = [group for group in ordered if group.measure == baseline.measure]
    return [group for group in alike if group.values("best").keys() & baseline.values("best").keys()]


def _rows(group: Group, baseline: Group, factor: float) -> list[Row]:
    rows = []
    for kind, figure in FIGURES.items():
        found = paired_difference(group.values(kind), baseline.values(kind))
        if found is None:
            continue
        rows.append(
            {
                "Settings": group.label,
                "Figure": figure,
                "Mean difference": f"{factor * found.mean:+.2f}",
                "95 % bootstrap": _text(found.interval, factor),
                "95 % Student": _text(found.student, factor),
                "Seeds in common": str(found.pairs),
            }
        )
    return rows


def _text(interval: Interval | None, factor: float) -> str:
    return "" if interval is None else span(interval, factor, signed=True)
