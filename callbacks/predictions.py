"""Writes predictions as a table anyone can open."""

import math
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from callbacks.trained_module import Batch, TrainedModule
from common.errors import InputError, shown
from common.files import storage_error, write_text
from common.terminal import logger


class PredictionTable(Callback):
    """A TSV of inputs and the model's answers, in the input's order; the module says what an answer is."""

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
            if odd := sum(not all(map(math.isfinite, scores)) for scores in self._scores.values()):
                logger.warning(f"{odd} rows have no answer but NaN or infinity, whatever class stands beside it.")
            write_table(self.path, pl_module.prediction_table(self._scores))


def write_table(path: Path, text: str) -> None:
    """Writes a file whole or not at all, also through a link; a device, a pipe or `-` (standard output) directly.

    `InputError`: it can't be written.
    """
    try:
        is_standard = is_standard_output(str(path))
        if not is_standard and not _is_open_already(path) and (path.is_file() or not path.exists()):
            return write_text(path.resolve(), text)
        with os.fdopen(os.dup(1), "wb") if is_standard else path.open("ab") as file:
            file.write(text.encode())
    except (OSError, RuntimeError, ValueError) as error:  # the latter of links in a ring, and of a NUL
        if isinstance(error, BrokenPipeError):  # a reader such as head has had enough
            return
        told = storage_error(path, error) if isinstance(error, OSError) else error
        refusal = InputError(f"--output is {shown(str(path))}, which can't be written: {error}. Give another file.")
        raise (told if isinstance(told, InputError) else refusal) from error


def is_standard_output(output: str) -> bool:
    """Whether a path is another name of standard output, such as - or /dev/fd/1, or of the file that it goes to."""
    try:
        return output == "-" or os.path.samestat(os.stat(os.path.expanduser(output)), os.fstat(1))
    except (OSError, ValueError):  # there is no such file
        return False


def _is_open_already(path: Path) -> bool:
    """Whether it stands, maybe through links, for what a process holds open: /dev/stdout may be any file."""
    for _ in range(40):  # as many links as Linux follows
        if path.parent.resolve().is_relative_to("/proc"):
            return True
        path = path.parent / path.readlink() if path.is_symlink() else path
    return False
