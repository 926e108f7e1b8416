"""Reports over made runs: their numbers, their page, and what damaged files get."""

import csv
import json
import re
import statistics
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy import stats

import cli
from experiments.report.content import make_study
from experiments.report.figures_compared import difference_figure
from experiments.report.figures_rates import rate_curves
from experiments.report.rate_tables import loss_table, rate_table
from experiments.report.sources import read_records
from tests.experiments import made_runs

RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
SEEDS = (0, 1, 2)


def scores(best, height):
    """A parabola in log rate, a little different for each seed."""
    return {
        rate: {seed: height + 0.002 * seed * (1 + rate) - 0.04 * np.log10(rate / best) ** 2 for seed in SEEDS}
        for rate in RATES
    }


CURVES = {
    "rank_16": (16, scores(2e-3, 0.90)),
    "rank_64": (64, scores(1.5e-3, 0.91)),
    "full": (None, scores(2e-4, 0.89)),
}


@pytest.fixture(scope="module")
def rate_report(tmp_path_factory):
    folder = made_runs.write_rate_sweep(tmp_path_factory.mktemp("runs") / "rates", CURVES)
    assert cli.main(["report", str(folder), "--baseline", "full"]) == 0
    return folder


@pytest.fixture(scope="module")
def rank_report(tmp_path_factory):
    """Two seeds of adaptive runs, one collapsed, one that failed and one that diverged."""
    folder = tmp_path_factory.mktemp("runs")
    budget = {"requested": 100.0, "used": 98.0}
    kinds = {0: {}, 1: {}, 2: {"status": "collapsed", "collapsed_epochs": [0, 1]}, 3: {"status": "diverged"}}
    for seed, changes in kinds.items():
        best = {2: 0.0, 3: None}.get(seed, 0.6 + 0.01 * seed)
        final = [4, 5, 2, 8] if seed % 2 else [7, 6, 2, 3]
        made_runs.write_adaptive_run(
            folder / f"run{seed}", seed, best, final, metric="matthews_correlation", budget=budget, **changes
        )
    made_runs.write_run(folder / "run4", made_runs.adaptive_config(4), None)
    (folder / "run4" / "failure.json").write_text(json.dumps({"error": "out of memory: 2 GiB <asked>", "attempts": 1}))
    assert cli.main(["report", str(folder), "--output", str(folder / "page")]) == 0
    return folder / "page"


def table(folder):
    return list(csv.DictReader((folder / "table.csv").read_text().splitlines()))


def changed_sweep(folder, curves, change):
    """A sweep over rates, each of whose trials is changed, put in order."""
    made_runs.write_rate_sweep(folder, curves, change=lambda trial: change(trial["name"], trial["results"]))
    return make_study(read_records([folder]), None)


@pytest.mark.slow
def test_the_table_has_the_studys_columns_and_figures(rate_report):
    rows = table(rate_report)
    columns = ["Task", "Rank Min", "Rank Max", "Alpha Min", "Alpha Max", "LR", "Rank Avg", "Median ± Std"]
    assert [name for name in rows[0] if name in columns] == columns
    assert len(rows) == 15
    row = next(row for row in rows if row["Method"].startswith("rank_16") and float(row["LR"]) == 1e-3)
    values = [100 * value for value in CURVES["rank_16"][1][1e-3].values()]
    assert row["Median ± Std"] == f"{statistics.median(values):.2f} ± {statistics.stdev(values):.2f}"
    assert row["Last epoch"].startswith(f"{statistics.median(values) - 1:.2f}")
    assert (row["n"], row["Task"], row["Rank Avg"], row["Status"]) == ("3", "news", "16", "3 finished")
    medians = [float(row["Median ± Std"].split()[0]) for row in rows]
    assert medians == sorted(medians, reverse=True)


def test_differences_are_drawn_seed_by_seed_with_mean_and_interval(tmp_path):
    fixed, ours = {0: 0.50, 1: 0.52, 2: 0.51}, {0: 0.53, 1: 0.51, 2: 0.01}
    made_runs.write_rate_sweep(tmp_path / "pairs", {"fixed": (16, {1e-3: fixed}), "ours": (64, {1e-3: ours})})
    study = make_study(read_records([tmp_path / "pairs"]), "fixed")
    axes = difference_figure(study.groups, study.baseline).axes[0]
    dots, mean = (line.get_xdata() for line in axes.lines[:2])
    expected = [100 * (ours[seed] - fixed[seed]) for seed in range(3)]
    np.testing.assert_allclose(dots, expected)
    np.testing.assert_allclose(mean, [np.mean(expected)])
    low, high = axes.lines[-1].get_xdata()
    assert [low, high] == pytest.approx(list(stats.ttest_1samp(expected, 0).confidence_interval(0.95)))
    assert axes.get_xlim()[0] > low and axes.get_xlim()[1] < high  # doesn't squash the dots
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ours"]
    assert difference_figure([study.baseline], study.baseline) is None


