"""The options of fit, validate, test and predict: what may stand on the command line and in a config."""

from functools import cache

from jsonargparse import set_dumper
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch import __version__ as lightning_version
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser

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
CALL_SETTINGS = ("config", "ckpt_path", "overwrite", "output", "export")
# Settings of the data that another setting decides.
LINKED = {
    "backbone": "model.init_args.backbone",
    "revision": "model.init_args.revision",
    "seed": "seed_everything",
}


set_dumper("yaml", dump_yaml)  # jsonargparse's own writes the text 1e5 as it would write a number


@cache
def parser_of(verb: str) -> LightningArgumentParser:
    """The parser of fit, validate, test or predict; what it can't understand it raises as `ArgumentError`.

    Kept once made: reading the options from every signature and docstring takes most of a second.
    """
    parser = LightningArgumentParser(
        prog=f"python cli.py {verb}",
        description=_DESCRIPTIONS[verb],
        exit_on_error=False,
        dump_header=[f"lightning.pytorch=={lightning_version}"],
    )
    parser.add_argument("-c", "--config", action="config", help="A YAML file of settings; of several the later wins.")
    parser.add_argument("--seed_everything", type=int, default=42, help="Seed of every random choice.")
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


_DESCRIPTIONS = {
    "fit": "Trains, validates every epoch, tests the best epoch, and writes the run's folder.",
    "validate": "Evaluates a checkpoint on the validation split.",
    "test": "Evaluates a checkpoint on the labelled test split.",
    "predict": "Writes a checkpoint's answers to rows or sentences as a table.",
}


def _add_run_arguments(parser: LightningArgumentParser) -> None:
    """Settings of this project, which a run's config.yaml holds."""
    parser.add_argument("--run_name", type=str, default="unnamed", help="Name of the run's folder.")
    parser.add_argument("--runs_dir", type=str, default="runs", help="Folder that holds the run folders.")
    parser.add_argument(
        "--checkpoint_every_n_minutes", type=float, default=10.0, help="How often last.ckpt is written in an epoch."
    )
    parser.add_argument(
        "--checkpoint_every_n_steps", type=int | None, default=None, help="The same, in optimizer steps, besides."
    )
    for key, callback in NAMED_CALLBACKS.items():
        parser.add_lightning_class_args(callback, key)
    for name, source in LINKED.items():
        parser.link_arguments(source, f"data.init_args.{name}")


def _add_call_arguments(parser: LightningArgumentParser, verb: str) -> None:
    """What is said once: see `CALL_SETTINGS`."""
    parser.add_argument(
        "--ckpt_path",
        type=str | None,
        default=None,
        help="Checkpoint to go on from, or to evaluate.",
    )
    if verb == "fit":
        parser.add_argument(
            "--overwrite", type=bool, default=False, nargs="?", const=True, help="Delete a run of this name first."
        )
        return
    parser.add_argument(
        "--export", type=str | None, default=None, help="Export folder (native, peft or merged) to use as the model."
    )
    if verb == "predict":
        parser.add_argument(
            "--output",
            type=str | None,
            default=None,
            help="TSV file, - for standard output; predictions.tsv in the run folder if not given. Its rows are in the "
            "order of the input; a text that begins like a formula has an apostrophe before it.",
        )
