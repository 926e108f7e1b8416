"""The studies of methods on the results page: medians, differences, budgets and what the allocation learned."""

import itertools
import re
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import spearmanr

from experiments.report.groups import Group
from experiments.report.statistics import median_and_deviation, paired_difference
from tests.docs.results_page import KEPT, PAGE, figure, groups, numbers, rows, trials

EQUAL_BUDGET = {
    "Equal budget on CoLA": "cola_mpnet_equal_budget",
    "RTE": "rte_mpnet_equal_budget",
    "Equal budget on SST-2": "sst2_minilm_equal_budget",
    "Equal budget on AG-News": "ag_news_minilm_equal_budget",
}
SWEEP_NAMES = {"LoRA": "lora_equal_parameters", "AdaLoRA": "adalora"}  # where the page has a name of its own


def group_of(studies: str | tuple[str, ...], label: str) -> Group:
    name = re.split(r"[ ,(]", label)[0]
    return groups(*([studies] if isinstance(studies, str) else studies))[SWEEP_NAMES.get(name, name)]


def cells(section: str) -> Iterator[tuple[str, str, str]]:
    """First cell of the row, title and cell of every column that has a figure."""
    for row in rows(section):
        label = next(iter(row.values()))
        yield from ((label, title, cell) for title, cell in row.items() if figure(title) and cell)


def difference(study: str | tuple[str, ...], ours: str, theirs: str, kind: str) -> list[float]:
    """Mean and bootstrap interval × 100."""
    found = paired_difference(group_of(study, ours).values(kind), group_of(study, theirs).values(kind))
    assert found is not None and found.interval is not None
    return [100 * found.mean, *(100 * end for end in found.interval)]


def test_all_kept_trials_are_on_the_page_and_can_be_reported():
    assert len(KEPT) == 18
    for name in KEPT:
        assert f"({name}.json)" in PAGE
        assert trials(name)


@pytest.mark.parametrize(("section", "study"), EQUAL_BUDGET.items())
def test_medians_and_deviations(section: str, study: str):
    checked = 0
    for label, title, cell in cells(section):
        if "±" not in cell:
            continue
        expected = median_and_deviation(list(group_of(study, label).values(figure(title)).values()))
        assert numbers(cell) == pytest.approx([100 * part for part in expected], abs=0.011), (label, title)
        checked += 1
    assert checked == {"cola": 30, "rte": 6, "sst2": 16, "ag": 18}[study.partition("_")[0]]


@pytest.mark.parametrize(("section", "study"), EQUAL_BUDGET.items())
def test_differences_between_methods(section: str, study: str):
    checked = 0
    for label, title, cell in cells(section):
        ours, minus, theirs = label.partition(" - ")
        compared = theirs if minus else "fixed" if title.endswith(" - fixed") else None
        if compared is None:
            continue
        expected = difference(study, ours, compared, figure(title))
        assert numbers(cell) == pytest.approx(expected, abs=0.051), (label, title)
        checked += 1
    assert checked == {"cola": 45, "rte": 4, "sst2": 20, "ag": 24}[study.partition("_")[0]]


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
    assert checked == {"cola": 7, "rte": 2, "sst2": 5, "ag": 5}[study.partition("_")[0]]


@pytest.mark.parametrize(
    ("section", "studies", "count"),
    [
        ("Half the rate on CoLA", ("cola_mpnet_lower_rate",), 5 * 3 + 7 * 4),
        ("Half the rate on CoLA, five new seeds", ("cola_mpnet_fresh_seeds",), 2 * 3 + 2 * 5),
    ],
)
def test_half_the_rate_on_cola(section: str, studies: tuple[str, ...], count: int):
    checked = 0
    for label, title, cell in cells(section):
        ours, minus, theirs = label.partition(" - ")
        kind, of_both = figure(title), ("cola_mpnet_lower_rate", *studies)
        found = of_both if "seeds 0 to 9" in label else studies
        if "Student" in title:
            pairs = paired_difference(group_of(found, ours).values(kind), group_of(found, theirs).values(kind))
            expected = [100 * end for end in pairs.student]
        elif minus:
            expected = difference(found, ours, theirs, kind)
        else:
            values = group_of(found, ours).values(kind)
            expected = [100 * values[seed] for seed in sorted(values)]
        assert numbers(cell) == pytest.approx(expected, abs=0.051), (label, title)
        checked += 1
    assert checked == count


def test_what_the_allocation_learned():
    methods = {
        "random, softmax": "adaptive_softmax",
        "random, bounded": "adaptive_bounded",
        "random, straight_through": "straight_through",
        "random, frozen": "frozen_random",
        "gradient norms": "gradient_norm_start",
        "gradient norms, together": "together",
    }
    table = [row for row in rows("Equal budget on CoLA") if "start" in row]
    assert [row["start"] for row in table] == list(methods)
    for row in table:
        results = [record.results for record in groups("cola_mpnet_equal_budget")[methods[row["start"]]].records]
        ends = [entry["final_ranks"] for entry in results]
        starts = [entry.get("start_ranks", [15.0] * 48) for entry in results]
        pairs = [spearmanr(first, second).statistic for first, second in itertools.combinations(ends, 2)]
        between_seeds = numbers(row["Spearman correlation of final ranks between seeds"])
        expected = [np.mean(pairs), min(pairs), max(pairs)]
        assert between_seeds, row
        assert between_seeds == pytest.approx(expected[: len(between_seeds)], abs=0.0051), row
        change = row["mean change of a rank"].replace("from 15: ", "")
        if change != "rounding":
            assert float(change) == pytest.approx(
                np.abs(np.subtract(ends, np.minimum(starts, 19))).mean(), abs=0.051
            ), row
        if row["between start and end"]:
            alike = np.mean([spearmanr(start, end).statistic for start, end in zip(starts, ends, strict=True)])
            assert float(row["between start and end"]) == pytest.approx(alike, abs=0.0051), row