def test_rates_are_chosen_on_validation_and_compared_with_full_fine_tuning(rate_report):
    curves = make_study(read_records([rate_report]), None).curves
    assert [(curve.label, curve.is_full) for curve in curves] == [
        ("rank_16", False),
        ("rank_64", False),
        ("full", True),
    ]
    text = (rate_report / "report.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| rank_16 | 5"))
    chosen, optimum, validation, test, ratio, by_seed = [cell.strip() for cell in line.split("|")[3:-1]]
    assert (chosen, optimum.split()[0]) == ("0.003", "0.002")
    values = [100 * value for value in CURVES["rank_16"][1][3e-3].values()]
    assert validation == f"{statistics.median(values):.2f} ± {statistics.stdev(values):.2f}"
    assert test.startswith(f"{statistics.median(values) - 2:.2f}")
    assert ratio == "10× [10, 10]" and by_seed == "10, 10, 10"


@pytest.mark.usefixtures("empty_figures")
def test_lower_is_better_for_perplexity_which_is_a_validation_loss_already(tmp_path):
    curve = {rate: {0: 20 + np.log10(rate / 1e-3) ** 2} for rate in RATES}
    folder = made_runs.write_rate_sweep(tmp_path / "words", {"rank_16": (16, curve)}, "perplexity")
    assert cli.main(["report", str(folder)]) == 0
    assert float(table(folder)[0]["LR"]) == 1e-3
    assert table(folder)[0]["Median ± Std"] == "20.00"  # a perplexity isn't a fraction
    assert "| rank_16 | 5 | 0.001 | 0.001 |" in (folder / "report.md").read_text()
    assert loss_table(make_study(read_records([folder]), None).curves).empty


@pytest.mark.usefixtures("empty_figures")
def test_the_second_studys_test_accuracy_is_that_after_the_last_epoch(tmp_path):
    metric = {"name": "accuracy", "higher_is_better": True, "best": 0.9, "best_epoch": 0, "last": 0.8}
    tests = {"test": {"accuracy": 0.88, "loss": 0.4}, "test_last": {"accuracy": 0.77, "loss": 0.5}}
    for seed, changes in enumerate(({"metric": metric, **tests}, {"metric": metric, "test": tests["test"]})):
        outcome = {**made_runs.results(f"run{seed}", seed, 0.9), **changes}
        made_runs.write_run(tmp_path / f"run{seed}", made_runs.config(1e-3, seed, 16), outcome)
    assert cli.main(["report", str(tmp_path), "--seed2_json"]) == 0
    files = sorted((tmp_path / "seed2").iterdir())
    layouts = [json.loads(path.read_text())["0.001"] for path in files]
    assert len(files) == 2 and files[0].stem.endswith("seed_0")
    losses = {"best_val_loss": 0.6, "train_losses": [0.9, 0.5], "val_losses": [0.8, 0.6]}
    assert all(losses.items() <= layout.items() for layout in layouts)
    # an earlier version's results tell the best epoch's alone
    assert [layout["test_acc"] for layout in layouts] == [0.77, None]
    assert [layout["best_epoch_test_acc"] for layout in layouts] == [0.88, 0.88]


