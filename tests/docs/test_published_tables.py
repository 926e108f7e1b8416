"""The tables of the results pages are those that the trials beside them give, and say what plain arithmetic does."""

import json
import re
import statistics

import numpy as np
import pytest
from scipy import stats

from tests.docs.published import RESULTS, definitions, records, with_tables

PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(RESULTS.glob("*.md"))}
PAGE = "\n".join(PAGES.values())
CONTENT = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}
STUDIES = {name: content["trials"] for name, content in CONTENT.items() if "trials" in content}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_holds_what_the_command_writes(name):
    assert with_tables(PAGES[name]) == PAGES[name], "run python -m tests.docs.published"


def test_each_table_stands_on_one_page():
    assert sorted(re.findall(r"<!-- table: (\w+) -->", PAGE)) == sorted(definitions())


def test_all_kept_trials_are_linked_and_can_be_reported():
    assert len(STUDIES) == 43
    for name, trials in STUDIES.items():
        assert f"({name}.json)" in PAGE
        assert len(records((name,))) == len(trials)


def cell(table: str, label: str, column: str) -> list[float]:
    """Numbers in a cell of the page."""
    text = PAGE.split(f"<!-- table: {table} -->")[1].split("<!-- end -->")[0].replace("−", "-").replace("–", " ")
    titles, _, *rows = [[part.strip() for part in line.strip("|").split("|")] for line in text.strip().splitlines()]
    row = next(row for row in rows if row[0].startswith(label))
    plain = re.sub(r"(?<=\d),(?=\d{3})|\(.*?\d of.*?\)", "", row[titles.index(column)])
    return [float(number) for number in re.findall(r"-?[\d.]+(?:e-?\d+)?", plain)]


def figures(study: str, kind: str, **wanted: object) -> dict[int, float]:
    """best, last or test × 100 by seed, from the JSON file alone."""
    found = {}
    for trial in STUDIES[study]:
        results, told = trial["results"], {"method": trial["method"], **trial["overrides"]}
        if results and all(told.get(name.replace("__", ".")) == value for name, value in wanted.items()):
            metric = results["metric"]
            found[results["seed"]] = 100 * (results["test"][metric["name"]] if kind == "test" else metric[kind])
    return dict(sorted(found.items()))


def test_medians_and_deviations():
    values = list(figures("cola_mpnet_equal_budget", "test", method="adalora").values())
    expected = [statistics.median(values), statistics.stdev(values)]
    assert cell("cola_methods", "AdaLoRA", "test") == pytest.approx(expected, abs=0.0051)


def test_differences_with_both_intervals():
    study, ours = "cola_mpnet_lower_rate", "adaptive_bounded"
    first, second = figures(study, "best", method=ours), figures(study, "best", method="fixed")
    seeds = sorted(first.keys() & second.keys())
    pairs = np.array([[first[seed], second[seed]] for seed in seeds])
    differences = pairs[:, 0] - pairs[:, 1]
    draws = np.random.default_rng(0).integers(0, len(seeds), (4000, len(seeds)))
    expected = [differences.mean(), *np.quantile(differences[draws].mean(axis=1), [0.025, 0.975])]
    assert cell("half_rate_differences", f"{ours} - fixed", "best epoch") == pytest.approx(expected, abs=0.051)
    student = stats.ttest_rel(*pairs.T).confidence_interval(0.95)
    assert cell("half_rate_differences", f"{ours} - fixed", "best epoch, Student's") == pytest.approx(
        student, abs=0.051
    )


def test_each_seeds_figures_and_the_budget_in_use():
    alpha = {"alpha_growth__alpha_min": 0.1, "model__optimizer__schedule": "constant"}
    expected = list(figures("cola_mpnet_alpha_range", "best", **alpha).values())
    assert cell("cola_alpha_ranges", "0.1", "constant, validation") == pytest.approx(expected, abs=0.051)
    runs = [trial["results"] for trial in STUDIES["rte_mpnet_equal_budget"] if trial["method"] == "adaptive_softmax"]
    used = [results["budget"]["used"] for results in runs]
    assert cell("rte_methods", "adaptive_softmax", "budget used") == [min(used), max(used)]


def test_nested_ranks():
    runs = [trial["results"] for trial in STUDIES["sst2_minilm_nested"] if trial["method"] == "nested"]
    nested = [100 * entry["val/accuracy"] for one in runs for entry in one["rank_curve"] if entry["rank"] == 4]
    separate = list(figures("sst2_minilm_nested", "best", model__adapter__rank=4).values())
    assert cell("nested", "4", "nested, held-out rows") == pytest.approx(nested, abs=0.051)
    assert cell("nested", "4", "difference") == pytest.approx(np.subtract(nested, separate), abs=0.051)
