"""The settings of a run: read from options and configs, checked, and made into objects."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser

from common.errors import InputError
from datamodules.language_modelling import LanguageModellingDataModule
from datamodules.text_classification import TextClassificationDataModule
from datamodules.tokenized_data import TokenizedDataModule
from experiments.arguments import CALL_SETTINGS, LINKED, NAMED_CALLBACKS, parser_of
from experiments.config_files import (
    RUN_FOLDER,
    dump_yaml,
    group_of,
    load_yaml,
    locate_configs,
    read_yaml,
)
from experiments.error_causes import input_error_behind
from experiments.options import explain_unknown
from experiments.parser_messages import innermost, missing_package, readable, unknown_word
from experiments.run_folder import RunFolder
from experiments.setting_values import check_range, check_strategy, check_trainer, check_values
from experiments.typed_options import completed_options, texts_apart, values_apart
from experiments.watched_ddp import watched
from lightning_modules import LanguageModellingModule, TextClassificationModule
from lightning_modules.adapted_module import AdaptedModule

DATA_OF: dict[type, type] = {
    TextClassificationModule: TextClassificationDataModule,
    LanguageModellingModule: LanguageModellingDataModule,
}
_OF_LEARNT_RANKS = ("alpha_growth", "budget_schedule", "rank_discretisation")


@dataclass(frozen=True)
class Objects:
    """What settings were made into; `callbacks` have settings of their own, `trainer` holds the Trainer's arguments."""

    module: AdaptedModule
    data: TokenizedDataModule
    callbacks: list[Callback]
    trainer: dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Checked settings; `parse` gives them.

    `InputError`: a value of the wrong kind or out of range; names the first such setting.
    """

    verb: str  # fit, validate, test or predict
    values: Namespace  # every setting by its name, such as `values.trainer.max_epochs`
    typed: list[str] = field(default_factory=list)  # what follows `python cli.py` to have them again
    configs: list[Path] = field(default_factory=list)  # the files they come from

    def __post_init__(self) -> None:
        values = self.values.as_dict()
        check_values(values, {"trainer": Trainer, **NAMED_CALLBACKS}, self.defaults)
        check_trainer(values["trainer"])
        check_range("seed_everything", values["seed_everything"], 0, 2**32 - 1)
        check_range("checkpoint_every_n_minutes", values["checkpoint_every_n_minutes"], 0)
        check_strategy(values["trainer"]["strategy"])

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The experiment's settings as config.yaml holds them; `fit --config` with them runs it again."""
        try:
            content = load_yaml(parser_of(self.verb).dump(self.values, skip_unset=False))
        except ValueError as error:
            raise InputError(
                f"config.yaml can't hold a setting of a class: {innermost(str(error))}. Give it as a number, or "
                "as text."
            ) from error
        return {name: value for name, value in content.items() if name not in CALL_SETTINGS}

    @property
    def text(self) -> str:
        """The content of config.yaml."""
        return dump_yaml(self.plain)

    @property
    def defaults(self) -> dict[str, Any]:
        """The settings that nobody has set."""
        return parser_of(self.verb).get_defaults().as_dict()

    def changed(self, changes: Mapping[str, object]) -> "Settings":
        """A copy with other values by their names on the command line, such as "data.batch_size": see `parse`."""
        values = _parsed(lambda parser: parser.parse_object(dict(changes), self.values), self.verb)
        _refuse_linked(values, {name.removeprefix("data."): value for name, value in changes.items()})
        return Settings(self.verb, values, self.typed, self.configs)

    def build(self) -> Objects:
        """Makes the objects, and checks that they fit each other.

        `InputError`: a constructor refuses a value, data are of another kind than the model, or a setting would have no
        effect.
        """
        try:
            values = self.values.clone()
            values.trainer.strategy = watched(values.trainer.strategy)
            loggers = values.trainer.logger
            for one in loggers if isinstance(loggers, list) else [loggers]:
                if isinstance(one, Namespace) and one.get("init_args.save_dir") == RUN_FOLDER:
                    one.init_args.save_dir = str(RunFolder.of(values.runs_dir, values.run_name).path)
            made = parser_of(self.verb).instantiate(values)
        except Exception as error:
            if (cause := _refusal(error)) is not None:
                raise cause from error
            raise
        callbacks = [made[key] for key in NAMED_CALLBACKS]
        objects = Objects(made.model, made.data, callbacks, dict(made.trainer.items(branches=True)))
        _check_kinds(objects)
        self._check_effect(objects.module)
        return objects

    def _check_effect(self, module: AdaptedModule) -> None:
        data = self.values.data.init_args
        if data.get("dataset_revision") is not None and data.get("data_dir") is not None:
            raise InputError(
                f"data.dataset_revision is {data.dataset_revision!r}, but would have no effect: data.data_dir is "
                f"{data.data_dir!r}, and nothing comes from the hub. Leave one of them out."
            )
        adapter = module.adapter
        if adapter is not None and adapter.allocates_ranks:
            return
        defaults = self.defaults
        for key in _OF_LEARNT_RANKS:
            for name, value in self.values[key].items():
                if value != defaults[key][name]:
                    raise InputError(
                        f"{key}.{name} is {value}, but would have no effect: the adapter is "
                        f"{'null (full fine-tuning)' if adapter is None else adapter.name} and no ranks are "
                        "learned. Leave it out, or choose an adaptive adapter such as lora.AdaptiveLoRAXS."
                    )


