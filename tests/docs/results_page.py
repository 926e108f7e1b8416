"""docs/results/README.md and the trials published beside it, for tests that compare the two."""

import json
import re
from functools import cache
from pathlib import Path

from experiments.report.groups import Group, make_groups
from experiments.report.record import Record
from experiments.report.sources import read_records

RESULTS = Path(__file__).parents[2] / "docs" / "results"
PAGE = (RESULTS / "README.md").read_text()
KEPT = sorted(path.stem for path in RESULTS.glob("*.json") if "trials" in json.loads(path.read_text()))
NUMBER = r"[-+]?[\d.]+(?:e[-+]?\d+)?"


@cache
def groups(*names: str) -> dict[str, Group]:
    """The studies' settings by the report's label."""
    records = read_records([RESULTS / f"{name}.json" for name in names])
    return {group.label: group for group in make_groups(records)}


def trials(name: str) -> list[Record]:
    """The study's trials, by seed."""
    return sorted(read_records([RESULTS / f"{name}.json"]), key=lambda record: record.seed)


def rows(section: str) -> list[dict[str, str]]:
    """All rows of the section's tables by column title, with ASCII minus signs and no thousands separators."""
    text = re.split(rf"^## {section}\n", PAGE, flags=re.MULTILINE)[1].split("\n## ")[0]
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text.replace("−", "-").replace("–", " to "))
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        titles, _, *lines = [
            [cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.split("\n")[:-1]
        ]
        assert len(set(titles)) == len(titles), f"{section}: two columns of one title"
        found += [dict(zip(titles, line, strict=True)) for line in lines]
    return found


def figure(title: str) -> str | None:
    """Which of a group's figures a column has."""
    return next((name for name in ("best", "last", "test") if title.startswith(name)), None)


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(NUMBER, text)]
