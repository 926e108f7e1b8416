"""A run's model as files that other programs load, checked against the run before they are kept."""

import math
import re
from pathlib import Path

import torch
from torch import Tensor

from callbacks.rank_discretisation import describe_ranks
from common.errors import InputError, VerificationError, check_one_of
from common.files import write_text
from common.terminal import logger
from experiments.config_files import dump_yaml
from experiments.export_formats import FORMATS, ExportOptions, cut_update, logits
from experiments.exported_model import CONFIG_NAME, serving_config
from experiments.loaded_run import LoadedRun
from experiments.model_card import model_card
from lightning_modules.backbone_sketch import write_checksums

_OF_ONE_FORMAT = {"dtype": "merged", "max_shard_size": "merged", "with_factors": "native", "without_head": "native"}
_SIZE = re.compile(r"[1-9]\d*[KMGT]B", re.IGNORECASE)


def check_options(kind: str, options: ExportOptions) -> None:
    """Raises `InputError` for a value out of range, or one without effect on the format."""
    check_one_of("the format", kind, FORMATS)
    usual = ExportOptions()
    for name, other in _OF_ONE_FORMAT.items():
        value = getattr(options, name)
        if value != getattr(usual, name) and kind != other:
            given = "given" if value is True else str(value).removeprefix("torch.")
            raise InputError(f"--{name} is {given} and --format is {kind}; allowed: --{name} with --format {other}.")
    if not _SIZE.fullmatch(options.max_shard_size):
        raise InputError(f"--max_shard_size is {options.max_shard_size!r}; allowed: a size such as 500MB or 5GB.")
    if not 0 <= options.tolerance < math.inf:
        raise InputError(f"--tolerance is {options.tolerance}; allowed: a finite number from 0, such as 1e-5.")


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


def write_export(run: LoadedRun, kind: str, options: ExportOptions, folder: Path) -> str:
    """Writes everything into the folder, and says how far its logits are from the run's: see `Run.export`."""
    _check_ranks(run, options.force)
    batches = run.batches()
    cut = None if options.budget is None else cut_update(run, options.budget)
    ours = logits(run.module.model, batches)
    ranks = run.module.adapter.discrete_ranks() if run.module.adapter is not None else {}
    if cut is not None:
        ranks = {name: len(A) for name, (A, _) in cut.items()}
        logger.info(f"Cut to {options.budget:,}: ranks {min(ranks.values())} to {max(ranks.values())}.")
    dtype, tolerance = options.dtype, options.tolerance
    export = FORMATS[kind](run, options, cut)
    export.write(folder)
    loaded = export.logits(folder, batches)
    if dtype in (None, torch.float32):
        said = _compare(ours, loaded, tolerance, "the run's" if cut is None else "those of the run after the cut")
    else:  # rounding the weights moves the logits; the files must hold exactly the rounded model
        rounded = str(dtype).removeprefix("torch.")
        said = _compare(logits(export.model, batches), loaded, tolerance, f"those of the {rounded} weights")
        moved = _largest(ours, export.logits(folder, batches, dtype))
        if not moved < math.inf:
            raise VerificationError(
                f"computed in {rounded}, the logits aren't all finite. Nothing was kept. Try --dtype bfloat16."
            )
        said += f" Rounding to {rounded} moved them by at most {moved:.1e} from the run's."
    write_text(folder / "README.md", model_card(run, kind, ranks, said))
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
