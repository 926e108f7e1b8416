"""How trials are carried out: one after another in this process, or several at once in worker processes."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import chain
from pathlib import Path

import torch

from common.machine import GPU_SHARE, usable_cores
from common.terminal import logger
from experiments.sweep.folder import State, SweepFolder
from experiments.sweep.grid import Trial
from experiments.sweep.progress import Progress
from experiments.sweep.trial_run import run_trial

# Runs one round of trials after another, and returns whether all were carried out, failed ones included. The next round
# is asked for when the one before has ended.
Engine = Callable[[SweepFolder, Iterable[list[Trial]], Progress], bool]
_ROOT = Path(__file__).resolve().parents[2]


def run_here(folder: SweepFolder, rounds: Iterable[list[Trial]], progress: Progress) -> bool:
    """Trials one after another in this process."""
    for trial in chain.from_iterable(rounds):
        progress.started(trial)
        outcome = run_trial(folder, trial)
        progress.ended(trial, outcome)
        if outcome is State.STOPPED:
            return False
    return True


class WorkerProcesses:
    """Trials in N worker processes of this machine; a worker that dies costs its trial one attempt, no more.

    Cores are shared evenly; with several GPUs, worker k gets GPU k modulo their number, and its share of that GPU's
    memory.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._workers: dict[int, subprocess.Popen[str]] = {}
        self._free: queue.LifoQueue[int] = queue.LifoQueue()  # places; the last one used has a worker already
        for place in reversed(range(jobs)):
            self._free.put(place)
        self._stopping = False
        self._turn = threading.Lock()

    def __call__(self, folder: SweepFolder, rounds: Iterable[list[Trial]], progress: Progress) -> bool:
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with ThreadPoolExecutor(self.jobs) as pool:  # a worker ends with the thread that started it
                for todo in rounds:
                    ends = [pool.submit(self._carry_out, trial, folder, progress) for trial in todo]
                    wait(ends)
                    for end in ends:
                        end.result()  # raises what ended its thread
                    if self._stopping:
                        break
        finally:
            for place in range(self.jobs):
                self._retire(place)
            for number, handler in before.items():
                signal.signal(number, handler)
        return not self._stopping

    def _stop(self, number: int, frame: object) -> None:
        """Each worker writes its trial's last.ckpt and ends; a second signal doesn't wait for that."""
        again, self._stopping = self._stopping, True
        logger.info("\nStopping at once." if again else "\nStopping after this step. A second signal stops at once.")
        for worker in list(self._workers.values()):
            worker.kill() if again else worker.terminate()

    def _carry_out(self, trial: Trial, folder: SweepFolder, progress: Progress) -> None:
        if self._stopping:
            return
        place = self._free.get()
        try:
            with self._turn:
                progress.started(trial)
            outcome = self._ask(place, folder, trial)
            if outcome is State.FAILED:
                self._retire(place)  # an error on a GPU can stay with its process, and fail all that follows
            with self._turn:
                progress.ended(trial, outcome)
        except Exception:  # not a trial's own (a full disk, say): it would meet the other trials, too
            self._stopping = True
            for worker in list(self._workers.values()):
                worker.terminate()
            raise
        finally:
            self._free.put(place)

    def _retire(self, place: int) -> None:
        worker = self._workers.pop(place, None)
        if worker is not None:
            worker.communicate()  # end of input: the worker ends

    def _ask(self, place: int, folder: SweepFolder, trial: Trial) -> State:
        worker = self._workers.get(place)
        if worker is None or worker.poll() is not None:
            worker = self._workers[place] = start_worker(place, self.jobs)
        if self._stopping:  # the signal came before this worker was there to be told
            return State.STOPPED
        assert worker.stdin is not None and worker.stdout is not None
        with suppress(OSError):  # died between two trials: the answer is the end of its output
            worker.stdin.write(json.dumps([str(folder.path), vars(trial)]) + "\n")
            worker.stdin.flush()
        answer = worker.stdout.readline().strip()
        if answer:
            return State(answer)
        code = worker.wait()
        if self._stopping:
            return State.STOPPED
        reason = f"killed by signal {-code} (out of memory?)" if code < 0 else f"ended with exit code {code}"
        folder.record_failure(trial, f"its process was {reason}")
        return State.FAILED


def start_worker(place: int, jobs: int) -> "subprocess.Popen[str]":
    """A process that runs `experiments.sweep.trial_run` with its share of the machine."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])}
    environment.setdefault("OMP_NUM_THREADS", str(max(usable_cores() // jobs, 1)))
    if gpus := _visible_gpus():
        environment["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]
        environment[GPU_SHARE] = str(1 / len(range(place % len(gpus), jobs, len(gpus))))
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.sweep.trial_run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # Ctrl-C goes to the sweep alone, which tells its workers
    )


def _visible_gpus() -> list[str]:
    count = torch.cuda.device_count()  # asks the driver's management library: this process takes no GPU memory
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible and count else [str(number) for number in range(count)]
