"""Reports over made runs: their numbers, their page, and what bad folders get."""

import csv
import json
import re
import statistics
from html.parser import HTMLParser

import numpy as np
import pytest

import cli
from experiments.report.figures_differences import difference_figure
from experiments.report.figures_rates import rate_curves
from experiments.report.groups import make_curves, make_groups, swept_rate
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
    assert cli.main(["report", str(folder), "--baseline", "full", "--seed2_json"]) == 0
    return folder


@pytest.fixture(scope="module")
def rank_report(tmp_path_factory):
    """Two seeds of adaptive runs, one collapsed, one that failed and one that diverged."""
    folder = tmp_path_factory.mktemp("runs")
    adaptive = {"adapter": "AdaptiveLoRAXS", "budget": {"requested": 100.0, "used": 98.0}, "average_rank": 5.0}
    kinds = {0: {}, 1: {}, 2: {"status": "collapsed", "collapsed_epochs": [0, 1]}, 3: {"status": "diverged"}}
    for seed, changes in kinds.items():
        best = {2: 0.0, 3: None}.get(seed, 0.6 + 0.01 * seed)
        outcome = made_runs.results(f"run{seed}", seed, best, "matthews_correlation", **adaptive, **changes)
        final = [4, 5, 2, 8] if seed % 2 else [7, 6, 2, 3]
        made_runs.write_run(folder / f"run{seed}", made_runs.adaptive_config(seed), outcome, made_runs.ranks(final))
    made_runs.write_run(folder / "run4", made_runs.adaptive_config(4), None)
    (folder / "run4" / "failure.json").write_text(json.dumps({"error": "out of memory: 2 GiB <asked>", "attempts": 1}))
    assert cli.main(["report", str(folder), "--output", str(folder / "page")]) == 0
    return folder / "page"


def table(folder):
    return list(csv.DictReader((folder / "table.csv").read_text().splitlines()))


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


def test_differences_are_paired_with_the_baselines_best_settings(rate_report):
    rows = table(rate_report)
    baseline = next(row for row in rows if row["Difference to baseline"] == "baseline")
    assert baseline["Method"].startswith("full") and float(baseline["LR"]) == 3e-4
    row = next(row for row in rows if row["Method"].startswith("rank_64") and float(row["LR"]) == 1e-3)
    ours, theirs = CURVES["rank_64"][1][1e-3], CURVES["full"][1][3e-4]
    mean = 100 * np.mean([ours[seed] - theirs[seed] for seed in SEEDS])
    assert row["Difference to baseline"].startswith(f"{mean:+.2f} [")
    assert row["Difference to baseline"].endswith("(3 pairs)")


def test_differences_are_drawn_seed_by_seed_with_mean_and_interval(tmp_path):
    fixed, ours = {0: 0.50, 1: 0.52, 2: 0.51}, {0: 0.53, 1: 0.51, 2: 0.01}
    write = made_runs.write_rate_sweep(tmp_path / "pairs", {"fixed": (16, {1e-3: fixed}), "ours": (64, {1e-3: ours})})
    groups = make_groups(read_records([write]))
    baseline = next(group for group in groups if group.method == "fixed")
    axes = difference_figure(groups, baseline).axes[0]
    dots, interval, mean = (line.get_xdata() for line in axes.lines[:3])
    expected = [100 * (ours[seed] - fixed[seed]) for seed in range(3)]
    np.testing.assert_allclose(dots, expected)
    np.testing.assert_allclose(mean, [np.mean(expected)])
    assert min(expected) <= interval[0] < mean[0] < interval[1] <= max(expected)
    low, high = axes.lines[-1].get_xdata()
    assert low < interval[0] and interval[1] < high  # Student's
    assert axes.get_xlim()[0] > low and axes.get_xlim()[1] < high  # doesn't squash the dots
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ours"]
    assert difference_figure([baseline], baseline) is None


def test_rates_are_chosen_on_validation_and_compared_with_full_fine_tuning(rate_report):
    records = read_records([rate_report])
    curves = make_curves(make_groups(records), swept_rate(records))
    assert [curve.label for curve in curves] == ["rank_16", "rank_64", "full"]
    assert [curve.is_full for curve in curves] == [False, False, True]
    text = (rate_report / "report.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| rank_16 | 5"))
    chosen, optimum, validation, test, ratio, by_seed, student = [cell.strip() for cell in line.split("|")[3:-1]]
    assert (chosen, optimum.split()[0]) == ("0.003", "0.002")
    values = [100 * value for value in CURVES["rank_16"][1][3e-3].values()]
    assert validation == f"{statistics.median(values):.2f} ± {statistics.stdev(values):.2f}"
    assert test.startswith(f"{statistics.median(values) - 2:.2f}")
    assert ratio.startswith("10×") and by_seed == "10, 10, 10" and student == "[10, 10]"


