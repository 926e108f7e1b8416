"""Starts the rank allocation from where the gradient is, instead of at random."""

from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from callbacks.rank_discretisation import soft_steps
from common.errors import InputError
from common.terminal import say
from lightning_modules.adapted_module import AdaptedModule
from lora.lora_xs import AdaptiveLoRAXS


class GradientNormStart(Callback):
    """After the first steps, sets the rank-allocation weights to the log of each layer's gradient norm, standardised.

    The norms are those of R's gradients before clipping, summed over the steps in squares; weights then have mean 0
    and variance 1, as random ones do. A step whose gradients aren't finite doesn't count. A resumed run goes on with
    the sums of its checkpoint.

    Args:
        steps: how many steps to look at.

    Raises:
        InputError: steps is below 1 or beyond those that train soft masks, or the adapter isn't lora.AdaptiveLoRAXS.
    """

    def __init__(self, steps: int = 32) -> None:
        if steps < 1:
            raise InputError(f"steps is {steps}; allowed: 1 or more.")
        self.steps = steps
        self._squares: Tensor | None = None  # (N,)

    def on_fit_start(self, trainer: Trainer, pl_module: AdaptedModule) -> None:
        if not isinstance(pl_module.adapter, AdaptiveLoRAXS):
            raise InputError(
                f"GradientNormStart is given with the adapter {type(pl_module.adapter).__name__}; allowed: "
                "lora.AdaptiveLoRAXS, whose R it looks at. Take it out of trainer.callbacks, or change the adapter."
            )

    def on_train_start(self, trainer: Trainer, pl_module: AdaptedModule) -> None:
        soft = soft_steps(trainer, pl_module)
        if self.steps > soft:
            raise InputError(
                f"GradientNormStart's steps is {self.steps}, but only {soft} steps train soft masks; allowed: up "
                "to that, or the allocation would never start. Lower steps or "
                "rank_discretisation.epochs_rank_discrete, or train for more epochs."
            )

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: AdaptedModule, optimizer: Any) -> None:
        adapter = pl_module.adapter
        if trainer.global_step >= self.steps or not isinstance(adapter, AdaptiveLoRAXS) or adapter.R.grad is None:
            return
        squares = adapter.R.grad.float().square().sum(dim=(1, 2))  # (N,)
        squares = torch.where(torch.isfinite(squares).all(), squares, torch.zeros_like(squares))
        self._squares = squares if self._squares is None else self._squares.to(squares) + squares
        if trainer.global_step + 1 < self.steps:
            return
        norms = self._squares.sqrt().clamp_min(torch.finfo(squares.dtype).tiny).log()
        spread = norms.std(correction=min(1, len(norms) - 1))  # of a single layer: 0
        adapter.allocation.weights.copy_((norms - norms.mean()) / spread.clamp_min(1e-6))
        adapter.allocation.weights.grad = torch.zeros_like(adapter.allocation.weights)  # of where they were
        say(f"rank allocation started from the gradient norms of {self.steps} steps")

    def state_dict(self) -> dict[str, Any]:
        return {"squares": self._squares}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._squares = state_dict["squares"]
