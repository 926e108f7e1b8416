"""How long it takes until something happens."""

import os
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.pair import Sides
from benchmarks.processes import last_json_line, run_python, wall_seconds
from benchmarks.settings import Settings

HELP_CALLS = 5


def second_start(settings: Settings, repetition: int) -> Sides:
    """Seconds to the first step with warm and with empty caches."""
    with tempfile.TemporaryDirectory() as folder:
        if repetition == 0:  # not counted: brings libraries and weights into the system's own file cache
            _start_seconds(settings, Path(folder) / "not_counted")
        cold = _start_seconds(settings, Path(folder) / "cache")
        warm = _start_seconds(settings, Path(folder) / "cache")
    return warm, cold


def _start_seconds(settings: Settings, cache: Path) -> float:
    with tempfile.TemporaryDirectory() as runs:
        arguments = ["cli.py", "fit", "--config", "quickstart.yaml", "--runs_dir", runs]
        arguments += ["--model.backbone", settings.model, "--trainer.callbacks+=benchmarks.timing.FirstStep"]
        started = time.time()
        printed = run_python(arguments, {**settings.environment(), "RANKWISE_CACHE": str(cache)})
    return last_json_line(printed)["first_step_done"] - started


def help_seconds(settings: Settings, repetition: int) -> Sides:
    """Seconds of `cli.py --help`, and of a Python that does nothing."""

    def seconds(arguments: list[str]) -> float:
        return median(wall_seconds(arguments, dict(os.environ)) for _ in range(HELP_CALLS))

    return seconds(["cli.py", "--help"]), seconds(["-c", "pass"])
