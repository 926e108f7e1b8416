"""Writes predictions as a table anyone can open."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from common.files import write_text
from lightning_modules.adapted_module import AdaptedModule


class PredictionTable(Callback):
    """A TSV of inputs, gold labels where there are any, predicted labels and probabilities, in the input's order.

    Args:
        path: the file to write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._scores: dict[int, list[float]] = {}

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: AdaptedModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._scores.update(zip(outputs["row"].tolist(), outputs["scores"].tolist(), strict=True))

    def on_predict_end(self, trainer: Trainer, pl_module: AdaptedModule) -> None:
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, self._scores)
            self._scores = {row: scores for part in gathered for row, scores in part.items()}
        if trainer.is_global_zero:
            data = pl_module.data
            write_text(self.path, prediction_table(data.task, data.predict_examples(), self._scores))


def prediction_table(task: Any, examples: Any, scores: dict[int, list[float]]) -> str:
    """The table as text. Tabs and line breaks inside a text become spaces."""
    columns = list(task.text_fields)
    if examples.labels is not None:
        columns.append("label")
    columns.append("prediction")
    columns += [f"probability_{name}" for name in task.label_names]
    lines = ["\t".join(columns)]
    for row, text in enumerate(examples.texts):
        cells = [text] if examples.pairs is None else [text, examples.pairs[row]]
        cells = [" ".join(cell.split()) for cell in cells]
        if examples.labels is not None:
            label = examples.labels[row]
            cells.append(str(label) if task.is_regression else task.label_names[int(label)])
        values = scores[row]
        if task.is_regression:
            cells.append(f"{values[0]:.6f}")
        else:
            cells.append(task.label_names[max(range(len(values)), key=values.__getitem__)])
            cells += [f"{value:.6f}" for value in values]
        lines.append("\t".join(cells))
    return "\n".join(lines) + "\n"
