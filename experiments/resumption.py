"""Which checkpoint a run goes on from: the one asked for, or the newest whole one when last.ckpt is damaged."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callbacks.checkpoints import check_archive, read_checkpoint
from common.errors import InputError
from common.files import no_access
from common.terminal import logger
from experiments.run_folder import RunFolder


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read; its content is on the CPU."""

    path: Path
    content: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimizer steps that were made by then."""
        return int(self.content["global_step"])

    @property
    def metrics_rows(self) -> dict[int, int]:
        """Checksums by step of the rows that metrics.csv had by then."""
        rows = self.content.get("metrics_rows")
        return dict(rows.tolist()) if rows is not None else {}


def checkpoint_to_resume(folder: RunFolder, wanted: str) -> Checkpoint:
    """What a run goes on from: last, best or a file. For last, the newest other one that is whole does, too.

    `InputError`: there is no such file, or nothing whole to go on from.
    """
    path = folder.checkpoint(wanted)
    try:
        checkpoint = Checkpoint(path, read_checkpoint(path))
    except InputError as error:
        if wanted != "last" or no_access(path, error.__cause__):
            raise
        checkpoint = _newest_other(folder, error)
        logger.warning(f"{error}\n  Going on from the newest whole checkpoint instead, {checkpoint.path.name}.")
        return checkpoint
    best = folder.checkpoints / "best.ckpt"
    if best.exists() and best != path:
        check_best(best, path.name)
    return checkpoint


def _newest_other(folder: RunFolder, error: InputError) -> Checkpoint:
    """The newer one of previous.ckpt and best.ckpt; `error` is what is wrong with last.ckpt."""
    found: list[Checkpoint] = []
    for path in (folder.checkpoints / name for name in ("previous.ckpt", "best.ckpt")):
        with suppress(InputError):
            found.append(Checkpoint(path, read_checkpoint(path)))
    if not found:
        raise InputError(f"{error} No other checkpoint can be used: start again with --overwrite.")
    newest = max(found, key=lambda checkpoint: checkpoint.step)
    best = folder.checkpoints / "best.ckpt"
    if best.exists() and all(checkpoint.path != best for checkpoint in found):
        check_best(best, newest.path.name)
    return newest


def check_best(best: Path, resumed: str) -> None:
    """Refuses a damaged best.ckpt before training, not after it, when it is needed for the test."""
    try:
        check_archive(best)  # what it holds is read when it is tested: by then it may be another one
    except Exception as error:
        raise no_access(best, error) or InputError(
            f"{best} is damaged, and holds the epoch that would be tested. Delete it to go on from {resumed} "
            "without it (the best of the epochs still to come is tested), or start again with --overwrite."
        ) from error


def is_requeued_job() -> bool:
    """Whether SLURM has started this job again."""
    count = os.environ.get("SLURM_RESTART_COUNT", "0")
    return count.isdigit() and int(count) > 0


def was_requeued(folder: RunFolder) -> bool:
    """Whether SLURM has started this job again, and the run has a checkpoint to go on from."""
    return is_requeued_job() and (folder.checkpoints / "last.ckpt").exists()
