"""best.ckpt and last.ckpt: when they are written, and how."""

import time
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.metrics_table import MetricsTable
from common.errors import InputError
from common.files import write_whole
from lightning_modules.adapted_module import AdaptedModule

# Clocks differ between processes: they agree on whether a checkpoint is due, but not at every step.
_AGREE_EVERY_N_STEPS = 20


class WholeFileCheckpoints(TorchCheckpointIO):
    """Checkpoints are written whole or not at all, and read without running pickled code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_whole(Path(path), lambda file: torch.save(checkpoint, file))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(Path(path), map_location or "cpu")


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Reads a checkpoint; only tensors and plain values are allowed in it.

    Raises:
        InputError: there is no such file, or it is damaged or holds anything else.
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}. Pass --ckpt_path last, best or an existing file.")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load doesn't look at the checksums it wrote
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(damaged)
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        raise InputError(
            f"the checkpoint {path} can't be read: it is damaged, or holds more than tensors and plain values "
            f"({type(error).__name__}). Use another checkpoint of the run, such as --ckpt_path best or last."
        ) from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise InputError(f"{path} is no checkpoint of this project. Pass --ckpt_path last, best or FILE.")
    return content


class BestCheckpoint(ModelCheckpoint):
    """best.ckpt: the epoch with the best validation metric; the module says which, and whether more is better."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            save_top_k=1,
            monitor="val/unknown until setup",
            mode="max",
            save_on_train_epoch_end=True,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: AdaptedModule, stage: str) -> None:
        self.monitor = f"{pl_module.data.validation_names[0]}/{pl_module.metric_name}"
        if not pl_module.higher_is_better and self.mode != "min":
            self.mode, self.kth_value = "min", torch.tensor(float("inf"))
        super().setup(trainer, pl_module, stage)


class LastCheckpoint(Checkpoint):
    """last.ckpt: after every epoch, every so many minutes, and when the run is told to stop.

    Args:
        folder: where it is written.
        every_n_minutes: how often it is written within an epoch.
    """

    def __init__(self, folder: Path, every_n_minutes: float = 10.0) -> None:
        self.path = folder / "last.ckpt"
        self.every_n_minutes = every_n_minutes
        self._saved_step = -1
        self._saved_time = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: AdaptedModule) -> None:
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: AdaptedModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.world_size > 1 and trainer.global_step % _AGREE_EVERY_N_STEPS:
            return
        due = time.monotonic() - self._saved_time >= 60 * self.every_n_minutes
        if trainer.world_size > 1:
            due = trainer.strategy.broadcast(due)
        # Gradients in accumulation aren't saved, and the epoch's end has a checkpoint of its own.
        whole = not trainer.fit_loop._should_accumulate() and batch_idx + 1 < trainer.num_training_batches
        if due and whole and trainer.global_step > self._saved_step:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: AdaptedModule) -> None:
        self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: AdaptedModule, exception: BaseException) -> None:
        # Lightning raises this between two batches, so the state is whole.
        whole = isinstance(exception, SIGTERMException) and not trainer.fit_loop._should_accumulate()
        if whole and trainer.global_step > max(self._saved_step, 0):
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:  # whoever resumes from this step finds every row before it
            if isinstance(logger, MetricsTable):
                logger.flush()
        trainer.save_checkpoint(self.path)
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()
