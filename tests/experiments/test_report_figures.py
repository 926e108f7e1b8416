"""Figures read without colours, with any name, and with numbers where and as they are."""

import dataclasses
import html
import json
import re

import numpy as np
import pytest
import torch
import transformers
from matplotlib.figure import Figure

import cli
from callbacks.rank_pictures import rank_grid, rank_map
from common.errors import InputError
from experiments.closing_table import _rank_table
from experiments.report import figures_ranks
from experiments.report.content import Pictures, make_study
from experiments.report.drawing import INK, count_axis
from experiments.report.figures_compared import cost_figure, difference_figure, run_bars
from experiments.report.figures_ranks import RankSets, allocation_figures
from experiments.report.figures_rates import rate_curves, training_curves
from experiments.report.groups import make_groups
from experiments.report.record import RankHistory
from experiments.report.sources import read_records
from tests.experiments import made_runs

CURVE = {1e-4: {0: 0.5, 1: 0.6}, 1e-3: {0: 0.6, 1: 0.7}, 1e-2: {0: 0.5, 1: 0.6}}


@pytest.fixture
def adaptive(tmp_path):
    """The figures of three seeds of adaptive ranks, by what they show, and their final ranks (seed, layer)."""
    final = np.array([[4, 5, 2, 8], [7, 6, 2, 3], [5, 5, 2, 6]])
    for seed, ranks in enumerate(final.tolist()):
        made_runs.write_adaptive_run(tmp_path / f"run{seed}", seed, 0.5 + seed / 10, ranks)
    (group,) = make_groups(read_records([tmp_path]))
    return {name: draw() for name, _, draw in allocation_figures(RankSets.of(group), (2, 8))}, final


def cells(axes):
    """Numbers in a rank map's cells, row by row."""
    return [text.get_text() for text in axes.texts]


@pytest.fixture
def rate_figure(tmp_path):
    """Makes a figure that holds all kinds of things: lines, bands, a legend below, rates on its axis."""
    study = make_study(read_records([made_runs.write_rate_sweep(tmp_path / "sweep", {"lora": (16, CURVE)})]), None)
    return lambda: rate_curves(study.curves, "best", study.rate)


def test_a_figure_is_drawn_once_for_each_file(tmp_path, monkeypatch, rate_figure):
    drawn, draw = [], Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda figure, to: [drawn.append(type(to)), draw(figure, to)])
    Pictures(tmp_path).draw("rates", "Rates", rate_figure)
    assert {path.suffix for path in tmp_path.glob("rates.*")} == {".png", ".svg", ".pdf"}
    assert len(drawn) == 3


