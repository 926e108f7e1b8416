"""The verb export: a run's model as files that other programs load, checked against the run before they are kept."""

import argparse
import math
import re
import shlex
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from callbacks.rank_discretisation import describe_ranks
from common.errors import InputError, VerificationError
from common.files import atomic_folder, write_text
from common.terminal import logger, quiet_libraries
from experiments.config_files import dump_yaml
from experiments.export_formats import FORMATS, ExportOptions, cut_update, logits
from experiments.exported_model import CONFIG_NAME, serving_config
from experiments.model_card import model_card
from experiments.run import LoadedRun, Run
from lightning_modules.backbone_sketch import write_checksums

_OF_ONE_FORMAT = {"dtype": "merged", "max_shard_size": "merged", "with_factors": "native", "without_head": "native"}
_SIZE = re.compile(r"[1-9]\d*[KMGT]B", re.IGNORECASE)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"export: {message}. See `python cli.py export --help`.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python cli.py export",
        description="Writes a run's model into a folder that other programs load, and checks that it says the same.",
        epilog="Other options go to the run's settings, such as --model.backbone FOLDER or --data.data_dir FOLDER.",
        allow_abbrev=False,
    )
    parser.add_argument("run", help="Run folder, or a run's name below --runs_dir.")
    parser.add_argument(
        "--format",
        required=True,
        choices=list(FORMATS),
        help="peft: plain LoRA with a rank per layer; merged: the whole model; native: R blocks in one small file.",
    )
    parser.add_argument("--output", type=Path, help="Folder to write; RUN/exports/FORMAT if not given.")
    parser.add_argument("--ckpt_path", default="best", help="best (default), last or a file.")
    parser.add_argument("--runs_dir", default="runs", help="Folder that holds the run folders.")
    parser.add_argument("--force", action="store_true", help="Export a run whose ranks are still soft.")
    parser.add_argument(
        "--budget", type=int, help="Cut the adapter to so many entries of R (LoRA-XS), or parameters (LoRA)."
    )
    parser.add_argument("--dtype", choices=list(_DTYPES), help="Type of merged weights; float32 if not given.")
    parser.add_argument("--max_shard_size", help="Largest file of a merged model; 5GB if not given.")
    parser.add_argument(
        "--with_factors", action="store_true", help="native: put in the frozen factors, cut to the ranks."
    )
    parser.add_argument("--without_head", action="store_true", help="native: leave the head out.")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-5,
        help="Largest allowed difference of logits (1e-5), times the largest logit if above 1.",
    )
    return parser


def run_export(arguments: list[str]) -> int:
    """Exports a run and returns the exit code.

    Raises:
        InputError: the user's input is at fault.
        VerificationError: the files give other logits than the run; they are deleted.
    """
    quiet_libraries()
    asked, overrides = _parser().parse_known_args(arguments)
    _check_options(asked)
    exported = Run.open(asked.run, asked.runs_dir, overrides, verb="validate")
    output = (asked.output or exported.folder.path / "exports" / asked.format).expanduser()
    with atomic_folder(output) as temporary:
        run = exported.load(asked.ckpt_path)
        _check_ranks(run, asked.force)
        difference = _write(run, asked, temporary)
        size = sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file())
    logger.info(f"{output}: {size:,} bytes. Loaded from these files, {difference}")
    logger.info(f"Use it: python cli.py predict --export {shlex.quote(str(output))} --text 'A sentence.'")
    return 0


def _check_options(asked: argparse.Namespace) -> None:
    """Raises `InputError` for a value out of range, or one without effect on the format."""
    for name, kind in _OF_ONE_FORMAT.items():
        value = getattr(asked, name)
        if value and asked.format != kind:
            given = "given" if value is True else value
            raise InputError(
                f"--{name} is {given} and --format is {asked.format}; allowed: --{name} with --format {kind}."
            )
    if asked.max_shard_size and not _SIZE.fullmatch(asked.max_shard_size):
        raise InputError(f"--max_shard_size is {asked.max_shard_size!r}; allowed: a size such as 500MB or 5GB.")
    if not 0 <= asked.tolerance < math.inf:
        raise InputError(f"--tolerance is {asked.tolerance}; allowed: a finite number from 0, such as 1e-5.")


