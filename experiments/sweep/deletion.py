"""What a sweep deletes: files that it, its trials or its report wrote; nothing else, and nothing behind a link."""

from pathlib import Path

from common.errors import InputError
from experiments.own_files import OF_A_REPORT, OF_A_RUN, delete, own_files
from experiments.run_folder import RunFolder
from experiments.sweep.folder import FAILURE, LOCKS, LOG, PAUSED, State, SweepFolder
from experiments.sweep.grid import Trial

KEPT = ("all", "best", "none")  # what finished trials keep of their checkpoints
_OF_A_TRIAL = (*OF_A_RUN, LOG, FAILURE)
OF_A_SWEEP = ("sweep.yaml", "results.json", *OF_A_REPORT, f"{LOCKS}/*", f"{LOCKS}/.*")


def begin_anew(run_folder: Path) -> None:
    """Deletes what a trial left that was stopped before its first checkpoint, but its log and count of attempts."""
    files = own_files(run_folder, _OF_A_TRIAL, "Move it, and run the sweep again.")
    delete(run_folder, [path for path in files if path.name not in (LOG, FAILURE)])


def sweep_files(folder: SweepFolder) -> list[Path]:
    """The files of a sweep with all its trials and its report; refused if the folder is a link or holds others, too."""
    there = [path for path in folder.path.glob("*") if path.name != LOCKS]
    trials = [path.name for path in there if any((path / name).exists() for name in (LOG, FAILURE, PAUSED))]
    if there and not trials and not (folder.path / "sweep.yaml").exists():
        raise InputError(f"{folder.path} holds no sweep, so --overwrite won't delete it. Choose another --run_name.")
    patterns = (*OF_A_SWEEP, *(f"{trial}/{pattern}" for trial in trials for pattern in _OF_A_TRIAL))
    files = own_files(folder.path, patterns, "Move it, or choose another --run_name.")
    return [path for path in files if path.parent.name != LOCKS]  # one of them is ours


def clear(folder: SweepFolder) -> None:
    """Deletes a sweep with all its trials (`sweep_files`), unless somebody runs one of them by hand."""
    files = sweep_files(folder)
    for path in folder.path.glob("*/config.yaml"):
        with RunFolder(path.parent).held():  # refused where a process is at work
            pass
    delete(folder.path, files)


def drop_checkpoints(folder: SweepFolder, trials: list[Trial], kept: str) -> None:
    """Deletes what finished trials needn't keep, for many full ones fill a disk; begun and failed ones need theirs.

    Trials that another process holds are left alone. Of `KEPT`, `best` keeps best.ckpt, or last.ckpt where no
    validation chose a best one.
    """
    for trial in trials if kept != "all" else []:
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
