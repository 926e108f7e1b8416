"""Tests of figures draw them with few dots, and other tests' reports hold empty ones: drawing took most of the time."""

from pathlib import Path

import pytest
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from common.files import write_text
from experiments.report import content, drawing

_DRAWS = ("test_report", "test_report_figures")


def _write_empty(figure: Figure, stem: Path) -> None:
    for ending in ("png", "svg", "pdf"):
        write_text(stem.with_name(f"{stem.name}.{ending}"), "<svg></svg>")


@pytest.fixture(scope="module", autouse=True)
def _few_dots(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_DOTS_PER_INCH", 30)
        name = request.module.__name__.rpartition(".")[2]
        if name not in _DRAWS:
            patch.setattr(content, "write_figure", _write_empty)
        if name == "test_report":  # looks at pages, which hold no PDF
            patch.setattr(FigureCanvasPdf, "print_pdf", lambda *_, **settings: None)
        yield


@pytest.fixture
def empty_figures(monkeypatch):
    """For a test of what a report says, among others that look at figures."""
    monkeypatch.setattr(content, "write_figure", _write_empty)
