"""What has happened in a run so far, in one place: callbacks write it here instead of asking each other."""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

_KEY = "training_record"
_KEPT = (
    "train_losses", "collapsed", "collapsed_epochs", "skipped_updates", "rank_history", "initial_norms", "final_norms",
    "factors",
)  # fmt: skip


@dataclass
class TrainingRecord:
    """The record of one fit, reached as `pl_module.record`; checkpoints hold it."""

    train_losses: list[float] = field(default_factory=list)  # mean loss of each epoch
    collapsed: bool = False  # whether the last validation got the same answer for every row
    collapsed_epochs: list[int] = field(default_factory=list)  # the epochs after which it did
    skipped_updates: int = 0  # updates left out because their loss or gradients weren't finite
    # {"epoch", "step", "alpha", "budget", "ranks"} before the first step and after each epoch; the ranks are those in
    # use: continuous at first, discrete in the last epochs
    rank_history: list[dict[str, Any]] = field(default_factory=list)
    # `lora.update_norm.AdapterNorms` as a dictionary, before the first step
    initial_norms: dict[str, Any] | None = None
    final_norms: dict[str, Any] | None = None  # the same after the last epoch so far
    # {"rule", "rows", "seconds"} of a gradient pass before training, if there was one
    factors: dict[str, Any] | None = None
    # the step, as in metrics.csv, whose update was the first not to be made; not in checkpoints, which are all from
    # before
    diverged_at: int | None = None
    # whether no update is made any more: a bool tensor on the device, so that training needn't wait
    has_diverged: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.bool))
    step_loss: Tensor | float = 0.0  # this process's share of the last step's loss, a tensor on the device

    @property
    def update_norms(self) -> dict[str, object] | None:
        """Norms before and after training for results.json; None if nothing has measured them."""
        return None if self.final_norms is None else {"initial": self.initial_norms, "final": self.final_norms}

    def save(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[_KEY] = {name: deepcopy(getattr(self, name)) for name in _KEPT}

    @classmethod
    def of(cls, checkpoint: dict[str, Any]) -> "TrainingRecord":
        return cls(**deepcopy(checkpoint[_KEY]))
