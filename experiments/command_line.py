"""The verbs fit, validate, test and predict: Lightning's command line with this project's run folders."""

import sys
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.alpha_growth import AlphaGrowth
from callbacks.budget_schedule import BudgetSchedule
from callbacks.checkpoints import WholeFileCheckpoints, read_checkpoint
from callbacks.divergence import Divergence
from callbacks.nested_ranks import rank_curve
from callbacks.predictions import PredictionTable
from callbacks.progress import TerminalProgress
from callbacks.rank_discretisation import RankDiscretisation
from callbacks.rank_logging import RankLogging
from callbacks.results import Results
from callbacks.stop_together import StopTogether
from callbacks.update_norms import UpdateNorms
from common.errors import IncompleteRunError, InputError
from common.terminal import is_first_process, quiet_libraries, say
from datamodules.kept_data import holds_data_of
from experiments.closing_table import print_closing_table, print_evaluation
from experiments.config_files import differences, locate_configs
from experiments.error_causes import about_settings, input_error_behind
from experiments.exported_model import use_export
from experiments.fit_parts import file_callbacks, fit_callbacks, listed, log_hyperparameters, loggers
from experiments.parser_messages import innermost, readable
from experiments.process_watch import COURTESY_SECONDS
from experiments.resumption import checkpoint_to_resume, was_requeued
from experiments.run_folder import RunFolder
from experiments.setting_values import check_range, check_values
from experiments.stop_signals import StopSignals
from experiments.strategies import check_strategy, prepare_strategy
from experiments.trainer_settings import check_trainer, make_trainer
from lightning_modules.adapted_module import AdaptedModule

_NAMED_CALLBACKS: dict[str, type[Callback]] = {
    "budget_schedule": BudgetSchedule,
    "alpha_growth": AlphaGrowth,
    "rank_discretisation": RankDiscretisation,
    "rank_logging": RankLogging,
    "update_norms": UpdateNorms,
    "divergence": Divergence,
}
# What belongs to one call, not to the experiment that config.yaml describes.
_CALL_SETTINGS = ("config", "ckpt_path", "overwrite", "weights_only", "output", "export")

_signals = StopSignals()


