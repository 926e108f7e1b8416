"""SIGTERM to any one process ends all of them at the same batch."""

import time
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.trained_module import StepCallback, TrainedModule

_SECONDS = 1.0  # between two agreements, about
_MOST_BATCHES = 100


class StopTogether(StepCallback):
    """Several processes agree about every second whether one of them was told to stop; then all stop, with last.ckpt.

    The next batch after which they do is a part of what they agree on, so all come to the same one.

    Lightning 2.6 calls a collective inside its signal handler, whatever other collective is under way: processes then
    wait for each other for ever. Here the handler only takes a note. With one process Lightning's own handler stays.
    """

    def __init__(self) -> None:
        self._told = False
        self._group: Any = None
        self._since, self._batches, self._agreed_batches = time.monotonic(), 0, 1

    def setup(self, trainer: Trainer, pl_module: TrainedModule, stage: str) -> None:
        if trainer.world_size == 1:
            return
        if self._group is None:  # on the CPU: asking the others must not wait for the accelerator
            self._group = torch.distributed.new_group(backend="gloo")
        # Lightning registers these as handlers when the loops begin.
        handler = self._stop_now if trainer.predicting else self._take_note
        connector: Any = trainer._signal_connector
        connector._sigterm_notifier_fn = handler
        # SLURM's warning: Lightning would save in the handler, into a file that --ckpt_path last doesn't look for.
        connector._slurm_sigusr_handler_fn = handler
        # Its own agreement on the same thing, a collective and a wait for the accelerator at every batch.
        loop: Any = trainer.fit_loop.epoch_loop
        loop._broadcast_sigterm_tensor = lambda: None

    def on_step_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        self._agree(trainer)  # not within a step: gradients in accumulation are in no checkpoint

    def on_validation_batch_end(self, trainer: Trainer, *batch: object, **kwargs: object) -> None:
        self._agree(trainer)

    on_test_batch_end = on_validation_batch_end

    def _agree(self, trainer: Trainer) -> None:
        self._batches += 1
        if trainer.world_size == 1 or self._batches < self._agreed_batches:
            return
        seconds = (time.monotonic() - self._since) / self._batches
        agreed = torch.tensor([float(self._told), seconds])
        torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MAX, group=self._group)
        told, slowest = agreed.tolist()
        self._agreed_batches = max(1, min(_MOST_BATCHES, int(_SECONDS / max(slowest, 1e-9))))
        self._since, self._batches = time.monotonic(), 0
        # The loops look at this at their next safe place, which is the same one in all processes.
        trainer._signal_connector.received_sigterm = bool(told)

    def _take_note(self, signum: int, frame: FrameType | None) -> None:
        self._told = True

    @staticmethod
    def _stop_now(signum: int, frame: FrameType | None) -> None:
        raise SIGTERMException  # nothing is kept of an interrupted prediction
