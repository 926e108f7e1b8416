"""One trial, in this process: begun, resumed or retried, and its failure recorded."""

import contextlib
import gc
import shutil
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import write_json
from experiments.results_file import read_results
from experiments.resumption import checkpoint_to_resume
from experiments.run_folder import RunFolder
from experiments.sweep.folder import State, SweepFolder
from experiments.sweep.grid import Trial
from experiments.sweep.trial_config import trial_arguments

LOG = "log.txt"
FAILURE = "failure.json"
_LOST_RESULTS = (
    "it has finished, but its results.json is gone, and no whole last.ckpt is left to make it from. Put a copy back, "
    "or move or delete the trial's folder to run it again."
)


class Outcome(StrEnum):
    """How an attempt at a trial ended."""

    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"  # by a signal: the sweep stops, too
    ELSEWHERE = "elsewhere"  # another process is running it


def run_trial(folder: SweepFolder, trial: Trial) -> Outcome:
    """Runs a trial from where it stands to its end; what it prints goes to log.txt in its folder."""
    with folder.trial_lock(trial) as mine:
        if not mine:
            return Outcome.ELSEWHERE
        if folder.state(trial) is State.FINISHED:
            return Outcome.FINISHED
        run_folder = folder.trial_folder(trial)
        failures = _failures(run_folder)
        resume = _can_resume(run_folder)
        if not resume and (run_folder / "ranks.json").exists():  # written when training has ended
            record_failure(run_folder, _LOST_RESULTS, failures + 1)
            return Outcome.FAILED
        if not resume and run_folder.exists():  # what was begun before the first checkpoint can't be gone on with
            shutil.rmtree(run_folder)
        run_folder.mkdir(parents=True, exist_ok=True)
        arguments = trial_arguments(folder, trial) + (["--ckpt_path", "last"] if resume else [])
        _forget_peak_memory()
        try:
            return _fit(arguments, run_folder, failures)
        finally:
            _free_memory()


def _fit(arguments: list[str], run_folder: Path, failures: int) -> Outcome:
    from experiments.command_line import run

    with (
        (run_folder / LOG).open("a", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            if run(arguments) != 0:
                return Outcome.STOPPED
        except (KeyboardInterrupt, SystemExit):
            return Outcome.STOPPED
        except Exception as error:
            traceback.print_exc()
            record_failure(run_folder, describe(error), failures + 1)
            return Outcome.FAILED
    (run_folder / FAILURE).unlink(missing_ok=True)
    return Outcome.FINISHED


def record_failure(run_folder: Path, error: str, attempts: int | None = None) -> None:
    """Writes failure.json: the reason, and how often the trial was tried."""
    attempts = _failures(run_folder) + 1 if attempts is None else attempts
    run_folder.mkdir(parents=True, exist_ok=True)
    write_json(run_folder / FAILURE, {"error": error, "attempts": attempts, "log": LOG})


def describe(error: Exception) -> str:
    """One line for the table; the whole traceback is in log.txt."""
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, InputError):
        return lines[0]
    if isinstance(error, MemoryError) or "out of memory" in lines[0].lower() or "can't allocate memory" in lines[0]:
        return f"out of memory: {lines[0]}"
    return f"{type(error).__name__}: {lines[0]}"


def _failures(run_folder: Path) -> int:
    path = run_folder / FAILURE
    return int(read_results(path)["attempts"]) if path.exists() else 0


def _can_resume(run_folder: Path) -> bool:
    """Whether there is a whole checkpoint to go on from; damaged ones are no better than none."""
    if not (run_folder / "config.yaml").exists():
        return False
    try:
        checkpoint_to_resume(RunFolder(run_folder), "last")
    except InputError:
        return False
    return True


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


def shown_results(folder: SweepFolder, trial: Trial) -> dict[str, Any] | None:
    """The trial's results.json, if it has one."""
    path = folder.trial_folder(trial) / "results.json"
    return read_results(path) if path.exists() else None
