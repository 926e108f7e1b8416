"""The course of a fit: begin in the run's folder, train, look at the best epoch, write what came out."""

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger

from callbacks.checkpoints import read_checkpoint
from callbacks.nested_ranks import rank_curve
from callbacks.results import Results
from callbacks.run_ends import EpochPause, FolderWatch
from common.errors import DivergedRunError, IncompleteRunError, InputError, PausedRunError
from common.files import write_json
from common.terminal import is_first_process, logger
from experiments.closing_table import print_closing_table
from experiments.config_files import differences, flatten, read_yaml
from experiments.error_causes import out_of_memory
from experiments.fit_results import rank_figures, summarise, write_files
from experiments.idle_settings import idle_settings
from experiments.results import Figure, RunResults
from experiments.resumption import Checkpoint, checkpoint_to_resume
from experiments.run_folder import RunFolder
from experiments.settings import Settings
from experiments.stop_signals import StopSignals
from experiments.trainer_parts import fit_trainer
from lightning_modules.adapted_module import AdaptedModule


class Fit:
    """One fit: see `Run.train`, which makes it."""

    def __init__(
        self, settings: Settings, folder: RunFolder, signals: StopSignals, stop_after_epoch: int | None = None
    ) -> None:
        self.settings, self.folder, self.signals = settings, folder, signals
        self.pauses = [] if stop_after_epoch is None else [EpochPause(stop_after_epoch)]
        self.watch: list[FolderWatch] = []  # in the first process
        self.figures = Results()
        self.replaced: list[Path] = []  # of an older run, to be deleted when training begins
        self.trainer: Trainer

    def carry_out(self, ckpt_path: str | None, overwrite: bool) -> RunResults | None:
        """Trains and writes what came of it: see `Run.train`."""
        settings, folder = self.settings, self.folder
        writes = not settings.values.trainer.fast_dev_run
        with ExitStack() as held:
            checkpoint = self._begin(ckpt_path, overwrite, held) if writes else None
            seed_everything(settings.values.seed_everything, workers=True)
            objects = settings.build()
            if idle := idle_settings(settings, objects):
                logger.warning(f"Settings without effect in this run: {', '.join(idle)}.")
            if ckpt_path is not None:
                objects.module.init_from = None  # the checkpoint holds what training made of it
            self.trainer = fit_trainer(settings, objects, folder, self.figures, checkpoint, self.replaced)
            self.trainer.callbacks[:] = [*self.watch, *self.trainer.callbacks, *self.pauses]  # type: ignore[attr-defined]
            start = None if ckpt_path is None else str(checkpoint.path if checkpoint else folder.checkpoint(ckpt_path))
            checkpoint = None  # the trainer has its content: held here, it would stay in memory until the run ends
            self.signals.install()
            if self.trainer.world_size == 1:
                self.signals.stop_outside_loops()
            held.enter_context(self._accidents_told())
            try:
                self.trainer.fit(objects.module, datamodule=objects.data, ckpt_path=start)
            except PausedRunError:  # a sweep's early exit decides by the validation figures so far
                curve = summarise(settings.values, self.figures, self.trainer, objects.module).curve
                if self.trainer.is_global_zero:
                    write_json(folder.path / "paused.json", curve.as_plain())
                raise
            if start is None and self.trainer.global_step == 0:
                limit = settings.values.trainer.max_time
                raise InputError(
                    f"the run ended before its first step: trainer.max_time is {limit}. Raise it, or leave it out."
                    if limit is not None
                    else "the run ended before its first step: a callback stopped it. Leave that callback out."
                )
            return self._conclude(objects.module) if writes else None

    @contextmanager
    def _accidents_told(self) -> Iterator[None]:
        """Says where the last checkpoint is when memory runs out, or the folder is gone."""
        last = self.folder.checkpoints / "last.ckpt"
        try:
            yield
        except Exception as error:
            if isinstance(error, OSError):
                for watch in self.watch:
                    watch.check(self.trainer)
            go_on = f"\n{last} is whole: go on with --ckpt_path last." if last.exists() else ""
            if (ran_out := out_of_memory(error, go_on)) is not None:
                raise ran_out from error
            raise

    def _begin(self, ckpt_path: str | None, overwrite: bool, held: ExitStack) -> Checkpoint | None:
        """Takes the folder for this run, and reads the checkpoint that it goes on from."""
        settings, folder = self.settings, self.folder
        if ckpt_path is None:
            if is_first_process():  # the other processes start when the first has begun the run
                command = f"python cli.py {shlex.join(settings.typed)}"
                self.replaced = held.enter_context(folder.begun(command, overwrite))
                self._watch_folder(held)
            return None
        if is_first_process():
            held.enter_context(folder.held())
            self._watch_folder(held)
            folder.clean_up()
        checkpoint = checkpoint_to_resume(folder, ckpt_path)
        logger.info(f"Going on from {checkpoint.path}: epoch {checkpoint.content['epoch']}, step {checkpoint.step}.")
        saved = folder.path / "config.yaml"
        if saved.exists() and (changed := differences(read_yaml(saved), settings.plain)):
            logger.info("Settings that differ from the run's own config.yaml:\n  " + "\n  ".join(changed))
        return checkpoint

    def _watch_folder(self, held: ExitStack) -> None:
        self.watch = [FolderWatch(self.folder.path)]
        held.callback(os.close, self.watch[0].descriptor)

    def _conclude(self, module: AdaptedModule) -> RunResults:
        """Looks at the best epoch, writes and shows what the run came to; `IncompleteRunError` if it fell short."""
        trainer = self.trainer
        ranks = module.adapter.discrete_ranks() if module.adapter is not None else {}
        shortfall = module.adapter.shortfall() if module.adapter is not None else None
        results = summarise(self.settings.values, self.figures, trainer, module)
        best = self.folder.checkpoints / "best.ckpt"
        is_tested = module.data.has_labelled_test and best.exists()
        if is_tested and results.metric.best_epoch != self.figures.validations[-1]["epoch"]:
            results = replace(results, test_last=self._test_of_last_epoch(module))
        if best.exists():
            # Weights only: a checkpoint given to the trainer would set the callbacks back to that epoch, too.
            module.load_checkpoint(read_checkpoint(best, module.device))
            results = replace(results, at_best_epoch=rank_figures(module))
        results = replace(results, rank_curve=rank_curve(trainer, module))
        if is_tested:
            trainer.test(module, datamodule=module.data, verbose=False)
            test, last = self.figures.test, results.test_last
            results = replace(results, test=test, test_last=last or test, wall_seconds=self.figures.wall_seconds)
        for watch in self.watch:
            watch.check(trainer)
        _log_hyperparameters(trainer, self.settings.plain, results)
        write_files(self.folder.path, results, ranks, module)
        if trainer.is_global_zero:
            print_closing_table(results, ranks, self.folder.path, module.data.majority_share())
        # In the first process alone: the end of another one would cut the first off before all is written.
        if trainer.is_global_zero and results.status == "diverged":
            raise DivergedRunError(self._after_divergence())
        if trainer.is_global_zero and shortfall is not None:
            raise IncompleteRunError(shortfall)
        return results

    def _after_divergence(self) -> str:
        lower = "a lower --model.optimizer.learning_rate, or leave such updates out with --divergence.skip_at_most N"
        if (self.folder.checkpoints / "last.ckpt").exists():
            return f"the run diverged; what it came to is written. Go on with --ckpt_path last and {lower}."
        return f"the run diverged before its first checkpoint. Start again with --overwrite and {lower}."

    def _test_of_last_epoch(self, module: AdaptedModule) -> dict[str, Figure | dict[str, Figure]] | None:
        """Test figures of the weights that training ended with; loggers get those of the best epoch alone."""
        kept, self.trainer.loggers = self.trainer.loggers, []
        self.trainer.test(module, datamodule=module.data, verbose=False)
        self.trainer.loggers = kept
        return self.figures.test


def _log_hyperparameters(trainer: Trainer, config: Mapping[str, object], results: RunResults) -> None:
    """Shows the settings beside the run's real figures in TensorBoard's HPARAMS."""
    metric = results.metric
    figures = {f"best/{metric.name}": metric.best, f"last/{metric.name}": metric.last}
    figures |= {f"test/{name}": value for name, value in results.test_figures.items()}
    figures = {name: value for name, value in figures.items() if value is not None}
    # by the names they are typed with
    given = {name.replace("init_args.", ""): value for name, value in flatten(config).items() if value != "None"}
    for run_logger in trainer.loggers:
        if isinstance(run_logger, TensorBoardLogger):
            # at this step: a run that is finished once more after a kill replaces what it wrote from there on
            run_logger.log_hyperparams(given, figures, step=trainer.global_step)
        run_logger.finalize("success")
