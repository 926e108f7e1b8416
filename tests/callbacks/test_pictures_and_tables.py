import csv
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from callbacks.predictions import PredictionTable
from callbacks.rank_logging import RankLogging, rank_metrics
from callbacks.rank_pictures import layer_and_projection, mask_pictures, rank_grid, rank_map
from datamodules.sources import Examples
from datamodules.task import GLUE_TASKS
from lightning_modules.prediction_tables import answers_table
from lora import AdaptiveLoRAXS, LoRAXS
from tests import tiny


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("roberta.encoder.layer.23.attention.self.query", (23, "attention.self.query")),
        ("transformer.h.0.mlp.c_proj", (0, "mlp.c_proj")),
        ("experts.2.layer.10.output.dense", (10, "output.dense")),
        ("encoder.layer.7", (7, "")),
        ("pooler.dense", (0, "pooler.dense")),
    ],
)
def test_a_path_splits_at_its_last_number(path, expected):
    assert layer_and_projection(path) == expected


def test_ranks_become_a_table_with_layers_in_order_of_number_and_gaps_empty():
    ranks = {"h.10.q": 1.0, "h.2.q": 2.0, "h.2.v": 3.0, "h.0.v": 4.0}
    assert rank_grid(ranks) == ([0, 2, 10], ["q", "v"], [[None, 2.0, 1.0], [4.0, 3.0, None]])


def test_a_rank_map_shows_every_rank():
    figure = rank_map({"h.0.q": 3.2, "h.1.q": 7.0, "h.1.v": 5.0}, 2, 8, "a title")
    axes = figure.axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ["3", "5", "7"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["q", "v"]
    assert figure.get_suptitle() == "a title"
    FigureCanvasAgg(figure).draw()


# A continuous rank is shown rounded: 8.4 is the rank 8.
@pytest.mark.parametrize(("highest", "extend"), [(8.4, "neither"), (9.0, "max")])
def test_a_rank_beyond_the_bounds_is_marked(highest, extend):
    figure = rank_map({"h.0.q": highest, "h.1.q": 2.0}, 2, 8, "a title")
    image, bar = figure.axes[0].images[0], figure.axes[1]._colorbar
    assert bar.extend == extend
    shown = image.to_rgba(image.get_array())[0, 0, :3].tolist()
    assert (shown == [1, 0, 0]) == (extend == "max")
    assert all(tick == int(tick) for tick in bar.get_ticks())


def test_in_a_narrow_rank_map_there_are_no_digits_and_few_layers_are_named():
    ranks = {f"h.{layer}.q": float(layer) for layer in range(24)}
    narrow, wide = rank_map(ranks, 0, 23, "", width=5.0).axes[0], rank_map(ranks, 0, 23, "").axes[0]
    assert (len(narrow.texts), len(wide.texts)) == (0, 24)
    assert [label.get_text() for label in narrow.get_xticklabels()] == ["0", "3", "6", "9", "12", "15", "18", "21"]


def test_masks_are_one_figure_with_a_frame_around_each():
    masks = torch.ones(4, 3, 3)
    figure = mask_pictures(masks, [f"h.{layer}.attention.query" for layer in range(4)])
    assert [axes.get_title() for axes in figure.axes] == [f"layer {layer}\nattention.query" for layer in range(4)]
    assert all(axes.spines["left"].get_edgecolor()[:3] != (1, 1, 1) for axes in figure.axes)  # seen on white
    places = [figure.axes[number].get_position() for number in range(4)]
    assert len({round(place.x0, 3) for place in places}) == len({round(place.y0, 3) for place in places}) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("every", "steps"), [(2, [0, 10, 15]), (0, [])])
def test_pictures_go_to_tensorboard_at_the_start_at_the_interval_and_at_the_end(
    tiny_bert, cola_folder, tmp_path, monkeypatch, every, steps
):
    drawn = []
    logger = TensorBoardLogger(str(tmp_path), name="", version="")
    texts = []  # of the map that was drawn last

    def add_figure(name: str, figure: Figure, step: int) -> None:
        drawn.append((name, step))
        if name == "rank_map":
            texts[:] = [text.get_text() for text in figure.axes[0].texts]

    monkeypatch.setattr(logger.experiment, "add_figure", add_figure)
    module = tiny.make_module(tiny_bert, AdaptiveLoRAXS(1, 4, 2.5))
    trainer = tiny.make_trainer(RankLogging(pictures_every_n_epochs=every), logger=logger, max_epochs=3)
    trainer.fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))
    assert drawn == [(name, step) for step in steps for name in ("rank_map", "rank_masks")]
    if every:  # in the last epoch the ranks are whole, within the budget: not the nearest whole numbers
        _, _, rows = rank_grid(module.adapter.discrete_ranks())
        assert texts == [str(rank) for row in rows for rank in row if rank is not None]


COLA, STSB, QNLI = GLUE_TASKS["cola"], GLUE_TASKS["stsb"], GLUE_TASKS["qnli"]


def test_a_table_of_predictions_in_the_inputs_order():
    examples = Examples(["one\ttab", "two\nlines "], labels=[1, 0])
    assert answers_table(COLA, examples, {1: [0.9, 0.1], 0: [0.25, 0.75]}).split("\n") == [
        "sentence\tlabel\tprediction\tprobability_unacceptable\tprobability_acceptable",
        "one tab\tacceptable\tacceptable\t0.250000\t0.750000",
        "two lines \tunacceptable\tunacceptable\t0.900000\t0.100000",
        "",
    ]


