"""best.ckpt, last.ckpt and the one before it, when they are written and how; and the settings that they belong to."""

import contextlib
import math
import os
import shutil
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.types import STEP_OUTPUT

from callbacks.divergence import is_sound
from callbacks.metrics_table import MetricsTable
from callbacks.trained_module import Batch, TrainedModule
from common.errors import InputError
from common.files import atomic_write, no_access, write_text
from common.terminal import logger

# Clocks differ between processes: they agree on whether a checkpoint is due, but not at every step.
_AGREE_EVERY_N_STEPS = 20
OWN_NAMES = ("best", "last", "previous")  # of the files that a run keeps
_FORMS = "forms"  # of all parts of a checkpoint, by which one that was changed is known


class WholeFileCheckpoints(TorchCheckpointIO):
    """Checkpoints are written whole or not at all, and read without running pickled code.

    Content of files that were `read` already is handed out once, and then forgotten.
    """

    def __init__(self, read: dict[Path, dict[str, Any]] | None = None) -> None:
        self._read = {} if read is None else read

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = {**checkpoint, _FORMS: {str(part): _form(value) for part, value in checkpoint.items()}}
        atomic_write(Path(path), lambda file: torch.save(content, file))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return self._read.pop(Path(path), None) or read_checkpoint(Path(path), map_location or "cpu")


def read_checkpoint(path: Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Reads a checkpoint; only tensors and plain values are allowed in it.

    `InputError`: there is no such file, or it is damaged or holds anything else.
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}. Pass --ckpt_path last, best or an existing file.")
    try:
        check_archive(path)
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        raise no_access(path, error) or InputError(
            f"the checkpoint {path} can't be read: it is damaged, or holds more than tensors and plain values "
            f"({type(error).__name__}). Use another checkpoint of the run, such as --ckpt_path best or last."
        ) from error
    forms = content.pop(_FORMS, None) if isinstance(content, dict) else None
    if not isinstance(forms, dict):
        raise InputError(f"{path} is no checkpoint of this project's runs. Pass --ckpt_path last, best or FILE.")
    found = {str(part): _form(value) for part, value in content.items()}
    if odd := sorted(str(part) for part in {*found, *forms} if found.get(part) != forms.get(part)):
        raise InputError(
            f"the checkpoint {path} isn't as it was written: {', '.join(odd[:5])} has lost or changed something. Use "
            "another checkpoint of the run, such as --ckpt_path best or last."
        )
    return content


def check_archive(path: Path) -> None:
    """Compares a checkpoint with the checksums that torch.load doesn't look at; any exception says it is damaged."""
    with zipfile.ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(damaged)


def _form(value: object) -> int:
    """A checksum of what a part of a checkpoint holds: names, plain values, and types and shapes of its tensors."""
    if isinstance(value, torch.Tensor):
        text = f"tensor {value.dtype} {tuple(value.shape)}"
    elif isinstance(value, dict):
        text = f"dict {[(repr(key), _form(inner)) for key, inner in value.items()]}"
    elif isinstance(value, list | tuple):
        text = f"{len(value)} of {type(value).__name__} {[_form(inner) for inner in value]}"
    else:
        text = f"{type(value).__name__} {value!r}"
    return zlib.crc32(text.encode())


