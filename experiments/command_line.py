"""The verbs fit, validate, test and predict: Lightning's command line with this project's run folders."""

import shlex
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.checkpoints import WholeFileCheckpoints, read_checkpoint
from callbacks.nested_ranks import rank_curve
from callbacks.predictions import PredictionTable
from callbacks.progress import TerminalProgress
from callbacks.results import Results
from callbacks.stop_together import StopTogether
from common.errors import IncompleteRunError, InputError
from common.terminal import is_first_process, quiet_libraries, say
from datamodules.kept_data import holds_data_of
from experiments.closing_table import print_closing_table, print_evaluation
from experiments.config_files import differences, locate_configs, read_yaml
from experiments.error_causes import about_settings, input_error_behind
from experiments.exported_model import use_export
from experiments.fit_parts import file_callbacks, fit_callbacks, listed, log_hyperparameters, loggers
from experiments.fit_results import rank_figures, summarise, write_files
from experiments.process_watch import COURTESY_SECONDS
from experiments.project_arguments import NAMED_CALLBACKS, ProjectArguments
from experiments.resumption import checkpoint_to_resume, was_requeued
from experiments.run_folder import RunFolder
from experiments.stop_signals import StopSignals
from experiments.strategies import check_strategy, prepare_strategy
from experiments.trainer_settings import make_trainer
from lightning_modules.adapter_import import export_kind

_signals = StopSignals()


class CommandLine(ProjectArguments):
    """Does what a verb's settings ask for, in a run folder."""

    def __init__(self, arguments: list[str], run_name: str) -> None:
        with ExitStack() as self._held:  # all is done within the constructor, as in Lightning
            super().__init__(arguments, run_name)

    def before_instantiate_classes(self) -> None:
        settings = self.settings
        self.run_folder = RunFolder.of(settings.runs_dir, settings.run_name)
        wanted = settings.get("ckpt_path")
        if self.subcommand == "fit" and wanted is None and was_requeued(self.run_folder):
            say("SLURM has started this job again.")
            wanted = "last"
        if wanted is None and self.subcommand != "fit" and settings.get("export") is None:
            raise InputError(
                f"{self.subcommand} needs trained weights, and ckpt_path isn't given; allowed: --ckpt_path best, last "
                "or FILE, or --export FOLDER."
            )
        self.resumed_step: int | None = None
        self.deletes_old_run = False
        if self.subcommand == "fit" and not settings.trainer.fast_dev_run:
            self._prepare_run_folder(settings, wanted)
        elif wanted is not None:
            settings["ckpt_path"] = str(self.run_folder.checkpoint(wanted))

    def _prepare_run_folder(self, settings: Any, wanted: str | None) -> None:
        if wanted is not None:
            if is_first_process():
                self._held.enter_context(self.run_folder.held())
                self.run_folder.clean_up()
            path, checkpoint = checkpoint_to_resume(self.run_folder, wanted, settings.model.init_args.get("backbone"))
            settings["ckpt_path"], self.resumed_step = str(path), int(checkpoint["global_step"])
            say(f"Going on from {path}: epoch {checkpoint['epoch']}, step {self.resumed_step}.")
            self._say_what_changed()
        elif is_first_process():  # the other processes start when the first has begun the run
            self.deletes_old_run = bool(settings.overwrite)
            command = f"python cli.py {shlex.join(self.arguments)}"
            if not settings.overwrite:
                self.run_folder.refuse_if_occupied(command)
            self._held.enter_context(self.run_folder.held())
            if settings.overwrite:
                self.run_folder.refuse_to_clear_others()
            else:
                self.run_folder.refuse_if_occupied(command)  # by a run that ended while this one waited
                self.run_folder.forget_false_start()

    def _say_what_changed(self) -> None:
        path = self.run_folder.path / "config.yaml"
        if not path.exists():
            return
        changed = differences(read_yaml(path), self.plain_config())
        if changed:
            say("Settings that differ from the run's own config.yaml:\n  " + "\n  ".join(changed))

    def after_instantiate_classes(self) -> None:
        export = self.settings.get("export")
        self.model.brings_its_head = export is not None and export_kind(Path(export).expanduser()) == "merged"
        if self.settings.ckpt_path is not None:
            self.model.init_from = None  # the checkpoint holds what training made of it
        self.refuse_data_of_another_kind()
        self.refuse_settings_without_effect()
        if self.subcommand == "predict":
            self.refuse_partial_predictions()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self._get(self.config_init, "trainer")
        check_strategy(config["strategy"])
        named_callbacks = [self.config_init[self.subcommand][key] for key in NAMED_CALLBACKS]
        config["plugins"] = [*listed(config.get("plugins")), WholeFileCheckpoints()]
        config["callbacks"] = [*listed(config.get("callbacks")), *named_callbacks, StopTogether()]
        if sys.stdout.isatty() and config.get("enable_progress_bar") is not False:
            config["callbacks"].append(TerminalProgress())
        else:
            config["enable_progress_bar"] = False
        if self.subcommand == "fit":
            self._add_fit_parts(config)
        else:
            config["logger"], config["enable_checkpointing"] = False, False
        if self.subcommand == "predict":
            self.predictions = PredictionTable(Path(self.settings.output or self.run_folder.path / "predictions.tsv"))
            config["callbacks"].append(self.predictions)
        trainer = make_trainer(config)
        prepare_strategy(trainer)
        return trainer

    def _add_fit_parts(self, config: dict[str, Any]) -> None:
        folder = self.run_folder
        self.figures = Results()
        config["callbacks"] += fit_callbacks(config, self.figures, self.settings.seed_everything)
        if config.get("fast_dev_run"):
            return
        text = yaml.safe_dump(self.plain_config(), sort_keys=False, allow_unicode=True)
        settings = self.settings
        if self.deletes_old_run:  # when all else is checked: a wrong path or setting costs no finished run
            config["callbacks"].append(LambdaCallback(on_train_start=lambda trainer, module: folder.clear()))
        config["callbacks"] += file_callbacks(
            config, folder, text, settings.checkpoint_every_n_minutes, settings.checkpoint_every_n_steps
        )
        config["logger"] = loggers(config.get("logger"), folder.path, self.resumed_step)
        config["default_root_dir"] = str(folder.path)
        if config["max_steps"] != -1:  # StepLimit sees to it
            config["max_steps"], config["max_epochs"] = -1, config["max_epochs"] or -1

    def before_fit(self) -> None:
        _signals.install()
        if self.trainer.world_size == 1:
            _signals.stop_outside_loops()
        if holds_data_of(self.datamodule):  # a sweep's trial before has validated on them
            self.trainer.num_sanity_val_steps = 0

    def after_fit(self) -> None:
        if self.settings.trainer.fast_dev_run:
            return
        module, trainer = self.model, self.trainer
        ranks = module.adapter.discrete_ranks() if module.adapter is not None else {}
        shortfall = module.adapter.shortfall() if module.adapter is not None else None
        results = summarise(self.settings.run_name, self.settings.seed_everything, self.figures, trainer, module)
        best = self.run_folder.checkpoints / "best.ckpt"
        if best.exists():
            # Weights only: a checkpoint given to the trainer would set the callbacks back to that epoch, too.
            module.load_checkpoint(read_checkpoint(best, module.device))
            results = replace(results, at_best_epoch=rank_figures(module))
        results = replace(results, rank_curve=rank_curve(trainer, module, self.datamodule))
        if self.datamodule.has_labelled_test and best.exists():
            trainer.test(module, datamodule=self.datamodule, verbose=False)
            results = replace(results, test=self.figures.test, wall_seconds=self.figures.wall_seconds)
        log_hyperparameters(trainer, self.plain_config(), results)
        write_files(self.run_folder.path, results, ranks, trainer, module)
        if trainer.is_global_zero:
            print_closing_table(results, ranks, self.run_folder.path)
        # In the first process alone: the end of another one would cut the first off before all is written.
        if shortfall is not None and trainer.is_global_zero:
            raise IncompleteRunError(shortfall)

    def after_validate(self) -> None:
        print_evaluation("validation", self.trainer, self.datamodule)

    def after_test(self) -> None:
        print_evaluation("test", self.trainer, self.datamodule)

    def after_predict(self) -> None:
        rows = len(self.datamodule.predict_examples().texts)
        say(
            f"Predictions for {rows:,} rows: {self.predictions.path}\n"
            "Tab-separated, and quotation marks are text: in pandas, read_csv(PATH, sep='\\t', quoting=3)."
        )


