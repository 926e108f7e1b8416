"""The course of a fit: begin in the run's folder, train, look at the best epoch, write what came out."""

import shlex
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger

from callbacks.checkpoints import read_checkpoint
from callbacks.nested_ranks import rank_curve
from callbacks.results import Results
from common.errors import IncompleteRunError
from common.terminal import is_first_process, say
from datamodules.kept_data import holds_data_of
from experiments.closing_table import print_closing_table
from experiments.config_files import differences, flatten, read_yaml
from experiments.fit_results import rank_figures, summarise, write_files
from experiments.results import RunResults
from experiments.resumption import Checkpoint, checkpoint_to_resume
from experiments.run_folder import RunFolder
from experiments.settings import Settings
from experiments.stop_signals import StopSignals
from experiments.trainer_parts import fit_trainer


def fit(
    settings: Settings, folder: RunFolder, signals: StopSignals, ckpt_path: str | None, overwrite: bool
) -> RunResults | None:
    """Trains a run: see `Run.train`, which calls it."""
    writes = not settings.values.trainer.fast_dev_run
    with ExitStack() as held:
        checkpoint = _begin(settings, folder, ckpt_path, overwrite, held) if writes else None
        seed_everything(settings.values.seed_everything, workers=True)
        objects, figures = settings.build(), Results()
        module, data = objects.module, objects.data
        if ckpt_path is not None:
            module.init_from = None  # the checkpoint holds what training made of it
        trainer = fit_trainer(settings, objects, folder, figures, checkpoint, overwrite and ckpt_path is None)
        start = None if ckpt_path is None else str(checkpoint.path if checkpoint else folder.checkpoint(ckpt_path))
        checkpoint = None  # the trainer has its content: held here, it would stay in memory until the run ends
        signals.install()
        if trainer.world_size == 1:
            signals.stop_outside_loops()
        if holds_data_of(data):  # a sweep's trial before has validated on them
            trainer.num_sanity_val_steps = 0
        trainer.fit(module, datamodule=data, ckpt_path=start)
        return _conclude(settings, folder, trainer, figures) if writes else None


def _begin(
    settings: Settings, folder: RunFolder, ckpt_path: str | None, overwrite: bool, held: ExitStack
) -> Checkpoint | None:
    """Takes the folder for this run, and reads the checkpoint that it goes on from."""
    if ckpt_path is None:
        if is_first_process():  # the other processes start when the first has begun the run
            held.enter_context(folder.begun(f"python cli.py {shlex.join(settings.typed)}", overwrite))
        return None
    if is_first_process():
        held.enter_context(folder.held())
        folder.clean_up()
    checkpoint = checkpoint_to_resume(folder, ckpt_path, settings.values.model.init_args.get("backbone"))
    say(f"Going on from {checkpoint.path}: epoch {checkpoint.content['epoch']}, step {checkpoint.step}.")
    saved = folder.path / "config.yaml"
    if saved.exists() and (changed := differences(read_yaml(saved), settings.plain)):
        say("Settings that differ from the run's own config.yaml:\n  " + "\n  ".join(changed))
    return checkpoint


def _conclude(settings: Settings, folder: RunFolder, trainer: Trainer, figures: Results) -> RunResults:
    """Looks at the best epoch, and writes and shows what the run came to.

    Raises:
        IncompleteRunError: the adapter missed its budget; all is written.
    """
    module: Any = trainer.lightning_module
    data = module.data
    ranks = module.adapter.discrete_ranks() if module.adapter is not None else {}
    shortfall = module.adapter.shortfall() if module.adapter is not None else None
    results = summarise(settings.values.run_name, settings.values.seed_everything, figures, trainer, module)
    best = folder.checkpoints / "best.ckpt"
    if best.exists():
        # Weights only: a checkpoint given to the trainer would set the callbacks back to that epoch, too.
        module.load_checkpoint(read_checkpoint(best, module.device))
        results = replace(results, at_best_epoch=rank_figures(module))
    results = replace(results, rank_curve=rank_curve(trainer, module, data))
    if data.has_labelled_test and best.exists():
        trainer.test(module, datamodule=data, verbose=False)
        results = replace(results, test=figures.test, wall_seconds=figures.wall_seconds)
    _log_hyperparameters(trainer, settings.plain, results)
    write_files(folder.path, results, ranks, trainer, module)
    if trainer.is_global_zero:
        print_closing_table(results, ranks, folder.path)
    # In the first process alone: the end of another one would cut the first off before all is written.
    if shortfall is not None and trainer.is_global_zero:
        raise IncompleteRunError(shortfall)
    return results


def _log_hyperparameters(trainer: Trainer, config: dict[str, Any], results: RunResults) -> None:
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