def test_lower_is_better_for_perplexity(tmp_path):
    curve = {rate: {0: 20 + np.log10(rate / 1e-3) ** 2} for rate in RATES}
    folder = made_runs.write_rate_sweep(tmp_path / "words", {"rank_16": (16, curve)}, "perplexity")
    assert cli.main(["report", str(folder)]) == 0
    assert float(table(folder)[0]["LR"]) == 1e-3
    assert table(folder)[0]["Median ± Std"] == "20.00"  # a perplexity isn't a fraction
    assert "| rank_16 | 5 | 0.001 | 0.001 |" in (folder / "report.md").read_text()


def test_the_second_studys_layout(rate_report):
    files = {path.name for path in (rate_report / "seed2").iterdir()}
    assert files == {f"{method}-seed_{seed}.json" for method in CURVES for seed in SEEDS}
    layout = json.loads((rate_report / "seed2" / "full-seed_0.json").read_text())
    assert list(layout) == ["0.0001", "0.0003", "0.001", "0.003", "0.01"]
    accuracy = layout["0.001"].pop("test_acc")
    assert accuracy == pytest.approx(CURVES["full"][1][1e-3][0] - 0.02)
    assert layout["0.001"] == {"best_val_loss": 0.6, "train_losses": [0.9, 0.5], "val_losses": [0.8, 0.6]}


class References(HTMLParser):
    """Everything a page would load or link to."""

    def __init__(self):
        super().__init__()
        self.found, self.tags, self.ids = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                self.found.append(value)


@pytest.mark.parametrize("kind", ["rate_report", "rank_report"])
def test_the_page_loads_nothing_and_its_links_have_targets(kind, request):
    html = (request.getfixturevalue(kind) / "report.html").read_text()
    page = References()
    page.feed(html)
    assert page.found and all(value.startswith(("#", "data:image/png")) for value in page.found)
    assert {value[1:] for value in page.found if value.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    for part in ('name="viewport"', "prefers-color-scheme: dark", "@media print"):
        assert part in html


def test_what_went_wrong_is_shown_and_counted(rank_report):
    (row,) = table(rank_report)
    assert row["Status"] == "2 finished, 1 collapsed, 1 diverged, 1 failed"
    assert row["n"] == "3"  # the diverged run reached no figure, the failed one neither
    assert row["Median ± Std"].startswith("60.00")
    html = (rank_report / "report.html").read_text()
    assert "out of memory: 2 GiB &lt;asked&gt;" in html
    assert "one answer for every validation row" in html
    for fact in ("made/news: 100 train", "made-base", "2.13.0", "python cli.py report"):
        assert fact in html


def test_ranks_are_shown_at_the_start_over_time_and_at_the_end(rank_report):
    names = {path.name for path in (rank_report / "figures").iterdir()}
    kinds = ("start", "end", "spread", "over_time")
    assert {f"ranks_{kind}_0.png" for kind in kinds} | {"alpha_and_budget_0.png", "masks_end_0.png"} <= names
    (row,) = table(rank_report)
    assert (row["Rank Min"], row["Rank Max"], row["Alpha Min"], row["Alpha Max"]) == ("2", "8", "0.5", "3")
    assert "Rank correlation between seeds 0." in (rank_report / "report.md").read_text()


def test_a_run_in_two_folders_counts_once(rate_report):
    assert len(read_records([rate_report, rate_report, next(rate_report.glob("full-*"))])) == 45


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "there is no folder or file"), ({}, "holds no runs"), ({"results.json": '{"trials": ['}, "can't be read")],
)
def test_bad_folders_get_one_message(tmp_path, capsys, content, expected):
    folder = tmp_path / "runs"
    if content is not None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)
    assert cli.main(["report", str(folder)]) == 2
    message = capsys.readouterr().err
    assert expected in message and "Traceback" not in message


def test_an_unknown_baseline_lists_the_known_ones(rate_report, capsys, tmp_path):
    assert cli.main(["report", str(rate_report), "--baseline", "rank_8", "--output", str(tmp_path)]) == 2
    assert "rank_16" in capsys.readouterr().err


