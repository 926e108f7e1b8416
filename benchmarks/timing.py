"""Stopwatches that stop at the same moments on both sides of a pair."""

import json
import os
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


def now() -> float:
    """Seconds on a clock that only rises, once the accelerator has done its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


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
        return self.done >= self.warm_up_steps + self.steps

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
        if self.warm_up_steps <= self.done and not self.complete:
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

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.window.epoch_started()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        timed = self.window.done >= self.window.warm_up_steps and not self.window.complete
        if timed:
            self.rows += batch["real_rows"]
            self.tokens += batch["real_tokens"]
        self.window.step_ended()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.window.epoch_ended()


class FirstStep(Callback):
    """Prints when the first optimizer step was done, as seconds since 1970 in a line of JSON, and ends the process."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        print(json.dumps({"first_step_done": time.time()}), flush=True)
        os._exit(0)
