"""Medians, differences and learning-rate ratios in docs/results/README.md, from the trials published beside it."""

import json
import re
from functools import cache
from pathlib import Path

import pytest

from experiments.report.groups import Group, make_curves, make_groups, swept_rate
from experiments.report.rate_tables import rate_table
from experiments.report.records import read_records
from experiments.report.statistics import median_and_deviation, paired_difference

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PAGE = (RESULTS / "README.md").read_text()
KEPT = sorted(path.stem for path in RESULTS.glob("*.json") if "trials" in json.loads(path.read_text()))
EQUAL_BUDGET = {
    "Equal budget on CoLA": "cola_mpnet_equal_budget",
    "RTE": "rte_mpnet_equal_budget",
    "Equal budget on SST-2": "sst2_minilm_equal_budget",
    "Equal budget on AG-News": "ag_news_minilm_equal_budget",
}
RATES = {
    "Learning rates on AG-News": {
        "rank 16": ("ag_news_minilm_learning_rate", "alpha_32 rank 16"),
        "rank 32": ("ag_news_minilm_learning_rate", "alpha_32 rank 32"),
        "rank 128": ("ag_news_minilm_learning_rate", "alpha_32 rank 128"),
        "full": ("ag_news_minilm_learning_rate", "full"),
    },
    "Learning rates on WikiText-2": {
        "rank 16, alpha 32": ("wikitext_smollm2_learning_rate", "lora rank 16"),
        "rank 128, alpha 32": ("wikitext_smollm2_learning_rate", "lora rank 128"),
        "full": ("wikitext_smollm2_learning_rate", "full"),
    },
}
SWEEP_NAMES = {"LoRA": "lora_equal_parameters", "AdaLoRA": "adalora"}  # where the page has a name of its own
NUMBER = r"[-+]?[\d.]+(?:e[-+]?\d+)?"


@cache
def groups(name: str) -> dict[str, Group]:
    return {group.label: group for group in make_groups(read_records([RESULTS / f"{name}.json"]))}


@cache
def rates(name: str) -> dict[str, dict[str, str]]:
    found = list(groups(name).values())
    rate = swept_rate([record for group in found for record in group.records])
    return {row["Curve"]: row for row in rate_table(make_curves(found, rate))}


def rows(section: str) -> list[dict[str, str]]:
    """All rows of the section's tables by column title, with ASCII minus signs and no thousands separators."""
    text = re.split(rf"^## {section}\n", PAGE, flags=re.MULTILINE)[1].split("\n## ")[0]
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text.replace("−", "-").replace("–", " to "))
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        titles, _, *lines = [
            [cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.split("\n")[:-1]
        ]
        found += [dict(zip(titles, line, strict=True)) for line in lines]
    return found


def figure(title: str) -> str | None:
    """Which of a group's figures a column has."""
    return next((name for name in ("best", "last", "test") if title.startswith(name)), None)


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(NUMBER, text)]


def group_of(study: str, label: str) -> Group:
    name = re.split(r"[ ,(]", label)[0]
    return groups(study)[SWEEP_NAMES.get(name, name)]


def difference(study: str, ours: str, theirs: str, kind: str) -> list[float]:
    """Mean and bootstrap interval × 100."""
    found = paired_difference(group_of(study, ours).values(kind), group_of(study, theirs).values(kind))
    assert found is not None and found.interval is not None
    return [100 * found.mean, *(100 * end for end in found.interval)]


def test_all_kept_trials_are_on_the_page_and_can_be_reported():
    assert len(KEPT) == 15
    for name in KEPT:
        assert f"({name}.json)" in PAGE
        assert len(read_records([RESULTS / f"{name}.json"])) == len(
            json.loads((RESULTS / f"{name}.json").read_text())["trials"]
        )


@pytest.mark.parametrize(("section", "study"), EQUAL_BUDGET.items())
def test_medians_and_deviations(section: str, study: str):
    checked = 0
    for row in rows(section):
        for title, cell in row.items():
            kind = figure(title)
            if kind is None or "±" not in cell:
                continue
            values = list(group_of(study, next(iter(row.values()))).values(kind).values())
            expected = [100 * part for part in median_and_deviation(values)]
            assert numbers(cell) == pytest.approx(expected, abs=0.011), (row, title)
            checked += 1
    assert checked == {"cola": 30, "rte": 6, "sst2": 14, "ag": 14}[study.partition("_")[0]]


@pytest.mark.parametrize(("section", "study"), EQUAL_BUDGET.items())
def test_differences_between_methods(section: str, study: str):
    checked = 0
    for row in rows(section):
        ours, minus, theirs = next(iter(row.values())).partition(" - ")
        for title, cell in row.items():
            compared = theirs if minus else "fixed" if title.endswith(" - fixed") else None
            if compared is None or figure(title) is None or not cell:
                continue
            assert numbers(cell) == pytest.approx(difference(study, ours, compared, figure(title)), abs=0.051), (
                row,
                title,
            )
            checked += 1
    assert checked == {"cola": 45, "rte": 4, "sst2": 16, "ag": 16}[study.partition("_")[0]]


@pytest.mark.parametrize(("section", "study"), EQUAL_BUDGET.items())
def test_the_budget_in_use(section: str, study: str):
    checked = 0
    for row in rows(section):
        if not re.fullmatch(r"\d+( to \d+)?", row.get("budget used", "")):
            continue
        used = [
            record.results["budget"]["used"]
            for record in group_of(study, row["method"]).records
            if record.results and record.results["budget"]
        ]
        if used:  # a fixed rank has no budget
            assert numbers(row["budget used"]) == sorted({min(used), max(used)})
            checked += 1
    assert checked == {"cola": 7, "rte": 2, "sst2": 4, "ag": 4}[study.partition("_")[0]]


def test_half_the_rate_on_cola():
    study, checked = "cola_mpnet_lower_rate", 0
    for row in rows("Half the rate on CoLA"):
        label = next(iter(row.values()))
        for title, cell in row.items():
            kind = figure(title)
            if kind is None:
                continue
            if "[" in cell:
                assert numbers(cell) == pytest.approx(difference(study, label, "fixed", kind), abs=0.051)
            else:
                values = group_of(study, label).values(kind)
                assert numbers(cell) == pytest.approx([100 * values[seed] for seed in sorted(values)], abs=0.051)
            checked += 1
    assert checked == 4 * 3 + 3 * 3


@pytest.mark.parametrize(
    ("section", "label"), [(section, label) for section, curves in RATES.items() for label in curves]
)
def test_learning_rates(section: str, label: str):
    study, curve = RATES[section][label]
    [row] = [row for row in rows(section) if next(iter(row.values())) == label]
    found = rates(study)[curve]
    assert numbers(row["optimum (parabola)"]) == numbers(found["Optimum (parabola)"].partition(",")[0]) or numbers(
        row["optimum (parabola)"]
    ) == pytest.approx(numbers(found["Optimum (parabola)"])[:3])
    chosen = row.get("rate") or row["best rate"]
    assert float(chosen) == float(found["Chosen rate (validation)"])
    if label != "full":
        assert numbers(row["ratio to full"]) == numbers(found["Optimum / full fine-tuning's"])
