"""What TensorBoard itself shows of a run, also of one that was interrupted."""

import re

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from callbacks.tensor_board import RunTensorBoard
from experiments.sweep.grid import varied_settings
from tests.command_line import run, write_config


def shown(folder) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag, as TensorBoard's own reader finds them."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def board(folder, step) -> RunTensorBoard:
    logger = RunTensorBoard(str(folder), step)
    _ = logger.experiment  # as a trainer does when it is set up
    return logger


def test_what_was_logged_after_the_checkpoint_is_forgotten_with_the_first_new_figure(tmp_path):
    first = board(tmp_path, 0)
    for step in range(6):
        first.log_metrics({"loss": step / 8}, step)
    first.finalize("failed")
    everything = {"loss": [(step, step / 8) for step in range(6)]}
    board(tmp_path, 4).finalize("failed")  # refused before its first step
    assert shown(tmp_path) == everything
    again = board(tmp_path, 4)
    again.log_metrics({"loss": 9.0}, 4)
    again.finalize("success")  # a later file must not forget once more
    again.log_metrics({"loss": 8.0}, 5)
    again.finalize("success")
    assert shown(tmp_path) == {"loss": [*everything["loss"][:4], (4, 9.0), (5, 8.0)]}


@pytest.mark.slow
def test_a_refused_resumption_costs_no_figure(tmp_path, tiny_bert, cola_folder):
    config = write_config(tmp_path, tiny_bert, cola_folder)
    folder = tmp_path / "tiny"
    assert run("fit", config, tmp_path, "--trainer.max_epochs", "1") == 0
    table, figures = (folder / "metrics.csv").read_text(), shown(folder)
    assert "test/loss" in figures and "test/loss" in table
    assert [step for step, _ in figures["epoch"]] == [0, 1, 2, 3, 4, 5]  # once each
    assert run("fit", config, tmp_path, "--ckpt_path", "last", "--data.batch_size", "4") == 2
    assert (folder / "metrics.csv").read_text() == table
    assert shown(folder) == figures
    assert run("fit", config, tmp_path, "--ckpt_path", "last", "--trainer.max_epochs", "1") == 0
    assert (folder / "metrics.csv").read_text() == table  # finished once more: nothing twice
    assert shown(folder) == figures


def test_the_overview_has_charts_of_what_a_run_logs_and_its_settings(finished_run):
    events = EventAccumulator(str(finished_run[1] / "tiny")).Reload()
    (written,) = events.Tensors(metadata.CONFIG_SUMMARY_TAG)
    (overview,) = layout_pb2.Layout.FromString(written.tensor_proto.string_val[0]).category
    tags = events.Tags()["scalars"]
    shown = {
        chart.title: [t for t in tags if any(re.match(p, t) for p in chart.multiline.tag)] for chart in overview.chart
    }
    assert sorted(shown["loss"]) == ["train/epoch_loss", "train/loss", "val/loss"]
    assert sorted(shown["validation"]) == ["val/accuracy", "val/matthews_correlation"]
    assert shown["budget left"] == ["allocation/budget_left"]
    assert len(shown["learning rates"]) == 3 and shown["average rank"] == ["allocation/average_rank"]
    (settings,) = events.Tensors("settings/text_summary")
    assert "            rank_max: 8\n" in settings.tensor_proto.string_val[0].decode()


def test_hparams_have_the_names_that_are_typed(finished_run):
    events = EventAccumulator(str(finished_run[1] / "tiny")).Reload()
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["model.adapter.rank_max"].number_value == 8
    assert settings["model.optimizer.learning_rate"].number_value == 0.02
    assert not [name for name in settings if "init_args" in name]
    assert "None" not in [value.string_value for value in settings.values()]


def test_hparams_begin_with_what_differs_between_the_trials_of_a_sweep(tmp_path):
    shared = {"settings": {"data.batch_size": 4}, "grid": {"seed_everything": [0, 1]}}
    adapters = [{"class_path": "lora.LoRAXS", "init_args": {"rank": rank, "scaling": "constant"}} for rank in (4, 8)]
    methods = {name: {"settings": {"model.adapter": own}} for name, own in zip("ab", adapters, strict=True)}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({**shared, "methods": methods}))
    varied = varied_settings(tmp_path)
    assert varied == {"seed_everything", "model.adapter.rank"} and varied_settings(tmp_path / "a") == set()

    trial = tmp_path / "full-rank_8-learning_rate_2e-05-seed_everything_0"
    writer = RunTensorBoard(str(trial), None, varied)
    settings = {"data.batch_size": 4, "data.task": "cola", "seed_everything": 0, "model.adapter.rank": 4}
    writer.log_hyperparams(settings, {"best/accuracy": 0.5}, step=3)
    writer.finalize("success")
    events = EventAccumulator(str(trial)).Reload()
    begun = HParamsPluginData.FromString(events.summary_metadata["_hparams_/session_start_info"].plugin_data.content)
    assert begun.session_start_info.group_name == f"full-rank_8-lr2e-05-se0 ({tmp_path.name})"
    content = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    infos = HParamsPluginData.FromString(content).experiment.hparam_infos
    assert {one.name for one in infos if one.differs} == varied and len(infos) == len(settings)
    assert events.Scalars("best/accuracy")[0].value == 0.5
