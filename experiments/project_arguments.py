"""What can be said on the command line and in a config: Lightning's arguments and this project's own."""

from functools import cached_property
from typing import Any

import yaml
from jsonargparse import ArgumentError
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from callbacks.alpha_growth import AlphaGrowth
from callbacks.budget_schedule import BudgetSchedule
from callbacks.divergence import Divergence
from callbacks.rank_discretisation import RankDiscretisation
from callbacks.rank_logging import RankLogging
from callbacks.update_norms import UpdateNorms
from common.errors import InputError
from datamodules.language_modelling import LanguageModellingDataModule
from datamodules.text_classification import TextClassificationDataModule
from experiments.error_causes import input_error_behind
from experiments.parser_messages import innermost, readable
from experiments.setting_values import check_range, check_values
from experiments.trainer_settings import check_trainer
from lightning_modules import LanguageModellingModule, TextClassificationModule
from lightning_modules.adapted_module import AdaptedModule

NAMED_CALLBACKS: dict[str, type[Callback]] = {
    "budget_schedule": BudgetSchedule,
    "alpha_growth": AlphaGrowth,
    "rank_discretisation": RankDiscretisation,
    "rank_logging": RankLogging,
    "update_norms": UpdateNorms,
    "divergence": Divergence,
}
DATA_OF: dict[type, type] = {
    TextClassificationModule: TextClassificationDataModule,
    LanguageModellingModule: LanguageModellingDataModule,
}
# What belongs to one call, not to the experiment that config.yaml describes.
_CALL_SETTINGS = ("config", "ckpt_path", "overwrite", "weights_only", "output", "export")


class ProjectArguments(LightningCLI):
    """LightningCLI with named rank callbacks, checked settings, and errors that are one message."""

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
        for key, callback in NAMED_CALLBACKS.items():
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
    def defaults(self) -> Any:
        """The settings of the verb that nobody has set."""
        return self._parser(self.subcommand).get_defaults()

    def plain_config(self) -> dict[str, Any]:
        """The experiment's settings as plain values; `fit --config` with them runs it again."""
        parser = self._parser(self.subcommand)
        content = yaml.safe_load(parser.dump(self.settings, skip_unset=False))
        return {key: value for key, value in content.items() if key not in _CALL_SETTINGS}

    def _set_seed(self) -> None:
        self.check_settings()  # before anything is done with them
        super()._set_seed()

    def check_settings(self) -> None:
        """Raises `InputError` when a value is of the wrong kind or out of range."""
        settings = self.settings.as_dict()
        check_values(settings, {"trainer": Trainer, **NAMED_CALLBACKS}, self.defaults.as_dict())
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

    def refuse_data_of_another_kind(self) -> None:
        """Raises `InputError` when a model is given data that are made for another kind of model."""
        for kind, data in DATA_OF.items():
            others = tuple(other for other in DATA_OF.values() if other is not data)
            if isinstance(self.model, kind) and isinstance(self.datamodule, others):
                raise InputError(
                    f"model is {type(self.model).__name__} and data is {type(self.datamodule).__name__}; allowed with "
                    f"this model: a {data.__name__}. Set --data or --model."
                )

    def refuse_settings_without_effect(self) -> None:
        """Raises `InputError` when rank callbacks are set and the model made of these settings learns no ranks."""
        adapter = self.model.adapter
        if adapter is not None and adapter.allocates_ranks:
            return
        for key in ("alpha_growth", "budget_schedule", "rank_discretisation"):
            for name, value in self.settings[key].items():
                if value != self.defaults[key][name]:
                    raise InputError(
                        f"{key}.{name} is {value}, but would have no effect: the adapter is "
                        f"{'null (full fine-tuning)' if adapter is None else adapter.name} and no ranks are "
                        "learned. Leave it out, or choose an adaptive adapter such as lora.AdaptiveLoRAXS."
                    )

    def refuse_partial_predictions(self) -> None:
        """Raises `InputError` when predict would leave out rows: its table has one for each row of the input."""
        trainer = self.settings.trainer
        limited = repr(trainer.limit_predict_batches) not in ("None", "1.0")  # 1 is a single batch
        for name, asked in (("limit_predict_batches", limited), ("fast_dev_run", bool(trainer.fast_dev_run))):
            if asked:
                raise InputError(
                    f"trainer.{name} is {trainer[name]}, but predict answers every row. Leave it out, or give a "
                    "shorter file: --data.predict_file FILE."
                )
