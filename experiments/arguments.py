"""The options of fit, validate, test and predict: what may stand on the command line and in a config."""

from functools import cache

import yaml
from jsonargparse import get_loader, set_dumper, set_loader
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch import __version__ as lightning_version
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser

import datamodules
from callbacks.alpha_growth import AlphaGrowth
from callbacks.budget_schedule import BudgetSchedule
from callbacks.divergence import Divergence
from callbacks.rank_discretisation import RankDiscretisation
from callbacks.rank_logging import RankLogging
from callbacks.update_norms import UpdateNorms
from experiments.config_files import dump_yaml
from lightning_modules.adapted_module import AdaptedModule

NAMED_CALLBACKS: dict[str, type[Callback]] = {
    "budget_schedule": BudgetSchedule,
    "alpha_growth": AlphaGrowth,
    "rank_discretisation": RankDiscretisation,
    "rank_logging": RankLogging,
    "update_norms": UpdateNorms,
    "divergence": Divergence,
}
# What belongs to one call, not to the experiment that config.yaml describes.
CALL_SETTINGS = ("config", "ckpt_path", "overwrite", "output", "export", "text")
# Settings of the data that another setting decides.
LINKED = {
    "backbone": "model.init_args.backbone",
    "revision": "model.init_args.revision",
    "seed": "seed_everything",
}
MEANINGS = {
    "config": "A YAML file of settings; of several the later wins.",
    "run_name": "Name of the run's folder.",
    "runs_dir": "Folder that holds the run folders.",
    "overwrite": "Delete a run of this name first.",
    "ckpt_path": "Checkpoint to go on from, or to evaluate: last, best or a file.",
    "export": "Export folder (native, peft or merged) to use as the model.",
    "text": "A text to answer, may be repeated; the two texts of a pair have a tab between them.",
    "output": "TSV file, - for standard output; predictions.tsv in the run folder if not given. Its rows are in the "
    "order of the input; a text that begins like a formula has an apostrophe before it.",
    "seed_everything": "Seed of every random choice.",
    "checkpoint_every_n_minutes": "How often last.ckpt is written in an epoch.",
    "checkpoint_every_n_steps": "The same, in optimizer steps, besides.",
}
DESCRIPTIONS = {
    "fit": "Trains, validates every epoch, tests the best epoch, and writes the run's folder.",
    "validate": "Evaluates a checkpoint on the validation split.",
    "test": "Evaluates a checkpoint on the labelled test split.",
    "predict": "Writes a checkpoint's answers to rows or sentences as a table.",
}


_load = get_loader("yaml")


def _load_value(text: str) -> object:
    """A value as jsonargparse reads it; but a text that begins like a comment, as the column `#2 String`, is none."""
    value = _load(text)
    return text if value is None and text.strip().lower() not in ("", "~", "null") else value


set_loader("yaml", _load_value, (yaml.YAMLError,))
set_dumper("yaml", dump_yaml)  # jsonargparse's own writes the text 1e5 as it would write a number


@cache
def parser_of(verb: str) -> LightningArgumentParser:
    """The parser of fit, validate, test or predict; what it can't understand it raises as `ArgumentError`.

    Kept once made: reading the options from every signature and docstring takes most of a second.
    """
    for name in datamodules.__all__:  # classes are known by their short names once they are imported
        getattr(datamodules, name)
    parser = LightningArgumentParser(
        prog=f"python cli.py {verb}",
        description=DESCRIPTIONS[verb],
        exit_on_error=False,
        allow_abbrev=False,  # what is nearly an option is answered with the one it stands for
        dump_header=[f"lightning.pytorch=={lightning_version}"],
    )
    parser.add_argument("-c", "--config", action="config", help=MEANINGS["config"])
    parser.add_argument("--seed_everything", type=int, default=42, help=MEANINGS["seed_everything"])
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.set_defaults(
        {
            "trainer.use_distributed_sampler": False,  # the data modules split each global batch themselves
            "trainer.enable_model_summary": False,
        }
    )
    parser.add_lightning_class_args(AdaptedModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    _add_run_arguments(parser)
    _add_call_arguments(parser, verb)
    return parser


def _add_run_arguments(parser: LightningArgumentParser) -> None:
    """Settings of this project, which a run's config.yaml holds."""
    for name, kind, default in (
        ("run_name", str, "unnamed"),
        ("runs_dir", str, "runs"),
        ("checkpoint_every_n_minutes", float, 10.0),
        ("checkpoint_every_n_steps", int | None, None),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, help=MEANINGS[name])
    for key, callback in NAMED_CALLBACKS.items():
        parser.add_lightning_class_args(callback, key)
    for name, source in LINKED.items():
        parser.link_arguments(source, f"data.init_args.{name}")


def _add_call_arguments(parser: LightningArgumentParser, verb: str) -> None:
    """What is said once: see `CALL_SETTINGS`."""
    names = {"fit": ("ckpt_path",), "predict": ("ckpt_path", "export", "output")}.get(verb, ("ckpt_path", "export"))
    for name in names:
        parser.add_argument(f"--{name}", type=str | None, default=None, help=MEANINGS[name])
    if verb == "fit":
        parser.add_argument("--overwrite", type=bool, default=False, nargs="?", const=True, help=MEANINGS["overwrite"])
    if verb == "predict":
        parser.add_argument("--text", type=str, action="append", help=MEANINGS["text"])
