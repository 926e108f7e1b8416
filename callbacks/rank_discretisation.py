"""Makes ranks discrete: for good in the last epochs, and for the moment in every evaluation."""

from lightning.pytorch import Callback, Trainer
from torch.optim import Optimizer

from callbacks.trained_module import Batch, TrainedModule
from common.errors import InputError
from common.terminal import logger


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

    def setup(self, trainer: Trainer, pl_module: TrainedModule, stage: str) -> None:
        pl_module.epochs_rank_discrete = self.epochs_rank_discrete

    def on_train_batch_start(self, trainer: Trainer, pl_module: TrainedModule, batch: Batch, batch_idx: int) -> None:
        allocation, start = pl_module.rank_allocation, pl_module.soft_steps()
        if allocation is not None and trainer.global_step >= start and not allocation.is_discrete:
            allocation.discretise()
            logger.info(f"Ranks are discrete from step {start} on: {describe_ranks(pl_module)}")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: TrainedModule, optimizer: Optimizer) -> None:
        # A zero gradient would still let AdamW's momentum move the weights, and with them the ranks.
        if pl_module.rank_allocation is not None and pl_module.rank_allocation.is_discrete:
            pl_module.rank_allocation.weights.grad = None


def describe_ranks(pl_module: TrainedModule) -> str:
    """The discrete ranks of this moment in one line: range, average, budget used."""
    allocation = pl_module.rank_allocation
    assert allocation is not None
    ranks = allocation.discrete_ranks()
    used = float(allocation.area(ranks).sum())
    return (
        f"{int(ranks.min())} to {int(ranks.max())}, average {ranks.double().mean():.2f}, "
        f"{used:,.0f} of {allocation.budget:,.0f} budget used"
    )
