"""TensorBoard's event files of a run that goes on."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only


class ResumedTensorBoard(TensorBoardLogger):
    """Makes TensorBoard forget what an interrupted run has logged from a step on, once there is something new.

    `purge_step` of the logger does so as soon as a trainer is set up: a resumption that is then refused would take
    the run's last figures from the screen.

    Args:
        step: the step the run goes on from.
    """

    def __init__(self, folder: str, step: int, **kwargs: Any) -> None:
        super().__init__(folder, **kwargs)
        self._purge_step: int | None = step

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._purge_step is not None:
            self.experiment.close()  # the next entry opens another file, which begins by saying what to forget
            self.experiment.purge_step, self._purge_step = self._purge_step, None
        super().log_metrics(metrics, step)