def _how_to_go_on(arguments: list[str]) -> str:
    kept = [argument for argument in arguments if argument.partition("=")[0] != "--overwrite"]
    # the last one counts: a run that began at another checkpoint goes on from its own
    resume = kept if _asks_for_last(kept) else [*kept, "--ckpt_path", "last"]
    return (
        "\nStopped by a signal. Unless not one step was done, last.ckpt is written; go on with:\n"
        f"  python cli.py {shlex.join(resume)}"
    )


def _asks_for_last(arguments: list[str]) -> bool:
    words = [word for argument in arguments for word in argument.split("=", 1)]
    asked = [value for name, value in pairwise(words) if name == "--ckpt_path"]
    return asked[-1:] == ["last"]


def parse_and(kind: type[CommandLine], arguments: list[str]) -> CommandLine:
    """Parses the arguments and does what this kind of command line does.

    Raises:
        InputError: the user's input is at fault.
    """
    quiet_libraries()
    arguments, configs = locate_configs(arguments)
    for path in configs:
        say(f"config: {path}")
    try:
        return kind(arguments, configs[0].stem if configs else "unnamed")
    except Exception as error:
        if (cause := input_error_behind(error) or about_settings(error)) is not None:
            raise cause from error
        raise


def run(arguments: list[str]) -> int:
    """Runs one verb and returns the exit code.

    Raises:
        InputError: the user's input is at fault.
    """
    try:
        parse_and(CommandLine, use_export(arguments))
    except SIGTERMException:
        if not _signals.requeue():
            say(_how_to_go_on(arguments))
        return 1
    except InputError:
        if not is_first_process():  # most likely the first one says the same
            time.sleep(COURTESY_SECONDS)
        raise
    finally:
        _signals.restore()
    return 0
