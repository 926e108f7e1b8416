"""Medians, differences and learning-rate ratios in docs/results/README.md, from the trials published beside it."""

import itertools
import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

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
AG_NEWS = ("ag_news_minilm_learning_rate",)
WIKITEXT = ("wikitext_smollm2_learning_rate", "wikitext_smollm2_alpha_10r")
CURVES = [  # the section, its studies, the row's name, the report's
    ("Learning rates on AG-News", AG_NEWS, "rank 16", "alpha_32 rank 16"),
    ("Learning rates on AG-News", AG_NEWS, "rank 32", "alpha_32 rank 32"),
    ("Learning rates on AG-News", AG_NEWS, "rank 128", "alpha_32 rank 128"),
    ("Learning rates on AG-News", AG_NEWS, "full", "full"),
    ("Learning rates on WikiText-2", WIKITEXT, "rank 16, alpha 32", "lora rank 16"),
    ("Learning rates on WikiText-2", WIKITEXT, "rank 128, alpha 32", "lora rank 128"),
    ("Learning rates on WikiText-2", WIKITEXT, "rank 16, alpha 160", "alpha_10r rank 16 lora alpha 160"),
    ("Learning rates on WikiText-2", WIKITEXT, "rank 128, alpha 1280", "alpha_10r rank 128 lora alpha 1280"),
    ("Learning rates on WikiText-2", WIKITEXT, "full", "full"),
]
SWEEP_NAMES = {"LoRA": "lora_equal_parameters", "AdaLoRA": "adalora"}  # where the page has a name of its own
NUMBER = r"[-+]?[\d.]+(?:e[-+]?\d+)?"


@cache
def groups(*names: str) -> dict[str, Group]:
    records = read_records([RESULTS / f"{name}.json" for name in names])
    return {group.label: group for group in make_groups(records)}


@cache
def rates(*names: str) -> dict[str, dict[str, str]]:
    found = list(groups(*names).values())
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
        assert len(set(titles)) == len(titles), f"{section}: two columns of one title"
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


@pytest.mark.parametrize(("section", "studies", "label", "curve"), CURVES)
def test_learning_rates(section: str, studies: tuple[str, ...], label: str, curve: str):
    [row] = [row for row in rows(section) if next(iter(row.values())) == label]
    found = rates(*studies)[curve]
    optimum, ratio = found["Optimum (parabola)"].partition(", set")[0], found["Optimum / full fine-tuning's"]
    assert numbers(row["optimum (parabola)"]) == numbers(optimum)
    assert float(row.get("rate") or row["best rate"]) == float(found["Chosen rate (validation)"])
    if "validation, best" in row:
        assert numbers(row["validation, best"]) == pytest.approx(numbers(found["Validation there"]), abs=0.011)
    if "±" in row["test"]:
        assert numbers(row["test"]) == pytest.approx(numbers(found["Test there"]), abs=0.011)
    if found["Update norm there"]:
        assert float(row["update norm"]) == pytest.approx(float(found["Update norm there"]), abs=0.051)
    if label == "full":
        return
    assert numbers(row["ratio to full"]) == numbers(ratio)
    if "each seed's" in row:
        assert numbers(row["each seed's"]) == numbers(found["Ratio of each seed"])
        assert numbers(row["Student's"]) == numbers(found["Ratio, 95 % Student"])


@pytest.mark.parametrize("label", [label for section, _, label, _ in CURVES if "WikiText" in section])
def test_perplexities_of_each_seed(label: str):
    curve = next(curve for section, _, row, curve in CURVES if "WikiText" in section and row == label)
    [row] = [row for row in rows("Learning rates on WikiText-2") if next(iter(row.values())) == label]
    chosen = f"{float(rates(*WIKITEXT)[curve]['Chosen rate (validation)']):g}"
    [group] = [
        group
        for name, group in groups(*WIKITEXT).items()
        if sorted(name.split()) == sorted(f"{curve} rate {chosen}".split())
    ]
    for title, kind in (("validation", "best"), ("test", "test")):
        values = group.values(kind)
        assert numbers(row[title]) == pytest.approx([values[seed] for seed in sorted(values)], abs=0.0051)