class Outline(HTMLParser):
    """Tags with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rate_report", "rank_report"])
def test_the_page_loads_nothing_its_links_have_targets_and_it_can_be_read_by_ear_and_scrolled_by_key(kind, request):
    html = (request.getfixturevalue(kind) / "report.html").read_text()
    found = Outline(html).found
    tags, ids = [tag for tag, _ in found], [named["id"] for _, named in found if "id" in named]
    loading = ("src", "href", "xlink:href", "srcset", "data", "action", "poster")
    links = [value for _, named in found for name, value in named.items() if name in loading]
    assert links and all(value.startswith(("#", "data:image/png")) for value in links)
    assert {value[1:] for value in links if value.startswith("#")} <= set(ids) and len(ids) == len(set(ids))
    assert not {"script", "link", "iframe", "img"} & set(tags)
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    for part in ('name="viewport"', "prefers-color-scheme: dark", "@media print"):
        assert part in html
    assert tags.count("main") == 1 and "aria-label" in next(named for tag, named in found if tag == "nav")
    scrolled = [named for _, named in found if named.get("class") == "scroll"]
    wide = [named for tag, named in found if tag == "figure" and named.get("class") == "wide"]
    assert len(scrolled) == tags.count("table") + len(wide) == len({named["aria-label"] for named in scrolled})
    assert all(named["tabindex"] == "0" and named["role"] == "region" for named in scrolled)
    scopes = [named["scope"] for tag, named in found if tag == "th"]
    assert scopes.count("row") + tags.count("thead") == tags.count("tr")  # every row but the heads' has a header


def test_what_went_wrong_is_shown_and_counted(rank_report):
    (row,) = table(rank_report)
    assert row["Status"] == "2 finished, 1 collapsed, 1 diverged, 1 failed"
    assert row["n"] == "3"  # the diverged run reached no figure, the failed one neither
    assert row["Median ± Std"].startswith("60.00")
    html = (rank_report / "report.html").read_text()
    for fact in (
        *("out of memory: 2 GiB &lt;asked&gt;", "one answer for every validation row"),
        *("made/news: 100 train", "made-base", "2.13.0", "python cli.py report"),
    ):
        assert fact in html


def test_ranks_are_shown_at_the_start_over_time_and_at_the_end(rank_report):
    names = {path.name for path in (rank_report / "figures").iterdir()}
    shown = ("rank_maps", "ranks_over_training", "ranks_by_layer_type", "mask_sharpness_and_budget")
    assert {f"{name}_AdaptiveLoRAXS.{kind}" for name in shown for kind in ("png", "svg", "pdf")} <= names
    (row,) = table(rank_report)
    assert (row["Rank Min"], row["Rank Max"], row["Alpha Min"], row["Alpha Max"]) == ("2", "8", "0.5", "3")
    assert "chance) at the end 0." in (rank_report / "report.md").read_text()


def test_a_run_in_two_folders_counts_once(rate_report):
    assert len(read_records([rate_report, rate_report, next(rate_report.glob("full-*"))])) == 45


def test_an_unknown_baseline_lists_the_known_ones(rate_report, capsys, tmp_path):
    assert cli.main(["report", str(rate_report), "--baseline", "rank_8", "--output", str(tmp_path)]) == 2
    assert "rank_16" in capsys.readouterr().err


def test_an_optimum_beside_a_collapsed_rate_is_said_to_be_set_by_the_grid(tmp_path):
    good = {1e-4: 0.88, 3e-4: 0.89, 1e-3: 0.90, 3e-3: 0.25}
    cliff = (16, {rate: dict.fromkeys(SEEDS, height) for rate, height in good.items()})

    def collapse(name, results):
        if name.startswith("cliff-0.003"):
            results["status"] = "collapsed"

    study = changed_sweep(tmp_path / "rates", {"cliff": cliff, "smooth": (64, scores(1e-3, 0.9))}, collapse)
    optima = rate_table(study.curves).set_index("Curve")["Optimum (parabola)"]
    assert ["set by the grid" in optima[name] for name in ("cliff", "smooth")] == [True, False]


def test_a_blown_up_perplexity_leaves_the_others_readable(tmp_path):
    figures = {1e-4: 20.0, 1e-3: 18.0, 1e-2: 78022.6}
    curves = {"rank_16": (16, {rate: dict.fromkeys(SEEDS, value) for rate, value in figures.items()})}
    folder = made_runs.write_rate_sweep(tmp_path / "rates", curves, "perplexity")
    study = make_study(read_records([folder]), None)
    (axes,) = rate_curves(study.curves, "best", study.rate).axes
    assert axes.get_ylim()[0] < 18 and 20 < axes.get_ylim()[1] < 25
    assert [text.get_text() for text in axes.texts] == ["78,023"]
    np.testing.assert_allclose(axes.lines[-1].get_xydata(), [[1e-2, axes.get_ylim()[1]]])  # the mark at the edge


def test_rates_are_also_compared_by_validation_loss_where_an_accuracy_is_flat(tmp_path):
    def loss(rate, best):
        return 0.3 + 0.1 * np.log10(rate / best) ** 2

    def losses(name, results):
        method, rate, seed = name.split("-")
        results["best_val_loss"] = loss(float(rate), optima[method]) + 0.01 * int(seed)

    optima = {"rank_16": 1e-3, "full": 2e-4}
    flat = {name: (16 if name == "rank_16" else None, {r: dict.fromkeys(SEEDS, 0.9) for r in RATES}) for name in optima}
    study = changed_sweep(tmp_path / "rates", flat, losses)
    assert rate_table(study.curves)["Optimum / full fine-tuning's"][0].startswith("unknown (its optimum: flat")
    row = loss_table(study.curves).iloc[0]
    assert row["Rate of the lowest loss"] == "0.001" and row["Loss there"] == "0.3100 ± 0.0100"
    assert row["Optimum (parabola)"] == "0.001 [0.001, 0.001]"
    assert row["Optimum / full fine-tuning's"] == "5× [5, 5]" and row["Ratio of each seed"] == "5, 5, 5"
    (axes,) = rate_curves(study.curves, "loss", study.rate).axes
    assert axes.get_ylabel() == "validation loss"
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [loss(rate, 1e-3) + 0.01 for rate in RATES])