def test_names_and_texts_are_one_cell_each_and_no_formula():
    task = SimpleNamespace(text_fields=("a\tb",), label_names=("=1+1", "c\nd"), is_regression=False)
    examples = Examples(["@SUM(A1)", "-5", "+1e-5", "-x", "-", "\uff1d1+1"], labels=[0, 1, 1, 1, 1, 1])
    rows = [line.split("\t") for line in answers_table(task, examples, {r: [0.9, 0.1] for r in range(6)}).split("\n")]
    assert rows[0] == ["a b", "label", "prediction", "probability_=1+1", "probability_c d"]
    assert rows[1] == ["'@SUM(A1)", "'=1+1", "'=1+1", "0.900000", "0.100000"]
    assert [row[0] for row in rows[2:-1]] == ["-5", "+1e-5", "'-x", "'-", "'\uff1d1+1"] and rows[2][1] == "c d"


def test_tables_of_pairs_without_labels_and_of_scores():
    table = answers_table(QNLI, Examples(["q"], pairs=["s"]), {0: [0.4, 0.6]})
    assert table.splitlines()[0].split("\t")[:3] == ["question", "sentence", "prediction"]
    assert table.splitlines()[1].split("\t") == ["q", "s", "not_entailment", "0.400000", "0.600000"]
    table = answers_table(STSB, Examples(["a"], pairs=["b"], labels=[2.5]), {0: [3.25]})
    assert table == "sentence1\tsentence2\tlabel\tprediction\na\tb\t2.5\t3.250000\n"


def test_predictions_of_a_run_are_the_models_own_row_by_row(tiny_bert, cola_folder, tmp_path):
    module, data = tiny.make_module(tiny_bert, LoRAXS(4)), tiny.make_data(tiny_bert, cola_folder)
    data.evaluation_batch_size = 5
    tiny.make_trainer(PredictionTable(tmp_path / "p.tsv")).predict(module, datamodule=data)
    lines = [line.split("\t") for line in (tmp_path / "p.tsv").read_text().splitlines()]
    texts = tiny.sentences(12, 2)  # out_of_domain_dev.tsv
    assert [line[0] for line in lines[1:]] == [" ".join(text.split()) for text, _ in texts]
    module.eval()
    for (text, label), line in zip(texts, lines[1:], strict=True):
        encoded = data.tokenizer(text, return_tensors="pt")
        expected = module(dict(encoded)).softmax(-1)[0].tolist()
        assert [float(value) for value in line[3:]] == pytest.approx(expected, abs=2e-6)
        assert line[1] == ("acceptable" if label else "unacceptable")


def test_answers_that_are_no_numbers_are_told(tiny_bert, cola_folder, tmp_path, capsys):
    module, data = tiny.make_module(tiny_bert, LoRAXS(4)), tiny.make_data(tiny_bert, cola_folder)
    trainer = tiny.make_trainer(PredictionTable(tmp_path / "p.tsv"))
    trainer.predict(module, datamodule=data)
    assert "no answer" not in capsys.readouterr().err
    with torch.no_grad():
        module.model.classifier.bias[1] = torch.nan
    trainer.predict(module, datamodule=data)
    assert "12 rows have no answer but NaN or infinity" in capsys.readouterr().err


def attached_module():
    from tests.architectures import classifier

    adapter = AdaptiveLoRAXS(1, 4, 2.5)
    adapter.attach(*classifier("bert")[:1], "bert", ("classifier",))
    return SimpleNamespace(rank_allocation=adapter.rank_allocation, adapter=adapter)


def test_logged_ranks_are_those_of_the_moment():
    module = attached_module()
    metrics = rank_metrics(module)
    discrete = module.adapter.discrete_ranks()
    assert metrics["allocation/budget_requested"] == 50.0
    assert metrics["allocation/budget_used"] == sum(rank**2 for rank in discrete.values())
    assert metrics["allocation/budget_left"] == 50 - metrics["allocation/budget_used"]
    assert metrics["allocation/average_rank"] == pytest.approx(sum(discrete.values()) / 8)
    for (name, rank), continuous in zip(discrete.items(), module.rank_allocation.ranks().tolist(), strict=True):
        assert metrics[f"rank/{name}"] == continuous
        assert abs(min(max(continuous, 1), 4) - rank) < 1.001
    assert metrics["allocation/soft_hard_gap"] > 0.01
    module.rank_allocation.discretise()
    logged = rank_metrics(module)
    assert logged["allocation/soft_hard_gap"] == 0
    assert {name: logged[f"rank/{name}"] for name in discrete} == discrete  # what is in use, not what it was made of
    module.rank_allocation.soften()
    assert rank_metrics(module) == metrics


def test_looking_at_ranks_draws_no_random_numbers():
    module = attached_module()
    module.rank_allocation.tau = 1.0
    before = torch.get_rng_state()
    rank_metrics(module)
    assert torch.equal(torch.get_rng_state(), before)


def test_texts_keep_their_blanks_and_quotation_marks(tmp_path):
    """Read back without quoting, each row is there, its text as it was but for tabs and line breaks."""
    texts = ['"open', "two  blanks\xa0", " led", 'end"', "a\r\nb\u2028c"]
    table = answers_table(COLA, Examples(texts), {row: [0.5, 0.5] for row in range(5)})
    (tmp_path / "predictions.tsv").write_text(table)
    read = pd.read_csv(tmp_path / "predictions.tsv", sep="\t", quoting=csv.QUOTE_NONE)
    assert read["sentence"].tolist() == [*texts[:4], "a b c"]
