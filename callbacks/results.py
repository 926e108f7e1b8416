"""Collects the figures of a run while it goes on, for its results.json."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from callbacks.trained_module import Batch, TrainedModule
from common.code_version import code_version


class Results(Callback):
    """Collects figures, times and the versions of the code; a resumed run goes on with those of its checkpoint.

    Epochs are counted from 0, as in metrics.csv. Training time leaves evaluation and checkpoints out.
    """

    def __init__(self) -> None:
        self.validations: list[dict[str, float | None]] = []  # each epoch's figures by their tags, with "epoch"
        # of the test split last evaluated; None before a test
        self.test: dict[str, float | dict[str, float | None] | None] | None = None
        # every version of this project that has trained the run, in order
        self.code = [code for code in [code_version()] if code is not None]
        self.train_rows = self.train_tokens = 0  # trained on so far, over all processes
        self.training_seconds = 0.0  # up to the last pause
        self._tag_accuracies: dict[str, float | None] = {}
        self._wall_seconds = 0.0
        self._started = time.monotonic()
        self._training_since: float | None = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "validations": self.validations,
            "counts": {"rows": self.train_rows, "tokens": self.train_tokens},
            "training_seconds": self.training_seconds + self._running_seconds(),
            "wall_seconds": self.wall_seconds,
            "code": self.code,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validations = list(state_dict["validations"])
        self.train_rows, self.train_tokens = state_dict["counts"]["rows"], state_dict["counts"]["tokens"]
        self.training_seconds = state_dict["training_seconds"]
        self._wall_seconds = state_dict["wall_seconds"]
        before = state_dict["code"]
        self.code = [*before, *(code for code in self.code if code not in before[-1:])]

    @property
    def wall_seconds(self) -> float:
        """Seconds since the run began, time between an interruption and its resumption left out."""
        return self._wall_seconds + time.monotonic() - self._started

    def _running_seconds(self) -> float:
        return time.monotonic() - self._training_since if self._training_since is not None else 0.0

    def _stop_clock(self, pl_module: TrainedModule) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self.training_seconds += self._running_seconds()
        self._training_since = None

    def on_train_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        self._training_since = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        self._training_since = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: TrainedModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        self.train_rows += batch["real_rows"] * trainer.world_size
        self.train_tokens += batch["real_tokens"] * trainer.world_size

    def on_validation_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._stop_clock(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._training_since = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        self._stop_clock(pl_module)
        self.validations.append({"epoch": trainer.current_epoch, **pl_module.validation_figures()})

    def on_test_epoch_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        self._tag_accuracies = {**pl_module.tag_accuracies()}

    def on_test_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("test")}
        self.test = {name.removeprefix("test/"): value for name, value in values.items()}
        if self._tag_accuracies:
            self.test["accuracy_by_tag"] = self._tag_accuracies