def test_another_process_writes_the_same_files_and_tells_what_went_wrong(tmp_path, rate_figure):
    for folder in ("here", "there", "taken"):
        (tmp_path / folder).mkdir()
    (tmp_path / "taken" / "rates.pdf").mkdir()
    Pictures(tmp_path / "here").draw("rates", "Rates", rate_figure)
    for folder in ("there", "taken"):
        pictures = Pictures(tmp_path / folder, in_parallel=True)
        pictures.draw("rates", "Rates", rate_figure)
        if folder == "there":
            pictures.wait()
    with pytest.raises(InputError, match=r"rates\.pdf"):
        pictures.wait()
    for name in ("rates.png", "rates.svg", "rates.pdf"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_a_name_is_written_as_it_is(tmp_path):
    names = ["a $x_{ b$", "_hidden", '<b>&"x']
    curves = dict.fromkeys(names, (16, CURVE)) | {"full": (None, CURVE)}
    folder = made_runs.write_rate_sweep(tmp_path / "sweep", curves)
    assert cli.main(["report", str(folder), "--baseline", "full"]) == 0
    page = (folder / "report.html").read_text()
    drawn = [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", page)]
    assert all(drawn.count(name) >= 2 for name in names)  # both rate figures' legends
    assert "<b>&" not in page


def test_lines_of_training_differ_in_more_than_colour(tmp_path):
    curves = {f"rank_{rank}": (rank, {1e-3: {0: 0.5}}) for rank in range(1, 13)}
    groups = make_groups(read_records([made_runs.write_rate_sweep(tmp_path / "sweep", curves)]))
    looks = {(line.get_marker(), line.get_linestyle()) for line in training_curves(groups).axes[0].lines}
    assert len(looks) == 12


def test_a_setting_looks_the_same_in_the_figures_of_cost_rates_and_training(tmp_path):
    curves = {name: (rank, CURVE) for name, rank in {"weak": 4, "strong": 16}.items()} | {"full": (None, CURVE)}
    study = make_study(read_records([made_runs.write_rate_sweep(tmp_path / "sweep", curves)]), "full")
    figures = [cost_figure(study.on_one_axis), rate_curves(study.curves, "best", study.rate)]
    figures.append(training_curves(sorted(study.on_one_axis, key=lambda group: group.label != "weak rate 0.001")))
    looks = [
        {text.get_text().partition(" ")[0]: (mark.get_color(), mark.get_marker()) for text, mark in
         zip(figure.legends[0].texts, figure.legends[0].legend_handles, strict=True)}
        for figure in figures
    ]  # fmt: skip
    assert looks[0] == looks[1] == looks[2] and len(looks[0]) == 3
    assert looks[0]["full"][0] == INK


def test_axes_of_one_epoch_and_of_few_counts_have_whole_and_several_ticks(tmp_path):
    curves = {"few": (4, {1e-3: {0: 0.5}}), "many": (16, {1e-3: {0: 0.6}})}
    study = make_study(read_records([made_runs.write_rate_sweep(tmp_path / "sweep", curves)]), None)
    axes = Figure().add_subplot()
    axes.plot([1536, 50736], [0, 1])
    count_axis(axes, "entries")
    low, high = axes.get_xlim()
    told = [text for text in axes.xaxis.get_major_formatter().format_ticks(axes.get_xticks()) if text]
    assert sum(low <= tick <= high for tick in axes.get_xticks()) >= 3 and "2k" in told and "50k" in told
    for group in study.groups:
        for record in group.records:
            record.metrics.update({name: values.iloc[:1] for name, values in record.metrics.items()})
    assert all(tick == round(tick) for axes in training_curves(study.groups).axes for tick in axes.get_xticks())


@pytest.mark.usefixtures("empty_figures")
def test_a_training_figure_leaves_out_what_no_run_has_kept_and_the_report_says_so(tmp_path):
    curves = {"fixed": (16, {1e-3: {0: 0.5, 1: 0.6}})}
    folder, trials = made_runs.write_rate_sweep(tmp_path / "sweep", curves), tmp_path / "trials.json"
    assert cli.main(["report", str(folder), "--trials", str(trials)]) == 0
    content = json.loads(trials.read_text())
    for trial in content["trials"]:
        trial["metrics"] = {}
        trial["results"]["train_losses"] = None
        trial["results"]["validations"] = [{"epoch": 0, "val/loss": 2.0}, {"epoch": 1, "val/loss": 1.0}]
    trials.write_text(json.dumps(content))
    (axes,) = training_curves(make_groups(read_records([trials]))).axes
    assert (axes.get_title(), axes.get_xlabel()) == ("validation loss", "epoch")
    for line in axes.lines:
        np.testing.assert_allclose(line.get_xydata(), [[1, 2], [2, 1]])
    assert all(tick == round(tick) for tick in axes.get_xticks())
    assert cli.main(["report", str(trials), "--output", str(tmp_path / "again")]) == 0
    assert "Not kept with these runs: training loss, accuracy" in (tmp_path / "again" / "report.md").read_text()


def test_rank_maps_are_medians_over_seeds_with_their_change_and_deviation_in_one_order_and_scale(adaptive):
    figures, final = adaptive
    maps = {axes.get_title(loc="left"): axes for axes in figures["rank_maps"].axes if axes.get_title(loc="left")}
    start = np.full(4, 5.0)  # made_runs.ranks
    expected = {
        "at the start": start,
        "at the end": np.median(final, axis=0),
        "change, end − start": np.median(final - start, axis=0),
        "standard deviation over seeds": final.std(axis=0, ddof=1),
    }
    assert list(maps) == list(expected)
    for (name, values), axes in zip(expected.items(), maps.values(), strict=True):
        by_projection = values.reshape(2, 2).T  # made_runs.LAYERS: layer by layer
        np.testing.assert_allclose(axes.images[0].get_array(), np.round(by_projection, 1))
        decimals = 1 if name.startswith("standard") else 0
        assert cells(axes) == [f"{value:.{decimals}f}" for value in by_projection.ravel()]
        assert [label.get_text() for label in axes.get_yticklabels()] == [
            "attention.self.query",
            "attention.self.value",
        ]
    limits = [maps[name].images[0].get_clim() for name in ("at the start", "at the end", "change, end − start")]
    assert limits == [(2, 8), (2, 8), (-3, 3)]
    assert cells(rank_map({"layer.0.query": 7.0}, 2, 8, "ranks").axes[0]) == ["7"]


def test_lines_of_each_type_of_layer_are_medians_over_seeds_and_means_over_layers(adaptive):
    figures, final = adaptive
    at_end, over_time = figures["ranks_by_layer_type"].axes
    by_layer = np.median(final, axis=0).reshape(2, 2)  # made_runs.LAYERS: layer by layer, query and value
    for place, (line, moments) in enumerate(zip(at_end.lines, over_time.lines, strict=True)):
        np.testing.assert_allclose(line.get_xydata(), [[0, by_layer[0, place]], [1, by_layer[1, place]]])
        np.testing.assert_allclose(moments.get_xydata(), [[0, 5], [9, by_layer[:, place].mean()]])


def test_each_run_has_a_bar_and_the_baseline_a_band(tmp_path):
    curves = {"fixed": (1, {1e-3: {0: 0.5, 1: 0.53, 2: 0.56}}), "ours": (2, {1e-3: {0: 0.6, 1: 0.7}})}
    study = make_study(read_records([made_runs.write_rate_sweep(tmp_path / "sweep", curves)]), "fixed")
    (axes,) = run_bars(study.groups, study.baseline).axes
    *bars, band = axes.patches
    np.testing.assert_allclose([bar.get_width() for bar in bars], [60, 70, 50, 53, 56])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ours", "fixed"]
    *_, line = axes.lines
    np.testing.assert_allclose(line.get_xdata(), 53)
    np.testing.assert_allclose([band.get_x(), band.get_width()], [50, 6])
    assert len(run_bars(study.groups, None).axes[0].lines) == len(axes.lines) - 1 and run_bars([], None) is None


@pytest.mark.usefixtures("empty_figures")
def test_differences_name_metric_and_direction_and_count_what_is_left_out(tmp_path):
    curves = {"fixed": (1, {1e-3: {0: 20.0}})}
    curves |= {f"rank_{rank}": (rank, {1e-3: {0: 20.0 + rank}}) for rank in range(2, 30)}
    folder = made_runs.write_rate_sweep(tmp_path / "sweep", curves, "perplexity")
    study = make_study(read_records([folder]), "fixed")
    figure = difference_figure(study.groups, study.baseline)
    assert figure.get_supxlabel() == "perplexity: difference to fixed (lower is better)"
    assert len(figure.axes[0].get_yticks()) == 24
    assert cli.main(["report", str(folder), "--baseline", "fixed"]) == 0
    assert f"The best settings are shown; {28 - 24} more are left out." in (folder / "report.md").read_text()


SMALL = {"vocab_size": 40, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
SEQUENCES = {"vocab_size": 40, "d_model": 8, "num_heads": 2, "d_kv": 4, "d_ff": 16}
HEADS = {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
COLLIDING = {
    "bart": transformers.BartConfig(**SEQUENCES, **HEADS, encoder_layers=2, decoder_layers=2),
    "t5": transformers.T5Config(**SEQUENCES, num_layers=2, num_decoder_layers=3),
    "mobilebert": transformers.MobileBertConfig(**SMALL, embedding_size=8, num_hidden_layers=2),
}


@pytest.mark.parametrize("config", COLLIDING.values(), ids=COLLIDING)
def test_layers_whose_last_numbers_collide_are_all_on_the_map_in_the_table_and_in_the_figures(config):
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    paths = [name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)]
    ranks = {path: rank for rank, path in enumerate(paths, start=1)}
    layers, projections, rows = rank_grid(ranks)
    assert sorted(rank for row in rows for rank in row if rank is not None) == list(ranks.values())
    assert len(paths) > 20 and len(layers) <= 3 and len(set(projections)) == len(projections)
    assert sorted(map(int, cells(rank_map(ranks, 1, 20, "ranks").axes[0]))) == list(ranks.values())
    lines = [column._cells for column in _rank_table(ranks).columns[1:]]
    assert sorted(int(str(cell)) for column in lines for cell in column if str(cell)) == list(ranks.values())
    (moment,) = RankHistory.from_plain(made_runs.ranks([1, 1, 1, 1])).history[:1]
    history = RankHistory(layers=ranks, history=[dataclasses.replace(moment, ranks=[float(r) for r in ranks.values()])])
    sets = RankSets(None, paths, [history], (1, 99))
    figures = {figure: getattr(figures_ranks, figure) for figure in ("_over_time", "_maps")}
    for name, draw in figures.items():
        image = draw(sets, (1, 99)).axes[0].images[0].get_array()
        assert sorted(image[~np.ma.getmaskarray(image) & ~np.isnan(image)].ravel()) == list(ranks.values()), name
    drawn = figures_ranks._by_type(sets).axes[0].lines
    assert sorted(rank for line in drawn for rank in line.get_ydata()) == list(ranks.values())
