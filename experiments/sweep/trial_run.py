"""One trial, in this process: begun, resumed or retried, and its failure recorded.

As a program it is a worker process of `sweep --jobs N`.
"""

import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import torch

from common.errors import DivergedRunError, IncompleteRunError, InputError, PausedRunError
from common.machine import keep_freed_memory, keep_to_gpu_share
from common.terminal import quiet_libraries
from experiments.command_line import run
from experiments.sweep.deletion import begin_anew
from experiments.sweep.folder import FAILURE, LOG, PAUSED, State, SweepFolder
from experiments.sweep.grid import Trial
from experiments.sweep.trial_config import trial_arguments

_LOST = (
    "it was begun, but no last.ckpt is left to go on from. Nothing was deleted: put a copy back (of results.json, if "
    "it had finished), or move or delete the trial's folder to run it again."
)
_KEPT = " Nothing was deleted: to begin this trial anew, move or delete its folder."


def run_trial(folder: SweepFolder, trial: Trial) -> State:
    """Runs a trial from where it stands to its end; what it prints goes to log.txt in its folder."""
    with folder.trial_lock(trial) as mine:
        if not mine:
            return State.ELSEWHERE
        if folder.state(trial) is State.FINISHED:
            return State.FINISHED
        try:
            resume = _prepare(folder.trial_folder(trial))
        except InputError as error:
            folder.record_failure(trial, str(error))
            return State.FAILED
        arguments = trial_arguments(folder, trial) + (["--ckpt_path", "last"] if resume else [])
        _forget_peak_memory()
        try:
            return _fit(folder, trial, arguments)
        finally:
            gc.collect()  # trainer, module and callbacks point at each other
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _prepare(run_folder: Path) -> bool:
    """Makes the folder ready, and tells whether there is a checkpoint to go on from; refused where a user must act."""
    if (run_folder / "checkpoints" / "last.ckpt").exists():
        return True
    # ranks.json is written when training has ended
    if (run_folder / "ranks.json").exists() or any(run_folder.glob("checkpoints/*.ckpt")):
        raise InputError(_LOST)
    begin_anew(run_folder)
    run_folder.mkdir(parents=True, exist_ok=True)
    return False


def _fit(folder: SweepFolder, trial: Trial, arguments: list[str]) -> State:
    run_folder = folder.trial_folder(trial)
    with (
        (run_folder / LOG).open("a", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            if run(arguments, trial.stop_after_epoch) != 0:
                return State.STOPPED
        except (KeyboardInterrupt, SystemExit):
            return State.STOPPED
        except PausedRunError:
            return State.PAUSED
        except DivergedRunError as error:  # its results are written, and tell a rate that is too high
            print(f"error: {error}")
        except Exception as error:
            traceback.print_exc()
            kept = _KEPT if isinstance(error, InputError) and "--ckpt_path" in arguments else ""
            folder.record_failure(trial, describe(error) + kept)
            return State.FAILED
    for name in (FAILURE, PAUSED):
        (run_folder / name).unlink(missing_ok=True)
    return State.FINISHED


def describe(error: Exception) -> str:
    """One line for the table; the whole traceback is in log.txt."""
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, InputError | IncompleteRunError):
        return lines[0]
    return f"{type(error).__name__}: {lines[0]}"


def _forget_peak_memory() -> None:
    """So that peak_memory_bytes is the trial's own, not the highest of all before it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: sets the process's peak back to its present size


def answer_lines() -> None:
    """Takes trials as lines until the input ends, and answers with how each ended."""
    with contextlib.suppress(OSError, AttributeError):  # so that no worker goes on unseen when the sweep is gone:
        ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))  # Linux' PR_SET_PDEATHSIG
    quiet_libraries()
    keep_freed_memory()
    keep_to_gpu_share()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    for line in sys.stdin:
        folder, settings = json.loads(line)
        settings["configs"] = tuple(settings["configs"])
        print(str(run_trial(SweepFolder(Path(folder)), Trial(**settings))), file=answers)


if __name__ == "__main__":
    answer_lines()
