"""The studies of learning rates on the results page: chosen rates, optima, ratios, norms and figures there."""

import re
from functools import cache

import pytest

from experiments.report.groups import Curve, make_curves, swept_rate
from experiments.report.rate_tables import loss_table, rate_table
from experiments.report.statistics import median_and_deviation
from tests.docs.results_page import groups, numbers, rows

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


@cache
def curves(*names: str) -> list[Curve]:
    found = list(groups(*names).values())
    return make_curves(found, swept_rate([record for group in found for record in group.records]))


def rates(*names: str) -> dict[str, dict[str, str]]:
    return {row["Curve"]: row for row in rate_table(curves(*names))}


@pytest.mark.parametrize(("section", "studies", "label", "curve"), CURVES)
def test_learning_rates(section: str, studies: tuple[str, ...], label: str, curve: str):
    table = [row for row in rows(section) if "optimum (parabola)" in row]
    [row] = [row for row in table if next(iter(row.values())) == label]
    found = rates(*studies)[curve]
    optimum, ratio = found["Optimum (parabola)"].partition(", set")[0], found["Optimum / full fine-tuning's"]
    assert numbers(row["optimum (parabola)"]) == numbers(optimum)
    assert float(row.get("rate") or row["best rate"]) == float(found["Chosen rate (validation)"])
    if "validation, best" in row:
        assert numbers(row["validation, best"]) == pytest.approx(numbers(found["Validation there"]), abs=0.011)
    if "last" in row:
        [chosen] = [entry.chosen for entry in curves(*studies) if entry.label == curve]
        expected = median_and_deviation(list(chosen.values("last").values()))
        assert numbers(row["last"]) == pytest.approx([100 * part for part in expected], abs=0.011)
    if "±" in row["test"]:
        assert numbers(row["test"]) == pytest.approx(numbers(found["Test there"]), abs=0.011)
    if found["Update norm there"]:
        assert float(row["update norm"]) == pytest.approx(float(found["Update norm there"]), abs=0.051)
    if label == "full":
        return
    assert numbers(row["ratio to full"]) == numbers(ratio)
    if by_loss := row.get("ratio by validation loss"):
        told = {entry["Curve"]: entry for entry in loss_table(curves(*studies))}[curve]
        assert numbers(by_loss) == numbers(told["Optimum / full fine-tuning's"])
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


BY_LOSS = {
    "rank 16, alpha 160": "alpha_10r rank 16 lora alpha 160",
    "rank 128, alpha 1280": "alpha_10r rank 128 lora alpha 1280",
    "rank 16, alpha 32": "alpha_32 rank 16",
    "rank 128, alpha 32": "alpha_32 rank 128",
    "full": "full",
}


@pytest.mark.parametrize(("label", "curve"), BY_LOSS.items())
def test_learning_rates_by_validation_loss(label: str, curve: str):
    table = [row for row in rows("Learning rates on AG-News") if "optimum by loss" in row]
    [row] = [row for row in table if next(iter(row.values())) == label]
    study = curves("ag_news_minilm_alpha_10r")
    [found] = [entry for entry in loss_table(study) if entry["Curve"] == curve]
    assert numbers(row["optimum by loss"]) == numbers(re.split(", (?:from|at) ", found["Optimum (parabola)"])[0])
    rate = float(row["rate of the lowest loss"])
    assert rate == float(found["Rate of the lowest loss"])
    if label != "full":
        assert numbers(row["ratio by validation loss"]) == numbers(found["Optimum / full fine-tuning's"])
        assert numbers(row["each seed's"]) == numbers(found["Ratio of each seed"])
    [records] = [entry.groups[rate].records for entry in study if entry.label == curve]
    assert numbers(row["test there"]) == pytest.approx([100 * record.test for record in records], abs=0.051)
    norms = [record.results["update_norms"]["final"]["total"] for record in records]
    assert numbers(row["norms there"]) == pytest.approx(norms, abs=0.051)
