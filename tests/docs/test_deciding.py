"""The page on deciding holds the tables that its command makes from the published trials."""

import re

import pytest

from experiments.report.cells import as_markdown, without_empty_columns
from tests.docs.deciding import PAGE, TABLES

TEXT = PAGE.read_text(encoding="utf-8")
PLACES = dict(re.findall(r"<!-- table: (\w+) -->\n(.*?)<!-- end -->", TEXT, flags=re.DOTALL))


def test_every_table_has_its_place():
    assert set(PLACES) == set(TABLES)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if name in ("replay", "rules") else pytest.mark.slow)
        for name in TABLES
    ],
)
def test_the_page_holds_what_the_command_writes(name):
    made = as_markdown(without_empty_columns(TABLES[name]()))
    assert PLACES[name].strip() == made, "run python -m tests.docs.deciding"
