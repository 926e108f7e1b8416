"""A worker process of `sweep --jobs N`: takes trials as lines, answers with how each ended."""

import contextlib
import ctypes
import json
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    """Runs trials until the input ends."""
    from common.machine import keep_freed_memory, keep_to_gpu_share
    from common.terminal import quiet_libraries
    from experiments.sweep.folder import SweepFolder
    from experiments.sweep.grid import Trial
    from experiments.sweep.trial_run import run_trial

    _end_with_the_sweep()
    quiet_libraries()
    keep_freed_memory()
    keep_to_gpu_share()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    for line in sys.stdin:
        folder, settings = json.loads(line)
        settings["configs"] = tuple(settings["configs"])
        print(str(run_trial(SweepFolder(Path(folder)), Trial(**settings))), file=answers)


def _end_with_the_sweep() -> None:
    """Asks Linux for a SIGTERM when the sweep's own process is gone, so that no worker goes on unseen."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    main()
