"""Early stopping by the metric that chooses the best epoch."""

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping

from callbacks.trained_module import TrainedModule
from common.terminal import logger


class MetricStopping(EarlyStopping):
    """Lightning's EarlyStopping; it watches what best.ckpt is chosen by, and says so when it ends a run.

    Args:
        min_delta: smallest change that counts as an improvement.
        patience: validations without an improvement after which training ends.
        check_finite: whether a metric that isn't finite ends training, too.
    """

    def __init__(self, min_delta: float = 0.0, patience: int = 3, check_finite: bool = True) -> None:
        super().__init__("", min_delta, patience, check_finite=check_finite)

    def setup(self, trainer: Trainer, pl_module: TrainedModule, stage: str) -> None:
        if stage != "fit":
            return
        self.monitor = f"{pl_module.data.validation_names[0]}/{pl_module.metric_name}"
        self.mode = "max" if pl_module.higher_is_better else "min"
        self.best_score = torch.tensor(-torch.inf if self.mode == "max" else torch.inf)
        if self.mode == "max":
            self.min_delta = abs(self.min_delta)
        super().setup(trainer, pl_module, stage)

    def on_train_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        if self.stopped_epoch:
            logger.info(f"Stopped after epoch {self.stopped_epoch + 1}: {self.stopping_reason_message}")
