"""Stopwatches that stop at the same moments on both sides of a pair."""

import time

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from benchmarks.inputs import BenchmarkSettings
from callbacks.trained_module import Batch
from common.machine import peak_resident_bytes

# What a side says of itself: the name of a figure and its value, in the unit that `benchmarks.pairs` gives it.
Figures = dict[str, float]


def now() -> float:
    """Seconds on a clock that only rises, once the accelerator has done its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class StepWindow(Callback):
    """Seconds of the timed optimizer steps, all within one epoch.

    Runs from the end of the last warm-up step to the end of the last timed step, and so holds fetching and
    collating a batch, forward, backward, optimizer, schedule and all callbacks of a step. In a Lightning run it is to
    be the first callback, so that the others' work is in the window.

    Args:
        settings: of the measurement.
    """

    def __init__(self, settings: BenchmarkSettings) -> None:
        self.settings = settings
        self.done, self.tokens = 0, 0  # steps, and tokens of the timed ones without padding
        self.moments: list[float] = []  # of its beginning and its end

    @property
    def timing(self) -> bool:
        """Whether the step that is under way counts."""
        return self.settings.warm_up_steps <= self.done < self.settings.all_steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        self.tokens += batch["real_tokens"] if self.timing else 0
        self.step_ended()

    def step_ended(self) -> None:
        self.done += 1
        if self.done in (self.settings.warm_up_steps, self.settings.all_steps):
            self.moments.append(now())

    def figures(self) -> Figures:
        """The figures of a side that trains, once its steps are done and before the process does anything else."""
        began, ended = self.moments
        steps, cuda = self.settings.steps, torch.cuda.is_available()
        return {
            "samples_per_second": steps * self.settings.batch_size / (ended - began),
            "seconds_per_step": (ended - began) / steps,
            "peak_memory_bytes": torch.cuda.max_memory_allocated() if cuda else peak_resident_bytes(),
        }