def parse(arguments: Sequence[str], base: Mapping[str, object] | None = None) -> Settings:
    """Reads settings and checks them.

    `InputError`: an unknown setting, a wrong type, or a value that `Settings` refuses.

    Args:
        arguments: a verb and its options, as typed after `python cli.py`. They win over everything else.
        base: settings by name as in a config, which `arguments` are put on top of.
    """
    verb, *typed = arguments
    options, configs = locate_configs(typed)
    options = completed_options(options)

    def read(parser: LightningArgumentParser, options: list[str]) -> Namespace:
        parser.set_defaults({"run_name": configs[0].stem if configs else "unnamed"})
        below = None if base is None else parser.parse_object(dict(base))
        apart, others = values_apart(options)
        values = parser.parse_args(others, namespace=below)
        return parser.parse_object(apart, values) if apart else values

    try:
        values = _read_options(read, options, verb)
    except InputError as error:
        files = [f"--config={path}" for path in configs] or ([] if base else ["--config=quickstart.yaml"])
        word = unknown_word(str(error.__cause__))
        if word is None or typed == files:  # or else the files hold what is unknown
            raise
        told = explain_unknown(verb, word, parse([verb, *files], base).values.as_dict())
        raise InputError(told if "Did you mean" in told or "has no option" not in str(error) else str(error)) from error
    for config in configs:
        _refuse_linked(values, group_of(read_yaml(config), "data", "init_args"))
    words = zip(options, [*options[1:], ""])
    pairs = [(word, after) if "=" not in word else word.split("=", 1) for word, after in words]
    _refuse_linked(values, {re.sub(r"^--data\.(init_args\.)?", "", name): value for name, value in pairs})
    return Settings(verb, values, list(arguments), configs)


def _refuse_linked(values: Namespace, given: Mapping[str, object]) -> None:
    """Refuses another value for what the parser takes from elsewhere, and would drop without a word."""
    for name, source in LINKED.items():
        if name in given and str(given[name]) != str(values[source]):
            option = source.replace("init_args.", "")
            raise InputError(
                f"data.{name} is {given[name]!r}, but would have no effect: it is taken from {option}, "
                f"{values[source]!r}. Set --{option}, or leave it out."
            )


def _read_options(
    read: Callable[[LightningArgumentParser, list[str]], Namespace], options: list[str], verb: str
) -> Namespace:
    """The values of typed options; those that YAML reads as a list or as settings may be meant as text."""
    try:
        return _parsed(lambda parser: read(parser, options), verb)
    except InputError as first:
        texts, others = texts_apart(options)
        if not texts:
            raise
        try:
            return _parsed(lambda parser: parser.parse_object(texts, read(parser, others)), verb)
        except InputError as error:  # one about a setting that isn't text was told better at first
            raise first if any(name.partition(".")[0] in str(error) for name in texts) else error from error.__cause__


def _parsed(read: Callable[[LightningArgumentParser], Namespace], verb: str) -> Namespace:
    try:
        return read(parser_of(verb))
    except ArgumentError as error:
        raise InputError(readable(str(error))) from error
    except ValueError as error:  # a value that the parser tried to open as a file
        raise InputError(f"a setting can't be read: {error}. See `python cli.py {verb} --help`.") from error


def _refusal(error: Exception) -> InputError | None:
    """What was wrong with the settings, if a class couldn't be made because of them."""
    if (cause := input_error_behind(error)) is not None:
        return cause
    if (package := missing_package(str(error))) is not None:
        return InputError(
            f"a setting asks for a class of {package}, which isn't installed. Install it with `{sys.executable} -m pip "
            f"install {package}`, or leave the setting out."
        )
    if isinstance(error, ArgumentError):
        return InputError(readable(str(error)))
    if isinstance(error, ValueError | TypeError) and str(error).startswith("Does not validate"):
        return InputError(f"a class can't be made with these settings: {innermost(str(error))}")
    return None


def _check_kinds(objects: Objects) -> None:
    """Refuses data that are made for another kind of model."""
    for kind, data in DATA_OF.items():
        others = tuple(other for other in DATA_OF.values() if other is not data)
        if isinstance(objects.module, kind) and isinstance(objects.data, others):
            raise InputError(
                f"model is {type(objects.module).__name__} and data is {type(objects.data).__name__}; allowed with "
                f"this model: a {data.__name__}. Set --data or --model."
            )