def _check_ranks(run: LoadedRun, force: bool) -> None:
    if run.results is not None or run.ranks_are_discrete:
        return
    assert run.module.adapter is not None
    ranks = ", ".join(str(rank) for rank in run.module.adapter.discrete_ranks().values())
    rounded = f"{describe_ranks(run.module)} (by layer: {ranks})"
    if not force:
        raise InputError(
            f"the run in {run.folder} isn't finished, and its ranks are still soft in {run.checkpoint.name} (epoch "
            f"{run.epoch}). Rounded, they would be {rounded}. Finish the run (fit … --ckpt_path last), or export these "
            "ranks with --force."
        )
    logger.info(f"The run isn't finished; its soft ranks are rounded to {rounded}.")


def _write(run: LoadedRun, asked: Any, folder: Path) -> str:
    """Writes everything into the folder, and says how far its logits are from the run's."""
    batches = run.batches()
    cut = None if asked.budget is None else cut_update(run, asked.budget)
    ours = logits(run.module.model, batches)
    ranks = run.module.adapter.discrete_ranks() if run.module.adapter is not None else {}
    if cut is not None:
        ranks = {name: len(A) for name, (A, _) in cut.items()}
        logger.info(f"Cut to {asked.budget:,}: ranks {min(ranks.values())} to {max(ranks.values())}.")
    dtype = _DTYPES[asked.dtype] if asked.dtype else None
    options = ExportOptions(dtype, asked.max_shard_size or "5GB", asked.with_factors, asked.without_head, cut)
    export = FORMATS[asked.format](run, options)
    export.write(folder)
    loaded = export.logits(folder, batches)
    if dtype in (None, torch.float32):
        said = _compare(ours, loaded, asked.tolerance, "the run's" if cut is None else "those of the run after the cut")
    else:  # rounding the weights moves the logits; the files must hold exactly the rounded model
        said = _compare(logits(export.model, batches), loaded, asked.tolerance, f"those of the {asked.dtype} weights")
        moved = _largest(ours, export.logits(folder, batches, dtype))
        if not moved < math.inf:
            raise VerificationError(
                f"computed in {asked.dtype}, the logits aren't all finite. Nothing was kept. Try --dtype bfloat16."
            )
        said += f" Rounding to {asked.dtype} moved them by at most {moved:.1e} from the run's."
    write_text(folder / "README.md", model_card(run, asked.format, ranks, said))
    write_text(folder / CONFIG_NAME, dump_yaml(serving_config(run.config, run.data)))
    write_checksums(folder)
    return said


def _compare(ours: list[Tensor], theirs: list[Tensor], tolerance: float, whose: str) -> str:
    difference = _largest(ours, theirs)
    # float32 has seven digits: logits of 30, as language models have, can't agree to 1e-5
    allowed = tolerance * max(1.0, *(float(batch.abs().max()) for batch in ours))
    rows = sum(len(batch) for batch in ours)
    if not all(bool(batch.isfinite().all()) for batch in ours):
        raise VerificationError(
            f"{whose} logits of {rows} validation rows aren't all finite, so an export can't be compared with them. "
            "Nothing was kept. Choose another checkpoint (--ckpt_path); for --dtype float16, bfloat16 or float32."
        )
    said = f"logits of {rows} validation rows differ by at most {difference:.1e} from {whose}"
    if not difference <= allowed:  # also when it isn't a number
        raise VerificationError(
            f"loaded from the files, {said}; allowed: {allowed:.1e}. Nothing was kept. Try another --format; pass a "
            "larger --tolerance only if a difference of this size is rounding for your logits."
        )
    return f"{said} (allowed: {allowed:.1e})."


def _largest(ours: list[Tensor], theirs: list[Tensor]) -> float:
    # torch's maximum, because Python's passes over a NaN that comes after a number
    return float(torch.stack([(a - b).abs().max() for a, b in zip(ours, theirs, strict=True)]).max())
