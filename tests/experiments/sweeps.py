"""Making and running tiny sweeps in tests."""

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback

from experiments import trainer_parts
from tests.command_line import run

RATES = [0.01, 0.03]


class KilledError(BaseException):
    """Ends the process's work like a kill: nothing catches it."""


class EndAt(Callback):
    """Raises at a step of a run."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.step, self.error = step, error

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == self.step:
            raise self.error


def end_run(monkeypatch, name: str, step: int, error: BaseException) -> None:
    """Makes the run of this name raise at a step, without its settings telling."""
    original = trainer_parts.file_callbacks

    def with_end(trainer, folder, *rest):
        extra = [EndAt(step, error)] if folder.path.name == name else []
        return [*extra, *original(trainer, folder, *rest)]

    monkeypatch.setattr(trainer_parts, "file_callbacks", with_end)


def write_sweep(folder: Path, config: Path, **changes: Any) -> Path:
    """Two rates, one seed, two epochs of five steps, saved after every step."""
    content = {
        "config": str(config),
        "settings": {"trainer.max_epochs": 2, "checkpoint_every_n_minutes": 0},
        "grid": {"model.optimizer.learning_rate": RATES},
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}, sort_keys=False))
    return path


def sweep(path: Path, runs_dir: Path, *options: str) -> int:
    """The exit code of `sweep`."""
    return run("sweep", path, runs_dir, *options)


def trial_folders(sweep_folder: Path) -> list[Path]:
    """Folders of the trials, sorted by name."""
    return sorted(path.parent for path in sweep_folder.glob("*/config.yaml"))
