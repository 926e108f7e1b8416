"""Lightning's Trainer for a run: what its settings ask for, and what every run has besides."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, LambdaCallback, LearningRateMonitor
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.checkpoints import BestCheckpoint, LastCheckpoint, SavedConfig, WholeFileCheckpoints
from callbacks.gradient_directions import EVAInitialisation, GradientDirections
from callbacks.health import AllocationMovement, CollapseDetection
from callbacks.lightning_callbacks import refuse_unsuitable
from callbacks.metrics_table import MetricsTable
from callbacks.progress import EpochLines, TerminalProgress, TrainingLog
from callbacks.random_state import RandomState
from callbacks.results import Results
from callbacks.run_ends import StepLimit, ValidatedEpochs, WholeSteps
from callbacks.stop_together import StopTogether
from callbacks.tensor_board import RunTensorBoard
from common.errors import InputError
from experiments.error_causes import lightning_refuses
from experiments.own_files import delete
from experiments.resumption import Checkpoint
from experiments.run_folder import RunFolder
from experiments.settings import Objects, Settings
from experiments.sharded_backbone import check_sharding
from experiments.sweep.grid import varied_settings
from experiments.watched_ddp import WatchedDDP, ddp_settings
from lightning_modules.adapted_module import AdaptedModule


def evaluation_trainer(objects: Objects, callbacks: Sequence[Callback]) -> Trainer:
    """For validate, test and predict: it writes nothing."""
    arguments = {**objects.trainer, "logger": False, "enable_checkpointing": False}
    return _make(arguments, [*objects.callbacks, StopTogether(), *callbacks], None, objects.module)


def fit_trainer(
    settings: Settings,
    objects: Objects,
    folder: RunFolder,
    figures: Results,
    checkpoint: Checkpoint | None,
    replaced: list[Path],
) -> Trainer:
    """For fit: it records the run in its folder, unless it is a fast_dev_run.

    A resumed run goes on from `checkpoint`; `replaced` are an older run's files, deleted when training begins.
    """
    arguments = dict(objects.trainer)
    callbacks = [*objects.callbacks, StopTogether(), *_fit_callbacks(arguments, figures)]
    if not arguments["fast_dev_run"]:
        if replaced:  # when all else is checked: a wrong path or setting costs no finished run
            callbacks.append(LambdaCallback(on_train_start=lambda trainer, module: delete(folder.path, replaced)))
        callbacks += file_callbacks(arguments, folder, settings)
        arguments["logger"] = loggers(arguments["logger"], folder.path, checkpoint)
        arguments["default_root_dir"] = str(folder.path)
        if arguments["max_steps"] != -1:  # StepLimit sees to it
            arguments["max_steps"], arguments["max_epochs"] = -1, arguments["max_epochs"] or -1
    return _make(arguments, callbacks, checkpoint, objects.module, settings.values.trainer.strategy in ("auto", "ddp"))


def _make(
    arguments: dict[str, Any],
    callbacks: list[Callback],
    checkpoint: Checkpoint | None,
    module: AdaptedModule,
    may_look: bool = False,
) -> Trainer:
    """A trainer; `may_look`: whether parallel processes may look for what a step leaves out, if it may leave any."""
    shows_progress = sys.stdout.isatty() and arguments["enable_progress_bar"] is not False
    if shows_progress:
        callbacks.append(TerminalProgress())
    read = {} if checkpoint is None else {checkpoint.path: checkpoint.content}
    callbacks = [*_as_list(arguments["callbacks"]), *callbacks]
    refuse_unsuitable(callbacks)  # before one of them could write about the refusal
    own = {
        "callbacks": callbacks,
        "plugins": [*_as_list(arguments["plugins"]), WholeFileCheckpoints(read)],
        "enable_progress_bar": shows_progress,
    }
    trainer = _lightnings({**arguments, **own})
    is_parallel = isinstance(trainer.strategy, DDPStrategy)
    looks = is_parallel and may_look and module.may_leave_parameters_out()
    if is_parallel and (looks or not isinstance(trainer.strategy, WatchedDDP)):
        # "auto" has found several devices; Lightning has no say in which class it takes then
        trainer = _lightnings({**arguments, **own, "strategy": WatchedDDP(**ddp_settings(looks))})
    if not isinstance(trainer.strategy, SingleDeviceStrategy | WatchedDDP):
        raise InputError(
            f"trainer.accelerator is {arguments['accelerator']!r}, which brings a {type(trainer.strategy).__name__}; "
            "allowed: one device, or data-parallel processes. Use --trainer.accelerator auto, cpu or gpu."
        )
    check_sharding(trainer, module)
    return trainer


def _lightnings(arguments: dict[str, Any]) -> Trainer:
    try:
        return Trainer(**arguments)
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        raise lightning_refuses(error) from error


def _as_list(value: object) -> list[Any]:
    """One object or several, or none, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _fit_callbacks(trainer: dict[str, Any], figures: Results) -> list[Callback]:
    """Callbacks that record a run. Order matters: checkpoints come last, when all others have noted the epoch."""
    # the module would bring these too late: an older run may be deleted by then
    early: list[Callback] = [WholeSteps(), GradientDirections(), EVAInitialisation()]
    logs = [TrainingLog(trainer["log_every_n_steps"] or 50), CollapseDetection(), AllocationMovement()]
    limit = [StepLimit(trainer["max_steps"])] if trainer["max_steps"] != -1 else []
    return [ValidatedEpochs(), *early, *logs, figures, EpochLines(), RandomState(), *limit]


def file_callbacks(trainer: dict[str, Any], folder: RunFolder, settings: Settings) -> list[Callback]:
    """Callbacks that write into the run folder."""
    callbacks: list[Callback] = [SavedConfig(folder.path, settings.text), LearningRateMonitor("step")]
    if trainer["limit_val_batches"] != 0:  # without validation no epoch is the best
        callbacks.append(BestCheckpoint(folder.checkpoints))
    minutes, steps = settings.values.checkpoint_every_n_minutes, settings.values.checkpoint_every_n_steps
    return [*callbacks, LastCheckpoint(folder.checkpoints, minutes, steps)]


def loggers(asked: object, folder: Path, checkpoint: Checkpoint | None) -> list[Logger]:
    """TensorBoard unless `trainer.logger` asks for something else (or false), and metrics.csv in any case.

    What was logged after the step of the checkpoint, which a resumed run goes on from, is forgotten.
    """
    table, step = MetricsTable(folder), None
    if checkpoint is not None:
        step = checkpoint.step
        table.continue_from(step, checkpoint.metrics_rows)
    if asked is None or asked is True:
        asked = RunTensorBoard(str(folder), step, varied_settings(folder.parent))
    return [table] if asked is False else [*_as_list(asked), table]