class CommandLine(LightningCLI):
    """LightningCLI with run folders, named rank callbacks, and errors that are one message."""

    def __init__(self, arguments: list[str], run_name: str) -> None:
        self.arguments, self.default_run_name = arguments, run_name
        super().__init__(
            AdaptedModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            seed_everything_default=42,
            trainer_defaults={
                "use_distributed_sampler": False,  # the data modules split each global batch themselves
                "enable_model_summary": False,
            },
            parser_kwargs={"exit_on_error": False, **{verb: {"exit_on_error": False} for verb in self.subcommands()}},
            args=arguments,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        skipped = LightningCLI.subcommands()
        return {verb: {*names, "weights_only", "return_predictions", "verbose"} for verb, names in skipped.items()}

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--seed_everything", type=int, default=42, help="Seed of every random choice.")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--run_name", type=str, default=self.default_run_name, help="Name of the run's folder.")
        parser.add_argument("--runs_dir", type=str, default="runs", help="Folder that holds the run folders.")
        parser.add_argument(
            "--checkpoint_every_n_minutes", type=float, default=10.0, help="How often last.ckpt is written in an epoch."
        )
        parser.add_argument(
            "--checkpoint_every_n_steps", type=int | None, default=None, help="The same, in optimizer steps, besides."
        )
        for key, callback in _NAMED_CALLBACKS.items():
            parser.add_lightning_class_args(callback, key)
        for name in ("backbone", "revision"):
            parser.link_arguments(f"model.init_args.{name}", f"data.init_args.{name}")
        parser.link_arguments("seed_everything", "data.init_args.seed")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "fit":
            parser.add_argument(
                "--overwrite", type=bool, default=False, nargs="?", const=True, help="Delete a run of this name first."
            )
        else:
            parser.add_argument(
                "--export", type=str, default=None, help="Export folder (native, peft or merged) to use as the model."
            )
        if subcommand == "predict":
            parser.add_argument(
                "--output", type=str, default=None, help="TSV file; predictions.tsv in the run folder if not given."
            )
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise InputError(readable(str(error))) from error
        except ValueError as error:  # a value that the parser tried to open as a file
            raise InputError(f"a setting can't be read: {error}. See `python cli.py fit --help`.") from error

    def _parse_ckpt_path(self) -> None:
        """A checkpoint holds no settings: what the user typed and the config say is what counts."""

    @property
    def settings(self) -> Any:
        """The parsed settings of the verb."""
        return self.config[str(self.config.subcommand)]

    @cached_property
    def _defaults(self) -> Any:
        return self._parser(self.subcommand).get_defaults()

    def plain_config(self) -> dict[str, Any]:
        """The experiment's settings as plain values; `fit --config` with them runs it again."""
        parser = self._parser(self.subcommand)
        content = yaml.safe_load(parser.dump(self.settings, skip_unset=False))
        return {key: value for key, value in content.items() if key not in _CALL_SETTINGS}

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
        if self.subcommand == "fit" and not settings.trainer.fast_dev_run:
            self._prepare_run_folder(settings, wanted)
        elif wanted is not None:
            settings["ckpt_path"] = str(self.run_folder.checkpoint(wanted))

    def _set_seed(self) -> None:
        self._check_settings()  # before anything is done with them
        super()._set_seed()

    def _check_settings(self) -> None:
        settings = self.settings.as_dict()
        check_values(settings, {"trainer": Trainer, **_NAMED_CALLBACKS}, self._defaults.as_dict())
        check_trainer(settings["trainer"])
        check_range("seed_everything", settings["seed_everything"], 0, 2**32 - 1)
        check_range("checkpoint_every_n_minutes", settings["checkpoint_every_n_minutes"], 0)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ValueError, TypeError) as error:
            if input_error_behind(error) is None and str(error).startswith("Does not validate"):
                raise InputError(f"a class can't be made with these settings: {innermost(str(error))}") from error
            raise

    def _prepare_run_folder(self, settings: Any, wanted: str | None) -> None:
        if is_first_process():
            self.run_folder.clean_up()
        if wanted is not None:
            path, checkpoint = checkpoint_to_resume(self.run_folder, wanted, settings.model.init_args.get("backbone"))
            settings["ckpt_path"], self.resumed_step = str(path), int(checkpoint["global_step"])
            say(f"Going on from {path}: epoch {checkpoint['epoch']}, step {self.resumed_step}.")
            self._say_what_changed()
        elif is_first_process():  # the other processes start when the first has begun the run
            if settings.overwrite:
                self.run_folder.clear()
            self.run_folder.refuse_if_occupied(f"python cli.py {' '.join(self.arguments)}")
            self.run_folder.forget_false_start()

    def _say_what_changed(self) -> None:
        path = self.run_folder.path / "config.yaml"
        if not path.exists():
            return
        changed = differences(yaml.safe_load(path.read_text()) or {}, self.plain_config())
        if changed:
            say("Settings that differ from the run's own config.yaml:\n  " + "\n  ".join(changed))

    def after_instantiate_classes(self) -> None:
        if self.settings.ckpt_path is not None:
            self.model.init_from = None  # the checkpoint holds what training made of it
        adapter = self.model.adapter
        if adapter is not None and adapter.allocates_ranks:
            return
        defaults = self._defaults
        for key in ("alpha_growth", "budget_schedule", "rank_discretisation"):
            for name, value in self.settings[key].items():
                if value != defaults[key][name]:
                    raise InputError(
                        f"{key}.{name} is {value}, but would have no effect: the adapter is "
                        f"{'null (full fine-tuning)' if adapter is None else adapter.name} and no ranks are "
                        "learned. Leave it out, or choose an adaptive adapter such as lora.AdaptiveLoRAXS."
                    )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self._get(self.config_init, "trainer")
        check_strategy(config["strategy"])
        named_callbacks = [self.config_init[self.subcommand][key] for key in _NAMED_CALLBACKS]
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
        self.results = Results(folder.path, self.settings.run_name, self.settings.seed_everything)
        config["callbacks"] += fit_callbacks(config, self.results)
        if config.get("fast_dev_run"):
            return
        text = yaml.safe_dump(self.plain_config(), sort_keys=False, allow_unicode=True)
        settings = self.settings
        config["callbacks"] += file_callbacks(
            config, folder, text, settings.checkpoint_every_n_minutes, settings.checkpoint_every_n_steps
        )
        config["logger"] = loggers(config.get("logger"), folder.path, self.resumed_step)
        config["default_root_dir"] = str(folder.path)
        if config["max_steps"] != -1:  # StepLimit sees to it
            config["max_steps"], config["max_epochs"] = -1, config["max_epochs"] or -1

    def before_fit(self) -> None:
        _signals.install()
        if holds_data_of(self.datamodule):  # a sweep's trial before has validated on them
            self.trainer.num_sanity_val_steps = 0

    def after_fit(self) -> None:
        if self.settings.trainer.fast_dev_run:
            return
        module, trainer = self.model, self.trainer
        ranks = module.adapter.discrete_ranks() if module.adapter is not None else {}
        shortfall = module.adapter.shortfall() if module.adapter is not None else None
        results = self.results.summary(trainer, module)
        best = self.run_folder.checkpoints / "best.ckpt"
        if best.exists():
            # Weights only: a checkpoint given to the trainer would set the callbacks back to that epoch, too.
            module.load_checkpoint(read_checkpoint(best, module.device))
        results["rank_curve"] = rank_curve(trainer, module, self.datamodule)
        if self.datamodule.has_labelled_test and best.exists():
            trainer.test(module, datamodule=self.datamodule, verbose=False)
            results["test"], results["wall_seconds"] = self.results.test, self.results.wall_seconds
        log_hyperparameters(trainer, self.plain_config(), results)
        self.results.write(results, trainer, module, ranks)
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
        say(f"Predictions for {rows:,} rows: {self.predictions.path}")


def _how_to_go_on(arguments: list[str]) -> str:
    command = " ".join(["python cli.py", *(argument for argument in arguments if argument != "--overwrite")])
    resume = command if "--ckpt_path" in arguments else f"{command} --ckpt_path last"
    return f"\nStopped by a signal. Unless not one step was done, last.ckpt is written; go on with:\n  {resume}"


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
