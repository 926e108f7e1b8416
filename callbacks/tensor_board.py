"""TensorBoard's event files of a run, also of one that goes on."""

from collections.abc import Mapping

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only


class RunTensorBoard(TensorBoardLogger):
    """Writes each step's epoch once, and makes TensorBoard forget what an interrupted run has logged from a step on.

    The latter once there is something new: `purge_step` of the logger does so as soon as a trainer is set up, so that
    a resumption that is then refused would take the run's last figures from the screen.

    Args:
        folder: the run folder.
        resumed_step: the step the run goes on from; None for a new one.
    """

    def __init__(self, folder: str, resumed_step: int | None) -> None:
        super().__init__(folder, name="", version="", default_hp_metric=False)
        self._purge_step = resumed_step
        self._epoch_step: int | None = None

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._purge_step is not None:
            self.experiment.close()  # the next entry opens another file, which begins by saying what to forget
            self.experiment.purge_step, self._purge_step = self._purge_step, None
        if "epoch" in metrics:  # Lightning adds it to the figures of training and, at the same step, of validation
            if step == self._epoch_step:
                metrics = {name: value for name, value in metrics.items() if name != "epoch"}
            self._epoch_step = step
        super().log_metrics(metrics, step)
