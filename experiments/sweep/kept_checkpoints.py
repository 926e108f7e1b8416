"""What a sweep's finished trials keep of their checkpoints: many full ones fill a disk."""

from pathlib import Path

from experiments.sweep.folder import State, SweepFolder
from experiments.sweep.grid import Trial

KEPT = ("all", "best", "none")


def drop_checkpoints(folder: SweepFolder, trials: list[Trial], kept: str) -> None:
    """Deletes what finished trials needn't keep; begun and failed ones go on from theirs.

    Args:
        folder: the sweep's folder.
        trials: its trials; those that another process holds are left alone.
        kept: `all`, `best` (best.ckpt; last.ckpt where no validation chose a best one) or `none`.
    """
    if kept == "all":
        return
    for trial in trials:
        # Only finished trials are locked: one that waits could be taken by another process just now.
        if folder.state(trial) is not State.FINISHED or not _needless(folder, trial, kept):
            continue
        with folder.trial_lock(trial) as mine:
            if mine and folder.state(trial) is State.FINISHED:
                for path in _needless(folder, trial, kept):
                    path.unlink(missing_ok=True)


def _needless(folder: SweepFolder, trial: Trial, kept: str) -> list[Path]:
    there = {path.name: path for path in (folder.trial_folder(trial) / "checkpoints").glob("*.ckpt")}
    if kept == "best":
        there.pop("best.ckpt" if "best.ckpt" in there else "last.ckpt", None)
    return list(there.values())