def test_an_optimum_beside_a_collapsed_rate_is_said_to_be_set_by_the_grid(tmp_path):
    good = {1e-4: 0.88, 3e-4: 0.89, 1e-3: 0.90, 3e-3: 0.25}
    curves = {
        "cliff": (16, {rate: dict.fromkeys(SEEDS, height) for rate, height in good.items()}),
        "smooth": (64, scores(1e-3, 0.9)),
    }
    folder = made_runs.write_rate_sweep(tmp_path / "rates", curves)
    sweep = json.loads((folder / "results.json").read_text())
    for trial in sweep["trials"]:
        if trial["name"].startswith("cliff-0.003"):
            trial["results"]["status"] = "collapsed"
    (folder / "results.json").write_text(json.dumps(sweep))
    records = read_records([folder])
    rows = {row["Curve"]: row for row in rate_table(make_curves(make_groups(records), swept_rate(records)))}
    told = {name.split()[0]: "set by the grid" in row["Optimum (parabola)"] for name, row in rows.items()}
    assert told == {"cliff": True, "smooth": False}


def test_a_blown_up_perplexity_leaves_the_others_readable(tmp_path):
    figures = {1e-4: 20.0, 1e-3: 18.0, 1e-2: 78022.6}
    curves = {"rank_16": (16, {rate: dict.fromkeys(SEEDS, value) for rate, value in figures.items()})}
    records = read_records([made_runs.write_rate_sweep(tmp_path / "rates", curves, "perplexity")])
    rate = swept_rate(records)
    (axes,) = rate_curves(make_curves(make_groups(records), rate), "best", rate).axes
    assert axes.get_ylim() == pytest.approx((16.2, 54.0))
    assert [text.get_text() for text in axes.texts] == ["78,023 ↑"]


def test_rates_are_also_compared_by_validation_loss_where_an_accuracy_is_flat(tmp_path):
    def loss(rate, best):
        return 0.3 + 0.1 * np.log10(rate / best) ** 2

    optima = {"rank_16": 1e-3, "full": 2e-4}
    flat = {name: (16 if name == "rank_16" else None, {r: dict.fromkeys(SEEDS, 0.9) for r in RATES}) for name in optima}
    folder = made_runs.write_rate_sweep(tmp_path / "rates", flat)
    sweep = json.loads((folder / "results.json").read_text())
    for trial in sweep["trials"]:
        name, rate, seed = trial["name"].split("-")
        trial["results"]["best_val_loss"] = loss(float(rate), optima[name]) + 0.01 * int(seed)
    (folder / "results.json").write_text(json.dumps(sweep))
    records = read_records([folder])
    curves = make_curves(make_groups(records), swept_rate(records))
    assert rate_table(curves)[0]["Optimum / full fine-tuning's"].startswith("unknown (its optimum: flat")
    row = loss_table(curves)[0]
    assert row["Rate of the lowest loss"] == "0.001" and row["Loss there"] == "0.3100 ± 0.0100"
    assert row["Optimum (parabola)"] == "0.001 [0.001, 0.001]"
    assert row["Optimum / full fine-tuning's"] == "5× [5, 5]" and row["Ratio of each seed"] == "5, 5, 5"
    (axes,) = rate_curves(curves, "loss", swept_rate(records)).axes
    assert axes.get_ylabel() == "validation loss"
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [loss(rate, 1e-3) + 0.01 for rate in RATES])


def test_a_perplexity_is_a_validation_loss_already(tmp_path):
    curves = {"rank_16": (16, {rate: {0: 20.0} for rate in RATES})}
    records = read_records([made_runs.write_rate_sweep(tmp_path / "rates", curves, "perplexity")])
    assert loss_table(make_curves(make_groups(records), swept_rate(records))) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.json", b"{}"),
        ("config.yaml", b"a: [1"),
        ("config.yaml", b"- a"),
        ("config.yaml", b"a: \xe9"),
        ("metrics.csv", b"\x00\xff"),
        ("metrics.csv", b"a,b\n1,x\n"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(tmp_path, capsys, name, content):
    for seed in (0, 1):
        outcome = made_runs.results(f"run{seed}", seed, 0.5)
        made_runs.write_run(tmp_path / f"run{seed}", made_runs.config(0.1, seed, 4), outcome)
    (tmp_path / "run0" / name).write_bytes(content)
    assert cli.main(["report", str(tmp_path)]) == 2
    assert str(tmp_path / "run0" / name) in capsys.readouterr().err


@pytest.mark.parametrize("trials", [3, [3], [{}], [{"results": None}]])
def test_a_summary_that_no_sweep_wrote_is_refused(tmp_path, capsys, trials):
    (tmp_path / "results.json").write_text(json.dumps({"trials": trials}))
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "isn't what a sweep writes" in capsys.readouterr().err


def test_a_damaged_failure_is_named(tmp_path, capsys):
    made_runs.write_run(tmp_path / "run0", made_runs.config(0.1, 0, 4), None)
    (tmp_path / "run0" / "failure.json").write_text("{")
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "failure.json can't be read" in capsys.readouterr().err
