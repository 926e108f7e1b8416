"""A worker process of `sweep --jobs N`: takes trials as lines, answers with how each ended."""

import contextlib
import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from common.machine import keep_freed_memory, keep_to_gpu_share
from common.terminal import quiet_libraries
from experiments.sweep.folder import SweepFolder
from experiments.sweep.grid import Trial
from experiments.sweep.trial_run import run_trial


def main() -> None:
    """Runs trials until the input ends."""
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
    main()
