"""What every fit has besides what its config asks for: loggers, checkpoints, results, health."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from callbacks.adalora_allocation import AdaLoRAAllocation
from callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from callbacks.health import AllocationMovement, CollapseDetection
from callbacks.metrics_table import MetricsTable
from callbacks.nested_ranks import NestedRankSampling
from callbacks.progress import EpochLines
from callbacks.random_state import RandomState
from callbacks.results import Results
from callbacks.saved_config import SavedConfig
from callbacks.step_limit import StepLimit
from callbacks.tensor_board import ResumedTensorBoard
from callbacks.training_log import TrainingLog
from callbacks.validated_epochs import ValidatedEpochs
from callbacks.whole_steps import WholeSteps
from experiments.config_files import flatten
from experiments.results import RunResults
from experiments.run_folder import RunFolder


def listed(value: Any) -> list[Any]:
    """One object or several, or none, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def fit_callbacks(trainer: dict[str, Any], figures: Results, seed: int) -> list[Callback]:
    """Callbacks that record a run. Order matters: checkpoints come last, when all others have noted the epoch."""
    log = TrainingLog(trainer.get("log_every_n_steps") or 50)
    callbacks: list[Callback] = [
        ValidatedEpochs(),
        WholeSteps(),
        AdaLoRAAllocation(),
        log,
        CollapseDetection(),
        AllocationMovement(),
        NestedRankSampling(seed),
        figures,
        EpochLines(log),
        RandomState(),
    ]
    if trainer["max_steps"] != -1:
        callbacks.append(StepLimit(trainer["max_steps"]))
    return callbacks


def file_callbacks(
    trainer: dict[str, Any], folder: RunFolder, config_text: str, minutes: float, steps: int | None
) -> list[Callback]:
    """Callbacks that write into the run folder."""
    callbacks: list[Callback] = [SavedConfig(folder.path, config_text), LearningRateMonitor("step")]
    if trainer.get("limit_val_batches") != 0:  # without validation no epoch is the best
        callbacks.append(BestCheckpoint(folder.checkpoints))
    return [*callbacks, LastCheckpoint(folder.checkpoints, minutes, steps)]


def loggers(asked: Any, folder: Path, resumed_step: int | None) -> list[Logger]:
    """TensorBoard unless the user asks for something else (or false), and metrics.csv in any case.

    Args:
        asked: the value of trainer.logger.
        folder: the run folder.
        resumed_step: the step a resumed run goes on from: what was logged after it is forgotten.
    """
    table = MetricsTable(folder)
    if resumed_step is not None:
        table.continue_from(resumed_step)
    if asked is False:
        return [table]
    if asked not in (None, True):
        return [*listed(asked), table]
    place: dict[str, Any] = {"name": "", "version": "", "default_hp_metric": False}
    if resumed_step is None:
        return [TensorBoardLogger(str(folder), **place), table]
    return [ResumedTensorBoard(str(folder), resumed_step, **place), table]


def log_hyperparameters(trainer: Trainer, config: dict[str, Any], results: RunResults) -> None:
    """Shows the settings beside the run's real figures in TensorBoard's HPARAMS."""
    metric = results.metric
    figures = {f"best/{metric.name}": metric.best, f"last/{metric.name}": metric.last}
    figures |= {f"test/{name}": value for name, value in results.test_figures.items()}
    figures = {name: value for name, value in figures.items() if value is not None}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            # at this step: a run that is finished once more after a kill replaces what it wrote from there on
            logger.log_hyperparams(flatten(config), figures, step=trainer.global_step)
        logger.finalize("success")
