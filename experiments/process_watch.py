"""Several processes on one machine end together: none waits for one that is gone, none ignores a signal for ever.

A process that waits in a collective runs no Python code, so neither an exception nor a signal handler can end it: a
thread has to.
"""

import os
import signal
import subprocess
import sys
import threading
import time

from lightning.pytorch import Trainer

_POLL_SECONDS = 0.25
# A run that was told to stop gets this long for its step and last.ckpt, and this long once it was told again.
STOP_SECONDS, IMPATIENT_STOP_SECONDS = 120.0, 5.0
# torchrun and terminals may pass the same wish on twice.
_SAME_WISH_SECONDS = 2.0
# A process leaves the word to the first one, or to whoever saw another one go, for this long.
COURTESY_SECONDS = 3.0
GO_ON = "Go on from the newest checkpoint with --ckpt_path last."


class ProcessWatch(threading.Thread):
    """Ends this process, and those it started, when one of them or the launcher is gone, or a stop takes too long.

    Args:
        trainer: knows whether all processes agreed to stop.
        children: processes this one started, ranks 1, 2 … of its machine.
        launcher: process id of what started this process, if it must not outlive it.
    """

    def __init__(self, trainer: Trainer, children: list[subprocess.Popen], launcher: int | None) -> None:
        super().__init__(daemon=True, name="process-watch")
        self.trainer, self.children, self.launcher = trainer, children, launcher
        self._deadline, self._told_at = float("inf"), -float("inf")
        self._signals, self._writer = os.pipe()
        for end in (self._signals, self._writer):
            os.set_blocking(end, False)

    def start(self) -> None:
        super().start()
        # Signals arrive here although the main thread may sit in a collective and run no handler.
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def run(self) -> None:
        while True:
            time.sleep(_POLL_SECONDS)
            self._look_at_signals()
            if time.monotonic() > self._deadline:
                self._end("told to stop, but a step, a checkpoint or another process didn't come to an end in time.")
            if self.launcher is not None and os.getppid() != self.launcher:
                self._end("the process that started this one is gone.")
            self.report_lost_child()

    def report_lost_child(self) -> None:
        """Ends everything if a child failed; its exit code 2, the input's fault, is passed on."""
        for number, child in enumerate(self.children, start=1):
            code = child.poll()
            if not code or (code == 1 and self.trainer.received_sigterm):  # an agreed stop ends with 1, too
                continue
            self._end(f"process {number} of {len(self.children) + 1} {_ending(code)}.", 2 if code == 2 else 1)

    def _look_at_signals(self) -> None:
        try:
            received = os.read(self._signals, 64)
        except BlockingIOError:
            return
        if not {signal.SIGTERM, signal.SIGINT} & set(received):
            return
        now = time.monotonic()
        if self._deadline == float("inf"):
            self._deadline = now + STOP_SECONDS
        elif now - self._told_at > _SAME_WISH_SECONDS:
            self._deadline = min(self._deadline, now + IMPATIENT_STOP_SECONDS)
        self._told_at = now

    def _end(self, why: str, code: int = 1) -> None:
        for child in self.children:
            if child.poll() is None:
                child.kill()  # SIGTERM would not reach it in a collective
        others = " All processes of the run end here." if self.children else ""
        advice = f" {GO_ON}" if code != 2 and self.trainer.training else ""
        print(f"error: process {self.trainer.global_rank}: {why}{others}{advice}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(code)


def _ending(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}: its own message stands above"
    name = signal.Signals(-code).name
    memory = "; the system does this when memory runs out" if -code == signal.SIGKILL else ""
    return f"was ended by {name}{memory}"
