"""Tests of figures draw them with few dots, and other tests' reports hold empty ones: drawing took most of the time."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from common.files import write_text
from experiments.report import content, drawing

_DRAWS = ("test_report", "test_report_figures", "test_report_rank_curves")


def _write_empty(figure: Figure, stem: Path) -> None:
    for ending in ("png", "svg", "pdf"):
        write_text(stem.with_name(f"{stem.name}.{ending}"), "<svg></svg>")


@pytest.fixture(scope="module", autouse=True)
def _few_dots(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_DOTS_PER_INCH", 30)
        if request.module.__name__.rpartition(".")[2] not in _DRAWS:
            patch.setattr(content, "write_figure", _write_empty)
        yield
