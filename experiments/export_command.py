"""The verb export: a run's model as files that other programs load."""

import shlex
from dataclasses import fields
from pathlib import Path

import torch

from common.errors import InputError
from common.terminal import VerbParser, logger, quiet_libraries
from experiments.arguments import MEANINGS
from experiments.export_formats import FORMATS, ExportOptions
from experiments.run import Run

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def _parser() -> VerbParser:
    parser = VerbParser(
        prog="python cli.py export",
        description="Writes a run's model into a folder that other programs load, and checks that it says the same.",
        epilog="Other options go to the run's settings, such as --model.backbone FOLDER or --data.data_dir FOLDER.",
        handed_on=MEANINGS,
    )
    add = parser.add_argument
    add("run", help="Run folder, or a run's name below --runs_dir.")
    told = "peft: PEFT's own folder, as a rule plain LoRA; merged: the whole model; native: R blocks in one file."
    add("--format", required=True, choices=list(FORMATS), help=told)
    add("--output", type=Path, help="Folder to write; RUN/exports/FORMAT if not given.")
    add("--ckpt_path", default="best", help="best (default), last or a file.")
    add("--runs_dir", default="runs", help="Folder that holds the run folders.")
    add("--force", action="store_true", help="Export a run whose ranks are still soft.")
    add("--budget", type=int, help="Cut the adapter to so many entries of R (LoRA-XS), or parameters (LoRA).")
    add("--dtype", choices=list(_DTYPES), help="Type of merged weights; float32 if not given.")
    add("--max_shard_size", default="5GB", help="Largest file of a merged model (5GB).")
    add("--with_factors", action="store_true", help="native: put in the frozen factors, cut to the ranks.")
    add("--without_head", action="store_true", help="native: leave the head out.")
    told = "Largest allowed difference of logits (1e-5), times the largest logit if above 1."
    add("--tolerance", type=float, default=1e-5, help=told)
    return parser


def run_export(arguments: list[str]) -> int:
    """Exports a run and returns the exit code; raises what `Run.export` does."""
    quiet_libraries()
    asked, overrides = _parser().parse_known_args(arguments)
    chosen = {field.name: getattr(asked, field.name) for field in fields(ExportOptions)}
    options = ExportOptions(**{**chosen, "dtype": _DTYPES.get(asked.dtype)})
    try:
        run = Run.open(asked.run, asked.runs_dir, overrides, verb="validate")
    except InputError as error:
        own, those_of_run = "`python cli.py export --help` lists export's options", "`python cli.py validate --help`"
        raise InputError(str(error).replace(f"{those_of_run} lists all", f"{own}, {those_of_run} the run's")) from error
    output = shlex.quote(str(run.export(asked.format, asked.output, asked.ckpt_path, options)))
    logger.info(f"Use it: python cli.py predict --export {output} --text 'A sentence.'")
    return 0
