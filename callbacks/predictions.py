"""Writes predictions as a table anyone can open."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from callbacks.trained_module import Batch, TrainedModule
from common.files import write_text


class PredictionTable(Callback):
    """A TSV of inputs and the model's answers, in the input's order; the module says what an answer is.

    Args:
        path: the file to write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._scores: dict[int, list[float]] = {}

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: TrainedModule,
        outputs: dict[str, Tensor],
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch["real_rows"]:  # else it only takes part because another process has a batch left
            self._scores.update(zip(outputs["row"].tolist(), outputs["scores"].tolist(), strict=True))

    def on_predict_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, self._scores)
            self._scores = {row: scores for part in gathered for row, scores in part.items()}
        if trainer.is_global_zero:
            write_text(self.path, pl_module.prediction_table(self._scores))