COLUMNS = [(kind, schedule) for kind in ("best", "test") for schedule in ("linear_with_warmup", "constant")]
ALPHA_RANGES = {
    "Alpha ranges and schedules on SST-2": "sst2_minilm_alpha_range",
    "Alpha ranges and schedules on CoLA": "cola_mpnet_alpha_range",
}


@pytest.mark.parametrize(("section", "study"), ALPHA_RANGES.items())
def test_alpha_ranges_seed_by_seed(section: str, study: str):
    checked = 0
    for row in (row for row in rows(section) if "alpha" in row):
        cells = list(row.values())
        fixed = cells[0].startswith("fixed")
        alpha = None if fixed else float(cells[0].split()[0])
        for cell, (kind, schedule) in zip(cells[1:], COLUMNS, strict=True):
            expected = [
                100 * getattr(record, kind)
                for record in sorted(read_records([RESULTS / f"{study}.json"]), key=lambda record: record.seed)
                if record.overrides["model.optimizer.schedule"] == schedule
                and record.overrides.get("alpha_growth.alpha_min") == alpha
            ]
            assert len(expected) == 3
            assert numbers(cell) == pytest.approx(expected, abs=0.051), (row, kind, schedule)
            checked += 1
    assert checked == 16


def test_allocation_rates_seed_by_seed():
    records = sorted(read_records([RESULTS / "sst2_minilm_allocation_rates.json"]), key=lambda record: record.seed)
    checked = 0
    for row in (row for row in rows("Alpha ranges and schedules on SST-2") if "allocation rate" in row):
        rate, *cells = row.values()
        theirs = [r for r in records if r.overrides["model.optimizer.allocation_learning_rate"] == float(rate)]
        for cell, (kind, schedule) in zip(cells[:4], COLUMNS, strict=True):
            expected = [100 * getattr(r, kind) for r in theirs if r.overrides["model.optimizer.schedule"] == schedule]
            if expected:  # 0.02 is the other study's
                assert numbers(cell) == pytest.approx(expected, abs=0.051)
                checked += 1
        used = [record.results["budget"]["used"] for record in theirs]
        assert not used or numbers(row["budget used of 1536"]) == [min(used), max(used)]
    assert checked == 8


def test_nested_and_separate_ranks():
    records = sorted(read_records([RESULTS / "sst2_minilm_nested.json"]), key=lambda record: record.seed)
    nested = [record.results["rank_curve"] for record in records if record.method == "nested"]
    checked = 0
    for row in rows("One nested run, or a run for each rank"):
        rank = int(row["rank"])
        separate = [record for record in records if record.overrides.get("model.adapter.rank") == rank]
        points = [next(point for point in curve if point["rank"] == rank) for curve in nested]
        for cell, expected in zip(
            list(row.values())[1:],
            [
                [100 * point["val/accuracy"] for point in points],
                [100 * record.best for record in separate],
                [100 * (point["val/accuracy"] - record.best) for point, record in zip(points, separate, strict=True)],
                [100 * point["test/accuracy"] for point in points],
                [100 * record.test for record in separate],
            ],
            strict=True,
        ):
            assert numbers(cell) == pytest.approx(expected, abs=0.051), row
            checked += 1
    assert checked == 20


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
        assert between_seeds == pytest.approx(expected[: len(between_seeds)], abs=0.0051), row
        change = row["mean change of a rank"].replace("from 15: ", "")
        if change != "rounding":
            assert float(change) == pytest.approx(
                np.abs(np.subtract(ends, np.minimum(starts, 19))).mean(), abs=0.051
            ), row
        if row["between start and end"]:
            alike = np.mean([spearmanr(start, end).statistic for start, end in zip(starts, ends, strict=True)])
            assert float(row["between start and end"]) == pytest.approx(alike, abs=0.0051), row
