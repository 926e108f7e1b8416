"""How figures look, and how they get into files: PNG, SVG and PDF for documents, and SVG for a page, light or dark."""

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

import matplotlib
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

from common.files import atomic_write, write_text

# Stands for "the text's colour": dark in files, the page's own on the page.
INK = "#1b1f24"
# Okabe and Ito's colours, which most colour-blind readers can tell apart (jfly.uni-koeln.de/color).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d3b", "#7f7f7f")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DOTS_PER_INCH = 300  # what journals ask for
_MARGIN = 0.08  # of the values' range, at each end of an axis
Drawn = Line2D | Container  # what a legend names
_MOST_TOLD = 6  # values told beside their marks at the edge


@contextmanager
def style() -> Iterator[None]:
    """Settings within which figures are made and written."""
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")
    settings: Any = {
        **dict.fromkeys(inked, INK),
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": False,
        "axes.titlesize": 10,
        "axes.prop_cycle": cycler(color=COLORS),
        "legend.frameon": False,
        "legend.fontsize": 9,
        "font.size": 10,
        "text.parse_math": False,  # a dollar sign in a name or a folder is a dollar sign
        "svg.fonttype": "none",  # text stays text: small, sharp, and found by a search
        "svg.hashsalt": "report",
        "pdf.fonttype": 42,  # TrueType, which journals ask for
    }
    with matplotlib.rc_context(settings):
        yield


def panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of this size in inches, and its axes side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def look(number: int, is_full: bool = False) -> dict[str, Any]:
    """Colour, marker and line of the so-many-th of several lines; they differ in more than colour.

    Full fine-tuning is dashed, in the text's colour.
    """
    turn, place = divmod(number, len(COLORS))
    marker = MARKERS[(place + turn) % len(MARKERS)]
    return {
        "color": INK if is_full else COLORS[place],
        "marker": marker,
        "linestyle": "--" if turn % 2 or is_full else "-",
    }


def draw_band(axes: Axes, values: pd.DataFrame, **line_look: Any) -> Line2D:
    """A line of means over the table's rows against its columns, and a band from the lowest to the highest row."""
    places = list(values.columns)
    (line,) = axes.plot(places, values.mean().to_numpy(), ms=5, **line_look)
    low, high = values.min().to_numpy(), values.max().to_numpy()
    axes.fill_between(places, low, high, color=line_look["color"], alpha=0.15, lw=0)
    return line