class BestCheckpoint(ModelCheckpoint):
    """best.ckpt: the epoch with the best validation metric; the module says which, and whether more is better.

    Numbers that aren't finite never replace a good file (see `Divergence`).
    """

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

    def setup(self, trainer: Trainer, pl_module: TrainedModule, stage: str) -> None:
        self.monitor = f"{pl_module.data.validation_names[0]}/{pl_module.metric_name}"
        if not pl_module.higher_is_better and self.mode != "min":
            self.mode, self.kth_value = "min", torch.tensor(float("inf"))
        super().setup(trainer, pl_module, stage)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        if is_sound(pl_module):
            super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the best score so far, also when the run folder was moved: Lightning forgets it then."""
        path = Path(str(self.dirpath)) / "best.ckpt"
        if state_dict["best_model_path"] and not path.exists():
            logger.warning(
                "best.ckpt is gone: the best of the epochs still to come is tested, whatever was reached before."
            )
            return
        here = {"dirpath": self.dirpath}
        for name in ("best_model_path", "kth_best_model_path"):
            here[name] = str(path) if state_dict[name] else ""
        scores = {str(path): score for score in state_dict["best_k_models"].values()}
        super().load_state_dict({**state_dict, **here, "best_k_models": scores})


class LastCheckpoint(Checkpoint):
    """last.ckpt: after every epoch, every so many minutes or steps, and when the run is told to stop.

    The one before it stays as previous.ckpt, in case last.ckpt is damaged. Numbers that aren't finite never replace a
    good file (see `Divergence`).
    """

    def __init__(self, folder: Path, every_n_minutes: float = 10.0, every_n_steps: int | None = None) -> None:
        if not (every_n_minutes >= 0 and math.isfinite(every_n_minutes)):
            raise InputError(f"checkpoint_every_n_minutes is {every_n_minutes}; allowed: a finite number, 0 or more.")
        if every_n_steps is not None and every_n_steps < 1:
            raise InputError(f"checkpoint_every_n_steps is {every_n_steps}; allowed: 1 or more, or null for never.")
        self.path = folder / "last.ckpt"
        self.every_n_minutes, self.every_n_steps = every_n_minutes, every_n_steps
        self._saved_step = -1
        self._saved_time = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: TrainedModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        # Gradients in accumulation aren't saved, and the epoch's end has a checkpoint of its own, also where a step
        # limit sets it: a run that goes on from there, or from a validation within the epoch, would not validate.
        interval: Any = trainer.val_check_batch
        validates = batch_idx + 1 >= trainer.num_training_batches or bool(interval and (batch_idx + 1) % interval == 0)
        whole = pl_module.ends_step(batch_idx) and not validates and not trainer.should_stop
        if whole and trainer.global_step > self._saved_step and self._due(trainer):
            self._save(trainer, pl_module)

    def _due(self, trainer: Trainer) -> bool:
        if self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0:
            return True
        late = time.monotonic() - self._saved_time >= 60 * self.every_n_minutes
        if trainer.world_size == 1:
            return late
        return trainer.global_step % _AGREE_EVERY_N_STEPS == 0 and bool(trainer.strategy.broadcast(late))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        self._save(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: TrainedModule, exception: BaseException) -> None:
        # Lightning raises this between two batches, so the state is whole.
        whole = isinstance(exception, SIGTERMException) and pl_module.ends_step(trainer.fit_loop.batch_idx)
        if whole and not trainer.should_stop and trainer.global_step > max(self._saved_step, 0):
            self._save(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: TrainedModule, checkpoint: dict[str, Any]) -> None:
        """Keeps the checksums of metrics.csv, so that rows that are lost since are missed."""
        for table in trainer.loggers:
            if isinstance(table, MetricsTable):
                checkpoint["metrics_rows"] = torch.tensor(list(table.checksums.items())).reshape(-1, 2)

    def _save(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        if not is_sound(pl_module):
            return
        if trainer.is_global_zero:
            keep_as(self.path, self.path.with_name("previous.ckpt"))
        for run_logger in trainer.loggers:  # whoever resumes from this step finds every row before it
            run_logger.save()
        trainer.save_checkpoint(self.path)
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()


def keep_as(path: Path, other: Path) -> None:
    """Gives a file a second name, replacing what had it; at every moment both names stand for whole files."""
    if not path.exists() or (other.exists() and path.samefile(other)):  # the latter after a kill
        return
    temporary = other.with_name(f".{other.name}.partial")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:  # a file system without links
        shutil.copyfile(path, temporary)
    temporary.replace(other)


class SavedConfig(Callback):
    """Writes the settings as YAML into the run folder when training begins: a run that never began leaves nothing.

    A finished run that goes on keeps its figures so far as results.previous.json and ranks.previous.json: they belong
    to the settings before.
    """

    def __init__(self, folder: Path, text: str) -> None:
        self.path, self.text = folder / "config.yaml", text

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        for name in ("results", "ranks"):
            with contextlib.suppress(FileNotFoundError):
                path = self.path.with_name(f"{name}.json")
                path.replace(path.with_name(f"{name}.previous.json"))
        write_text(self.path, self.text)
