"""How long it takes until something happens."""

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from benchmarks.settings import BenchmarkSettings
from benchmarks.timing import Figures, median_seconds
from callbacks.trained_module import Batch

ROOT = Path(__file__).resolve().parents[1]
HELP_CALLS = 5


class FirstStep(Callback):
    """Prints when the first optimizer step was done, as seconds since 1970, and ends the process."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        print(time.time(), flush=True)
        os._exit(0)


def first_step(settings: BenchmarkSettings) -> Figures:
    """Seconds from the start of `fit` to the end of its first step, with empty caches and with warm ones."""
    with tempfile.TemporaryDirectory() as folder:
        if settings.repetition == 0:  # not counted: brings libraries and weights into the system's own file cache
            _start_seconds(settings, Path(folder) / "not_counted")
        cold = _start_seconds(settings, Path(folder) / "cache")
        warm = _start_seconds(settings, Path(folder) / "cache")
    return {"cold": cold, "warm": warm}


def _start_seconds(settings: BenchmarkSettings, cache: Path) -> float:
    with tempfile.TemporaryDirectory() as runs:
        arguments = ["cli.py", "fit", "--config", "quickstart.yaml", "--runs_dir", runs]
        arguments += ["--model.backbone", settings.model, "--trainer.callbacks+=benchmarks.start_up.FirstStep"]
        started = time.time()
        printed = _run_python(arguments, {"RANKWISE_CACHE": str(cache)})
    return float(printed.split()[-1]) - started


def command_help(settings: BenchmarkSettings) -> Figures:
    """Seconds of `cli.py --help`, and of a Python that does nothing."""
    calls = {"help": ["cli.py", "--help"], "nothing": ["-c", "pass"]}
    return median_seconds({name: partial(_run_python, call, {}) for name, call in calls.items()}, HELP_CALLS)


def _run_python(arguments: list[str], environment: dict[str, str]) -> str:
    """Runs Python in the project's folder and returns its standard output.

    Raises:
        RuntimeError: it failed; the message holds the end of what it printed.
    """
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{last}")
    return done.stdout
