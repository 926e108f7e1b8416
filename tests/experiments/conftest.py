"""Reports of tests are drawn with few dots, which took most of their time."""

import pytest

from experiments.report import drawing


@pytest.fixture(scope="session", autouse=True)
def _few_dots():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_DOTS_PER_INCH", 30)
        yield
