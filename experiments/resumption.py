"""Which checkpoint a run goes on from: the one asked for, or the newest whole one when last.ckpt is damaged."""

import os
from pathlib import Path
from typing import Any

from callbacks.checkpoints import read_checkpoint
from common.errors import InputError
from common.terminal import warn
from experiments.run_folder import RunFolder
from lightning_modules.checkpoint_content import CHECKPOINT_FORMAT

_PARTS = ("state_dict", "epoch", "global_step", "loops", "optimizer_states", "lr_schedulers", "callbacks", "rankwise")


def checkpoint_to_resume(folder: RunFolder, wanted: str, backbone: str | None = None) -> tuple[Path, dict[str, Any]]:
    """The file to go on from, and its content.

    Args:
        folder: the run folder.
        wanted: last, best or a file. For last, the newest other checkpoint that is whole does, too.
        backbone: the run's; a checkpoint of another one is of no use.

    Raises:
        InputError: there is no such file, or nothing whole to go on from.
    """
    path = folder.checkpoint(wanted)
    try:
        content = read_resumable(path, backbone)
    except InputError as error:
        if wanted != "last":
            raise
        others = [folder.checkpoints / name for name in ("previous.ckpt", "best.ckpt")]
        path, content = _newest(others, backbone, error)
        warn(f"{error}\n  Going on from the newest whole checkpoint instead, {path.name}.")
    _check_best(folder, path)
    return path, content


def read_resumable(path: Path, backbone: str | None = None) -> dict[str, Any]:
    """Reads a checkpoint that a run can go on from.

    Raises:
        InputError: it is damaged, of another version, lacks something, or belongs to another backbone.
    """
    content = read_checkpoint(path)
    if missing := [part for part in _PARTS if part not in content]:
        raise InputError(f"the checkpoint {path} lacks {missing[0]}: it isn't whole, or not this project's.")
    about = content["rankwise"]
    if (theirs := about.get("format", CHECKPOINT_FORMAT)) != CHECKPOINT_FORMAT:
        raise InputError(
            f"the checkpoint {path} has format {theirs!r}; allowed: {CHECKPOINT_FORMAT}. Go on with the version of "
            "this project that wrote it, or start a new run with --run_name."
        )
    if backbone is not None and about["backbone"] != backbone:
        raise InputError(
            f"the checkpoint {path} belongs to backbone {about['backbone']!r}, this run has {backbone!r}; allowed: the "
            "same. Set --model.backbone, or start a new run with --run_name."
        )
    return content


def _newest(paths: list[Path], backbone: str | None, error: InputError) -> tuple[Path, dict[str, Any]]:
    newest: tuple[Path, dict[str, Any]] | None = None
    for path in paths:
        try:
            content = read_resumable(path, backbone)
        except InputError:
            continue
        if newest is None or content["global_step"] > newest[1]["global_step"]:
            newest = path, content
    if newest is None:
        raise InputError(f"{error} No other checkpoint of the run is whole and its own: begin anew with --overwrite.")
    return newest


def _check_best(folder: RunFolder, resumed: Path) -> None:
    """Refuses a damaged best.ckpt before training, not after it, when it is needed for the test."""
    best = folder.checkpoints / "best.ckpt"
    if best.exists() and best != resumed:
        try:
            read_checkpoint(best)
        except InputError as error:
            raise InputError(
                f"{best} is damaged, and holds the epoch that would be tested. Delete it to go on from {resumed.name} "
                "without it (the best of the epochs still to come is tested), or begin anew with --overwrite."
            ) from error


def is_requeued_job() -> bool:
    """Whether SLURM has started this job again."""
    count = os.environ.get("SLURM_RESTART_COUNT", "0")
    return count.isdigit() and int(count) > 0


def was_requeued(folder: RunFolder) -> bool:
    """Whether SLURM has started this job again, and the run has a checkpoint to go on from."""
    return is_requeued_job() and (folder.checkpoints / "last.ckpt").exists()
