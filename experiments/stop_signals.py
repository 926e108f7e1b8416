"""Signals that end a run early: after the current step, with last.ckpt written."""

import os
import shutil
import signal
import subprocess
from types import FrameType

from lightning.pytorch.utilities.exceptions import SIGTERMException

from common.terminal import is_first_process, logger

_WORDS = {
    signal.SIGINT: "Stopping after this step; press Ctrl-C again to stop at once.",
    signal.SIGHUP: "The terminal is gone: stopping after this step.",
    signal.SIGUSR1: "SIGUSR1: stopping after this step.",
}


class StopSignals:
    """Ctrl-C, SIGHUP and SIGUSR1, with which SLURM warns of the end of a job, stop a run as SIGTERM does.

    Lightning handles SIGTERM between two steps, while its loops run: `stop_outside_loops` is for the time before and
    between them. Its own handling of SIGUSR1, a checkpoint in the middle of things under another name, is left out.
    """

    def __init__(self) -> None:
        self.warned_by_slurm = False

    def install(self) -> None:
        """From now on, until `restore`. A second Ctrl-C stops at once."""
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGUSR1, self._stop)
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # else nohup wants the run to go on
            signal.signal(signal.SIGHUP, self._stop)

    def stop_outside_loops(self) -> None:
        """SIGTERM while factors are made or results written ends the run with words, and SLURM is asked to requeue.

        For one process only: one that waits for others in a collective runs no handler, and should die at once.
        """
        signal.signal(signal.SIGTERM, self._terminate)

    def restore(self) -> None:
        """Gives the signals back what they do by default."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        for number, handler in ((signal.SIGTERM, self._terminate), (signal.SIGHUP, self._stop)):
            if signal.getsignal(number) == handler:
                signal.signal(number, signal.SIG_DFL)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        if signal.getsignal(signal.SIGTERM) == self._terminate:  # else Lightning calls this besides its own
            raise SIGTERMException

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.warned_by_slurm |= number == signal.SIGUSR1 and "SLURM_JOB_ID" in os.environ
        logger.info(f"\n{_WORDS[signal.Signals(number)]}")
        os.kill(os.getpid(), signal.SIGTERM)

    def requeue(self) -> bool:
        """Asks SLURM to run the job again if it has warned of its end; fit then goes on from last.ckpt by itself."""
        if not (self.warned_by_slurm and is_first_process() and shutil.which("scontrol")):
            return False
        job = os.environ["SLURM_JOB_ID"]
        if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
            job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        done = subprocess.run(["scontrol", "requeue", job], check=False).returncode == 0
        logger.info(
            f"SLURM job {job} {'will run again and go on from last.ckpt' if done else 'could not be requeued'}."
        )
        return done
