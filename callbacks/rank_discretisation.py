"""Makes ranks discrete: for good in the last epochs, and for the moment in every evaluation."""

from typing import Any

from lightning.pytorch import Callback, Trainer
from torch.optim import Optimizer

from callbacks.steps import last_epochs_start
from common.errors import InputError
from common.terminal import say
from lightning_modules.adapted_module import AdaptedModule


class RankDiscretisation(Callback):
    """Hard masks at the discrete ranks, in the last epochs and whenever the model is evaluated.

    In the last epochs the allocation rests: only the adapter's matrices and the head go on training.

    Args:
        epochs_rank_discrete: how many epochs at the end train with discrete ranks.
    """

    def __init__(self, epochs_rank_discrete: int = 1) -> None:
        if epochs_rank_discrete < 0:
            raise InputError(f"epochs_rank_discrete is {epochs_rank_discrete}; allowed: 0 or more.")
        self.epochs_rank_discrete = epochs_rank_discrete

    def on_train_batch_start(self, trainer: Trainer, pl_module: AdaptedModule, batch: Any, batch_idx: int) -> None:
        allocation = pl_module.rank_allocation
        if allocation is None:
            return
        start = last_epochs_start(trainer, pl_module, self.epochs_rank_discrete)
        if trainer.global_step >= start and not allocation.is_discrete:
            allocation.discretise()
            say(f"Ranks are discrete from step {max(start, 0)} on: {describe(pl_module)}")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: AdaptedModule, optimizer: Optimizer) -> None:
        # A zero gradient would still let AdamW's momentum move the weights, and with them the ranks.
        if pl_module.rank_allocation is not None and pl_module.rank_allocation.is_discrete:
            pl_module.rank_allocation.weights.grad = None

    def on_validation_start(self, trainer: Trainer, pl_module: AdaptedModule) -> None:
        if pl_module.rank_allocation is not None:
            pl_module.rank_allocation.discretise()

    def on_validation_end(self, trainer: Trainer, pl_module: AdaptedModule) -> None:
        if pl_module.rank_allocation is None or trainer.state.fn != "fit":
            return
        # The masks go back to what the last step trained with; before the first step, its budget isn't set.
        if trainer.sanity_checking or trainer.global_step - 1 < last_epochs_start(
            trainer, pl_module, self.epochs_rank_discrete
        ):
            pl_module.rank_allocation.soften()

    def on_test_start(self, trainer: Trainer, pl_module: AdaptedModule) -> None:
        self.on_validation_start(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: AdaptedModule) -> None:
        self.on_validation_start(trainer, pl_module)


def soft_steps(trainer: Trainer, pl_module: AdaptedModule) -> int:
    """Steps of the run before ranks become discrete for good."""
    steps = pl_module.training_steps()
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RankDiscretisation):
            steps = min(steps, max(0, last_epochs_start(trainer, pl_module, callback.epochs_rank_discrete)))
    return steps


def describe(pl_module: AdaptedModule) -> str:
    """The discrete ranks of this moment in one line: range, average, budget used."""
    allocation = pl_module.rank_allocation
    assert allocation is not None
    ranks = allocation.discrete_ranks()
    used = float(allocation.area(ranks).sum())
    return (
        f"{int(ranks.min())} to {int(ranks.max())}, average {ranks.double().mean():.2f}, "
        f"{used:,.0f} of {allocation.budget:,.0f} budget used"
    )
