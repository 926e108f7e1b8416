"""Stopwatches that stop at the same moments on both sides of a pair."""

import os
import time
from collections.abc import Callable, Mapping
from statistics import median

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from benchmarks.settings import CLOCK, BenchmarkSettings
from callbacks.trained_module import Batch
from common.machine import peak_resident_bytes

# What a side says of itself: the name of a figure and its value, in the unit that `benchmarks.pairs` gives it.
Figures = dict[str, float]


def now() -> float:
    """Seconds on the clock of `BenchmarkSettings.clock`, which only rises, once the accelerator has done its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    if os.environ.get(CLOCK) != "processor":
        return time.perf_counter()
    started = os.times()
    return time.process_time() + started.children_user + started.children_system


def median_seconds(ways: Mapping[str, Callable[[], object]], times: int) -> dict[str, float]:
    """Median seconds of each way of doing something: all ways in turn each time, after one time that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(times + 1):
        for name, way in ways.items():
            started = now()
            way()
            seconds[name].append(now() - started)
    return {name: median(found[1:]) for name, found in seconds.items()}


def training_figures(seconds: float, settings: BenchmarkSettings) -> Figures:
    """The figures of a side that trains, from the seconds of its timed steps, before the process does anything else."""
    cuda = torch.cuda.is_available()
    return {
        "samples_per_second": settings.steps * settings.batch_size / seconds,
        "seconds_per_step": seconds / settings.steps,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if cuda else peak_resident_bytes(),
    }


class StepWindow:
    """Seconds of `steps` optimizer steps after `warm_up_steps` others, without what happens between epochs.

    Runs from the end of the last warm-up step to the end of the last timed step, and so holds fetching and
    collating a batch, forward, backward, optimizer, schedule and all callbacks of a step. It pauses from the end of
    an epoch to the start of the next one, which leaves out checkpoints and pictures.
    """

    def __init__(self, warm_up_steps: int, steps: int) -> None:
        self.warm_up_steps, self.steps = warm_up_steps, steps
        self.done, self.seconds = 0, 0.0
        self._since: float | None = None

    @property
    def complete(self) -> bool:
        """Whether all timed steps are done."""
        return self.done >= self.warm_up_steps + self.steps

    @property
    def timing(self) -> bool:
        """Whether the step that is under way counts."""
        return self.warm_up_steps <= self.done and not self.complete

    def step_ended(self) -> None:
        self.done += 1
        if self.done == self.warm_up_steps:
            self._since = now()
        elif self.complete:
            self.epoch_ended()

    def epoch_ended(self) -> None:
        if self._since is not None:
            self.seconds += now() - self._since
        self._since = None

    def epoch_started(self) -> None:
        if self.timing:
            self._since = now()


class StepTimer(Callback):
    """A `StepWindow` in a Lightning run. It is to be the first callback, so that the others' work is in the window.

    Args:
        warm_up_steps: steps that are not timed.
        steps: steps that are.
    """

    def __init__(self, warm_up_steps: int, steps: int) -> None:
        self.window = StepWindow(warm_up_steps, steps)
        self.rows, self.tokens = 0, 0  # in the timed steps, without padding
        self.warm_up_seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.warm_up_seconds = -now()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.window.epoch_started()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        if self.window.timing:
            self.rows += batch["real_rows"]
            self.tokens += batch["real_tokens"]
        self.window.step_ended()
        if self.window.done == self.window.warm_up_steps:
            self.warm_up_seconds += now()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.window.epoch_ended()