def legend_below(figure: Figure, lines: Mapping[str, Drawn]) -> None:
    """A legend of lines by label below the axes, where nothing runs through it, in as many columns as have room."""
    width = 12 * figure.get_size_inches()[0]  # characters
    columns = max(1, min(len(lines), int(width) // (max(map(len, lines)) + 8)))
    handles: Any = lines.values()  # Matplotlib takes containers, too, and doesn't say so
    figure.legend(handles, lines, loc="outside lower center", ncols=columns)


def _rate_text(value: float, _: float | None = None) -> str:
    return np.format_float_scientific(value, precision=2, trim="-", exp_digits=1)


def rate_ticks(axis: Axis, rates: Iterable[float] = ()) -> None:
    """Learning rates in one notation (3e-4), at these places; where matplotlib puts ticks, if none are given."""
    if ticks := list(rates):
        axis.set_ticks(ticks, [_rate_text(rate) for rate in ticks], rotation=0 if len(ticks) < 9 else 45)
    else:
        axis.set_major_formatter(FuncFormatter(_rate_text))
    axis.set_minor_formatter(NullFormatter())


def rank_axis(axes: Axes, ranks: Iterable[float]) -> None:
    """A logarithmic axis of ranks, with these told."""
    axes.set_xscale("log", base=2)
    ticks = sorted(set(ranks))
    axes.set_xticks(ticks, [f"{rank:g}" for rank in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("rank")


def count_axis(axes: Axes, label: str) -> None:
    """A logarithmic axis of what is drawn on it, counts: 24, 1.5k, 25k, 22M."""
    axes.set(xscale="log", xlabel=label)
    low, high = axes.get_xlim()
    if high < 100 * low:  # powers of ten alone would be one tick or none
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())


def keep_in_sight(
    axes: Axes, which: Literal["x", "y"], sound: Iterable[float], lines: Iterable[Line2D], tells: bool = True
) -> None:
    """Ends an axis where the sound values end; what lies beyond is marked at the edge by a triangle.

    So a run that collapsed doesn't make one line of all the others.

    Args:
        which: the axis.
        sound: values of runs that neither collapsed nor diverged; without one the axis stays.
        lines: drawn ones, whose points may lie beyond.
        tells: whether values stand beside the marks, where there are a few.
    """
    known = np.asarray([value for value in sound if np.isfinite(value)])
    if not len(known):
        return
    room = _MARGIN * (np.ptp(known) or abs(float(known[0])) or 1.0)
    ends, place = (known.min() - room, known.max() + room), "xy".index(which)
    points = [(line, point) for line in lines for point in np.asarray(line.get_xydata(), dtype=float)]
    beyond = [(line, at) for line, at in points if np.isfinite(at).all() and not ends[0] <= at[place] <= ends[1]]
    if not beyond:
        return
    getattr(axes, f"set_{which}lim")(*ends)
    told = Counter[tuple[float, ...]]()
    for line, point in beyond:
        is_high, spot = int(point[place] > ends[1]), point.copy()
        spot[place] = ends[is_high]
        axes.plot(*spot, {"x": "<>", "y": "v^"}[which][is_high], color=line.get_color(), ms=7, clip_on=False, zorder=5)
        if tells and len(beyond) <= _MOST_TOLD:
            step = 32 if which == "x" else 9  # points: past what stands at the spot already
            away = (8 + step * told[tuple(spot)]) * (-1 if is_high else 1)
            told[tuple(spot)] += 1
            value = f"{point[place]:,.0f}" if abs(point[place]) >= 100 else f"{point[place]:.3g}"
            ha, va = ("right" if is_high else "left", "baseline") if which == "x" else ("center", "center")
            offset = (away, 6) if which == "x" else (0, away + (-4 if is_high else 4))
            axes.annotate(value, spot, xytext=offset, textcoords="offset points", fontsize=8, ha=ha, va=va)


def write_png(figure: Figure, path: Path) -> None:
    """A picture on white, in print's resolution; its layout stands from then on.

    A canvas draws once. `Figure.savefig` would draw twice, and work the layout out again for each file.
    """
    figure.set(dpi=_DOTS_PER_INCH, facecolor="white")
    atomic_write(path, FigureCanvasAgg(figure).print_png)
    figure.set_layout_engine("none")


def write_figure(figure: Figure, stem: Path) -> None:
    """Writes STEM.png, and STEM.svg and STEM.pdf without a background, for papers."""
    with style():
        write_png(figure, stem.with_name(f"{stem.name}.png"))
        figure.set(facecolor="none")
        svg = io.StringIO()
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})
        write_text(stem.with_name(f"{stem.name}.svg"), svg.getvalue())
        undated: Any = {"CreationDate": None}  # the same bytes each time
        pdf = FigureCanvasPdf(figure)
        atomic_write(stem.with_name(f"{stem.name}.pdf"), lambda file: pdf.print_pdf(file, metadata=undated))


def for_page(svg: str, label: str, number: int, width: float) -> str:
    """A file's text as an <svg> element for a page, in the page's colour, and at most so many inches wide.

    A screen reader says the label; the number makes the element's ids its own within the page.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL).replace(INK, "currentColor")
    # ids that something refers to get a prefix, so that figures on one page don't meet; the others go
    used, own = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg)), f"f{number}-"
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{own}{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{own}", svg)
    for size in ("height", "width"):
        svg = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", svg, count=1)
    opening = f'<svg role="img" aria-label={quoteattr(label)} style="max-width:{width * 96:.0f}px" '
    return svg.replace("<svg ", opening, 1)
