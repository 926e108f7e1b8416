"""One trial, in this process: begun, resumed or retried, and its failure recorded."""

import contextlib
import gc
import traceback
from enum import StrEnum
from pathlib import Path

from common.errors import DivergedRunError, InputError, PausedRunError
from experiments.sweep.deletion import begin_anew
from experiments.sweep.folder import FAILURE, LOG, PAUSED, State, SweepFolder
from experiments.sweep.grid import Trial
from experiments.sweep.trial_config import trial_arguments

_LOST = (
    "it was begun, but no last.ckpt is left to go on from. Nothing was deleted: put a copy back (of results.json, if "
    "it had finished), or move or delete the trial's folder to run it again."
)
_KEPT = " Nothing was deleted: to begin this trial anew, move or delete its folder."


class Outcome(StrEnum):
    """How an attempt at a trial ended."""

    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"  # by a signal: the sweep stops, too
    ELSEWHERE = "elsewhere"  # another process is running it
    PAUSED = "paused"  # at the epoch it was asked to


def run_trial(folder: SweepFolder, trial: Trial) -> Outcome:
    """Runs a trial from where it stands to its end; what it prints goes to log.txt in its folder."""
    with folder.trial_lock(trial) as mine:
        if not mine:
            return Outcome.ELSEWHERE
        if folder.state(trial) is State.FINISHED:
            return Outcome.FINISHED
        try:
            resume = _prepare(folder.trial_folder(trial))
        except InputError as error:
            folder.record_failure(trial, str(error))
            return Outcome.FAILED
        arguments = trial_arguments(folder, trial) + (["--ckpt_path", "last"] if resume else [])
        _forget_peak_memory()
        try:
            return _fit(folder, trial, arguments)
        finally:
            _free_memory()


def _prepare(run_folder: Path) -> bool:
    """Makes the folder ready, and tells whether there is a checkpoint to go on from.

    Raises:
        InputError: the trial can be neither begun nor gone on with, unless a user moves or deletes something.
    """
    if (run_folder / "checkpoints" / "last.ckpt").exists():
        return True
    # ranks.json is written when training has ended
    if (run_folder / "ranks.json").exists() or any(run_folder.glob("checkpoints/*.ckpt")):
        raise InputError(_LOST)
    begin_anew(run_folder)
    run_folder.mkdir(parents=True, exist_ok=True)
    return False


def _fit(folder: SweepFolder, trial: Trial, arguments: list[str]) -> Outcome:
    from experiments.command_line import run

    run_folder = folder.trial_folder(trial)
    with (
        (run_folder / LOG).open("a", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            if run(arguments, trial.stop_after_epoch) != 0:
                return Outcome.STOPPED
        except (KeyboardInterrupt, SystemExit):
            return Outcome.STOPPED
        except PausedRunError:
            return Outcome.PAUSED
        except DivergedRunError as error:  # its results are written, and tell a rate that is too high
            print(f"error: {error}")
        except Exception as error:
            traceback.print_exc()
            kept = _KEPT if isinstance(error, InputError) and "--ckpt_path" in arguments else ""
            folder.record_failure(trial, describe(error) + kept)
            return Outcome.FAILED
    for name in (FAILURE, PAUSED):
        (run_folder / name).unlink(missing_ok=True)
    return Outcome.FINISHED


def describe(error: Exception) -> str:
    """One line for the table; the whole traceback is in log.txt."""
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, InputError):
        return lines[0]
    if isinstance(error, MemoryError) or "out of memory" in lines[0].lower() or "can't allocate memory" in lines[0]:
        return f"out of memory: {lines[0]}"
    return f"{type(error).__name__}: {lines[0]}"


def _forget_peak_memory() -> None:
    """So that peak_memory_bytes is the trial's own, not the highest of all before it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: sets the process's peak back to its present size


def _free_memory() -> None:
    import torch

    gc.collect()  # trainer, module and callbacks point at each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
