"""How figures look, and how they get into files: PNG for documents, SVG that follows the page's light or dark."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import matplotlib
import pandas as pd
from cycler import cycler
from matplotlib.figure import Figure

from common.files import atomic_write

# Stands for "the text's colour": dark in PNG files, the page's own in SVG.
INK = "#1b1f24"
# Okabe and Ito's colours, which most colour-blind readers can tell apart (jfly.uni-koeln.de/color).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d3b", "#7f7f7f")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@contextmanager
def style() -> Iterator[None]:
    """Settings within which figures are made and written."""
    settings: Any = {
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "axes.titlecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": False,
        "axes.prop_cycle": cycler(color=COLORS),
        "legend.frameon": False,
        "legend.fontsize": 9,
        "font.size": 10,
        "text.parse_math": False,  # a dollar sign in a name or a folder is a dollar sign
        "svg.fonttype": "none",  # text stays text: small, sharp, and found by a search
        "svg.hashsalt": "report",
    }
    with matplotlib.rc_context(settings):
        yield


def panels(count: int, width: float, height: float) -> tuple[Figure, list[Any]]:
    """A figure of this size in inches, and its axes side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def draw_band(axes: Any, values: pd.DataFrame, **look: Any) -> Any:
    """A line of means over the table's rows against its columns, and a band from the lowest to the highest row."""
    places = list(values.columns)
    (line,) = axes.plot(places, values.mean().to_numpy(), ms=5, **look)
    axes.fill_between(places, values.min().to_numpy(), values.max().to_numpy(), color=look["color"], alpha=0.15, lw=0)
    return line


def legend_below(figure: Figure, lines: list[Any], labels: list[str]) -> None:
    """A legend below the axes, where nothing runs through it, in as many columns as have room."""
    width = 12 * figure.get_size_inches()[0]  # characters
    columns = max(1, min(len(labels), int(width) // (max(map(len, labels)) + 8)))
    figure.legend(lines, labels, loc="outside lower center", ncols=columns)


def write_png(figure: Figure, path: Path) -> None:
    """A picture on white."""
    atomic_write(path, lambda file: figure.savefig(file, format="png", dpi=110, facecolor="white", bbox_inches="tight"))


def as_svg(figure: Figure, label: str, number: int) -> str:
    """An <svg> element without a background, for a page; its text has the page's colour.

    Args:
        label: what a screen reader says.
        number: makes the element's ids its own within the page.
    """
    output = io.StringIO()
    figure.savefig(
        output, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None, "Creator": None}
    )
    svg = output.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL).replace(INK, "currentColor")
    svg = _own_ids(svg, f"f{number}-")
    for size in ("height", "width"):
        svg = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", svg, count=1)
    width = figure.get_size_inches()[0] * 96
    opening = f'<svg role="img" aria-label={quoteattr(label)} style="max-width:{width:.0f}px" '
    return svg.replace("<svg ", opening, 1)


def _own_ids(svg: str, prefix: str) -> str:
    """Ids that something refers to get a prefix, so that figures on one page don't meet; the others go."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{prefix}{found[1]}"' if found[1] in used else "", svg)
    return re.sub(r'(url\(#|href="#)', rf"\1{prefix}", svg)
