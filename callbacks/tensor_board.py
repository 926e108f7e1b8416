"""TensorBoard's event files of a run, also of one that goes on."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from textwrap import indent
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard.summary import hparams

_OVERVIEW = {  # charts of the tab CUSTOM SCALARS: regular expressions of tags
    "loss": ["train/loss", "train/epoch_loss", "val[^/]*/loss"],
    "validation": ["val[^/]*/(?!loss)"],
    "average rank": ["allocation/average_rank"],
    "budget left": ["allocation/budget_left"],  # of what is used, ticks would all read 3.84e+4
    "learning rates": ["learning_rate/"],
}
_WORDS = re.compile(r"(?<![a-z])([a-z]+(?:_[a-z]+)+)_(?=[-+.\d])")  # a setting's name before its number


class RunTensorBoard(TensorBoardLogger):
    """Writes each step's epoch once, and makes TensorBoard forget what an interrupted run has logged from a step on.

    It forgets, and writes an overview with the run's settings, only when there is something new to log. The logger's
    own `purge_step` forgets as soon as a trainer is set up. A resumption that is then refused would take the run's last
    figures from the screen. HPARAMS shows `varied` settings, by which the trials of a sweep differ, first.
    """

    def __init__(self, folder: str, resumed_step: int | None, varied: Collection[str] = ()) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False)
        self._varied = varied
        self._purge_step = resumed_step
        self._epoch_step: int | None = None
        self._has_overview = False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._purge_step is not None:
            self.experiment.close()  # the next entry opens another file, which begins by saying what to forget
            self.experiment.purge_step, self._purge_step = self._purge_step, None
        if not self._has_overview:
            self._has_overview = True
            charts = {title: ["Multiline", tags] for title, tags in _OVERVIEW.items()}
            self.experiment.add_custom_scalars({"Overview": charts})
            if (config := Path(self.save_dir) / "config.yaml").is_file():
                self.experiment.add_text("settings", indent(config.read_text(encoding="utf-8"), "    "))
        if "epoch" in metrics:  # Lightning adds it to the figures of training and, at the same step, of validation
            if step == self._epoch_step:
                metrics = {name: value for name, value in metrics.items() if name != "epoch"}
            self._epoch_step = step
        super().log_metrics(metrics, step)

    @rank_zero_only
    def log_hyperparams(
        self, params: Mapping[str, Any], metrics: dict[str, Any] | None = None, step: int | None = None
    ) -> None:
        """Notes settings and figures for HPARAMS; unlike Lightning's own, says which settings differ between runs."""
        if not metrics:
            return
        self.hparams.update(params)
        self.log_metrics(metrics, step)
        experiment, begin, end = hparams(dict(params), metrics)
        about = experiment.value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(about.content)
        for setting in content.experiment.hparam_infos:
            setting.differs = setting.name in self._varied
        about.content = content.SerializeToString()
        if self._varied:  # of a trial: short enough for TensorBoard's column, and unlike that of another sweep's
            session, folder = begin.value[0].metadata.plugin_data, Path(self.save_dir)
            content = HParamsPluginData.FromString(session.content)
            short = _WORDS.sub(lambda found: "".join(word[0] for word in found[1].split("_")), folder.name)
            content.session_start_info.group_name = f"{short} ({folder.parent.name})"
            session.content = content.SerializeToString()
        for summary in (experiment, begin, end):
            self.experiment.file_writer.add_summary(summary, step)
