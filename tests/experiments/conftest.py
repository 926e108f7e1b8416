"""Tests of figures draw them with few dots, and other tests' reports hold empty ones: drawing took most of the time."""

import io
from typing import Any

import pytest
from matplotlib.figure import Figure

from experiments.report import drawing

_DRAWS = ("test_report", "test_report_figures", "test_report_rank_curves")


def _empty(self: Figure, file: Any, **_: Any) -> None:
    svg = "<svg></svg>"
    file.write(svg if isinstance(file, io.StringIO) else svg.encode())


@pytest.fixture(scope="module", autouse=True)
def _few_dots(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_DOTS_PER_INCH", 30)
        if request.module.__name__.rpartition(".")[2] not in _DRAWS:
            patch.setattr(Figure, "savefig", _empty)
            patch.setattr(Figure, "draw_without_rendering", lambda _: None)
        yield
