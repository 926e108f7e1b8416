"""The tables of the results page that give each seed's figure: alpha ranges, allocation rates, nested ranks."""

import pytest

from tests.docs.results_page import numbers, rows, trials

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
                for record in trials(study)
                if record.overrides["model.optimizer.schedule"] == schedule
                and record.overrides.get("alpha_growth.alpha_min") == alpha
            ]
            assert len(expected) == 3
            assert numbers(cell) == pytest.approx(expected, abs=0.051), (row, kind, schedule)
            checked += 1
    assert checked == 16


def test_allocation_rates_seed_by_seed():
    records = trials("sst2_minilm_allocation_rates")
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
    records = trials("sst2_minilm_nested")
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


def test_both_factors_gaussian():
    records = trials("ag_news_minilm_gaussian")
    table = [row for row in rows("Learning rates on AG-News") if "update norm at the start" in row]
    assert len(table) == 2
    for row in table:
        theirs = [r for r in records if r.overrides["model.optimizer.learning_rate"] == float(row["rate"])]
        assert [record.seed for record in theirs] == [42, 43, 44]
        assert numbers(row["validation, best"]) == pytest.approx([100 * record.best for record in theirs], abs=0.051)
        assert numbers(row["test"]) == pytest.approx([100 * record.test for record in theirs], abs=0.051)
        norms = [record.results["update_norms"]["initial"]["total"] for record in theirs]
        assert numbers(row["update norm at the start"]) == pytest.approx(norms, abs=0.51)
