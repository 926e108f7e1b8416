"""A report's runs put in order, and the parts that its page and its Markdown file are made of."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal
from typing import ClassVar

import pandas as pd
import yaml
from matplotlib.figure import Figure

from experiments.report.drawing import for_page, style, write_figure
from experiments.report.groups import Curve, Group, Measure, make_curves, make_groups, swept_rate
from experiments.report.rate_law import Law, fit_law, points_of
from experiments.report.record import Record
from experiments.report.tables import find_baseline

_TEXTS: dict[str, str] = yaml.safe_load(Path(__file__).with_name("texts.yaml").read_text(encoding="utf-8"))
_WIDE = 6.0  # inches: wider figures take the page's width


def say(name: str, *values: object) -> str:
    """A text of texts.yaml, with these values in it."""
    return _TEXTS[name].format(*values)


@dataclass(frozen=True)
class Study:
    """The runs of a report, put in order."""

    records: list[Record]
    groups: list[Group]  # by settings
    rate: str  # the swept learning rate, by command-line name
    curves: list[Curve]  # groups over that rate
    # where rates were swept, each curve's group at its chosen rate, and those without such a rate; else all groups
    compared: list[Group]
    baseline: Group | None  # what differences are to
    bootstrap: bool = False  # whether intervals from resampling seeds stand beside Student's
    law: Law | None = None  # of the learning rate, if that was asked for

    @property
    def is_rate_study(self) -> bool:
        return any(len(curve.groups) > 1 for curve in self.curves)

    @property
    def swept(self) -> list[Curve]:
        """The curves, where a rate was swept."""
        return self.curves if self.is_rate_study else []

    @property
    def measures(self) -> list[Measure]:
        """What the groups were measured by, in order of their appearance."""
        return list(dict.fromkeys(group.measure for group in self.groups if group.measure is not None))

    @cached_property
    def on_one_axis(self) -> list[Group]:
        """Compared groups that were measured like the first: one axis can't hold two metrics."""
        return [group for group in self.compared if group.measure in (None, *self.measures[:1])]


@dataclass(frozen=True)
class Paragraph:
    """Text; `kind` says how it looks: answer, warning, small, plain, or commands, a line each."""

    text: str
    kind: str = "plain"


@dataclass(frozen=True, eq=False)
class PageTable:
    """A table with the name that a screen reader says."""

    name: str
    rows: pd.DataFrame
    in_words: bool = True  # cells are words, not numbers
    is_folded: bool = False  # only its name shows at first
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Picture:
    """A figure on the page, and its files' name."""

    name: str
    caption: str
    file: Path  # the SVG, which another process may still write
    number: int  # of the figure within the page
    width: float  # in inches
    kind: ClassVar[str] = "picture"

    @property
    def is_wide(self) -> bool:
        return self.width > _WIDE

    @property
    def svg(self) -> str:
        return for_page(self.file.read_text(encoding="utf-8"), self.caption, self.number, self.width)


Part = Paragraph | PageTable | Picture


@dataclass(frozen=True)
class PageSection:
    """Parts under a title (the first section of a report has none); a link to it ends with its name."""

    name: str
    title: str
    parts: list[Part]


class Pictures:
    """Draws figures into a folder, each as PNG, SVG and PDF, and hands them to the page; without one nothing.

    With `in_parallel` other processes write the files meanwhile; `wait` until they have.
    """

    def __init__(self, folder: Path | None, in_parallel: bool = False) -> None:
        self.folder, self._in_parallel = folder, in_parallel
        self._drawn = 0
        self._writers: list[tuple[BaseProcess, Figure, Path]] = []

    def draw(self, name: str, caption: str, make: Callable[[], Figure | None]) -> list[Picture]:
        """The picture; none where there is nothing to draw."""
        if self.folder is None:
            return []
        with style():
            figure = make()
        if figure is None:
            return []
        stem = self.folder / name
        if self._in_parallel:
            self.wait(most=1)
            # a process of its own, which inherits the figure: one that was pickled draws some labels out of place,
            # because Matplotlib then loses track of what depends on the resolution
            writer = get_context("fork").Process(target=_write_apart, args=(figure, stem), daemon=True)
            writer.start()
            self._writers.append((writer, figure, stem))
        else:
            write_figure(figure, stem)
        self._drawn += 1
        file = stem.with_name(f"{name}.svg")
        return [Picture(name, caption, file, self._drawn - 1, figure.get_size_inches()[0])]

    def wait(self, most: int = 0) -> None:
        """Returns when no more than so many figures are still being written; raises what went wrong with one."""
        while len(self._writers) > most:
            writer, figure, stem = self._writers.pop(0)
            writer.join()
            if writer.exitcode:
                write_figure(figure, stem)  # here what is wrong can be told


def _write_apart(figure: Figure, stem: Path) -> None:
    signal(SIGINT, SIG_IGN)
    try:
        write_figure(figure, stem)
    except Exception:
        sys.exit(1)


def make_study(records: list[Record], baseline: str | None, bootstrap: bool = False, law: bool = False) -> Study:
    """The runs in order; `InputError`: the baseline's name is unknown, or there are too few curves for the law."""
    groups, rate = make_groups(records), swept_rate(records)
    curves = make_curves(groups, rate)
    compared = groups
    if any(len(curve.groups) > 1 for curve in curves):
        swept = {group for curve in curves for group in curve.groups.values()}
        compared = [curve.chosen for curve in curves] + [group for group in groups if group not in swept]
    fitted = fit_law(points_of(records)) if law else None
    return Study(records, groups, rate, curves, compared, find_baseline(groups, compared, baseline), bootstrap, fitted)
