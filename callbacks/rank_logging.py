"""Shows the ranks while they move: scalars at an interval, pictures per epoch, and the history for ranks.json."""

import gc

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.optim import Optimizer

from callbacks.rank_pictures import mask_pictures, rank_map
from callbacks.trained_module import StepCallback, TrainedModule
from common.errors import InputError
from lora.rank_mask import hard_tails, soft_hard_gap


class RankLogging(StepCallback):
    """Logs ranks, alpha, budget (requested and used) and the gap between soft and hard masks.

    Nothing is read from the device between two logged steps.

    Args:
        every_n_steps: how often scalars are logged.
        pictures_every_n_epochs: how often TensorBoard gets the rank map and mask pictures; 0 for never.
    """

    def __init__(self, every_n_steps: int = 50, pictures_every_n_epochs: int = 1) -> None:
        if every_n_steps < 1 or pictures_every_n_epochs < 0:
            raise InputError(
                f"every_n_steps is {every_n_steps} and pictures_every_n_epochs is {pictures_every_n_epochs}; "
                "allowed: every_n_steps from 1, pictures_every_n_epochs from 0 (never)."
            )
        self.every_n_steps, self.pictures_every_n_epochs = every_n_steps, pictures_every_n_epochs

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: TrainedModule, optimizer: Optimizer) -> None:
        # of the first step: alpha and budget are set by now, whatever the order of the callbacks
        if trainer.global_step == 0 and not pl_module.record.rank_history:
            self._remember(trainer, pl_module)
            self._draw(trainer, pl_module)

    def on_step_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        if trainer.global_step % self.every_n_steps == 0 and pl_module.rank_allocation is not None:
            pl_module.log_now(rank_metrics(pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        self._remember(trainer, pl_module)
        every = self.pictures_every_n_epochs
        if every and ((trainer.current_epoch + 1) % every == 0 or trainer.current_epoch + 1 == trainer.max_epochs):
            self._draw(trainer, pl_module)

    @torch.no_grad()
    def _remember(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        allocation = pl_module.rank_allocation
        if allocation is None:
            return
        pl_module.record.rank_history.append(
            {
                "epoch": trainer.current_epoch,
                "step": trainer.global_step,
                "alpha": allocation.alpha,
                "budget": allocation.budget,
                "ranks": [float(rank) for rank in allocation.ranks_in_use().tolist()],
            }
        )

    @torch.no_grad()
    def _draw(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        allocation, adapter = pl_module.rank_allocation, pl_module.adapter
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        wanted = loggers and trainer.is_global_zero and self.pictures_every_n_epochs
        if allocation is None or adapter is None or not wanted:
            return
        ranks = dict(zip(adapter.layer_names, allocation.ranks_in_use().tolist(), strict=True))
        title, bounds = f"ranks at step {trainer.global_step}", (allocation.rank_min, allocation.rank_max)
        picture = rank_map(ranks, *bounds, title, width=5.2)  # TensorBoard shows it 320 pixels wide
        chosen = sorted({0, len(ranks) // 3, 2 * len(ranks) // 3, len(ranks) - 1})
        shown = allocation.masks_of(allocation.noiseless_tails()[chosen])
        masks = mask_pictures(shown, [adapter.layer_names[layer] for layer in chosen])
        for logger in loggers:
            logger.experiment.add_figure("rank_map", picture, trainer.global_step)
            logger.experiment.add_figure("rank_masks", masks, trainer.global_step)
        picture.clear()
        masks.clear()
        gc.collect()  # figures hold themselves in cycles: megabytes each epoch until Python happens to look for them


@torch.no_grad()
def rank_metrics(pl_module: TrainedModule) -> dict[str, float]:
    """What there is to log of the ranks at this moment; reads from the device."""
    allocation, adapter = pl_module.rank_allocation, pl_module.adapter
    assert allocation is not None and adapter is not None
    discrete = allocation.discrete_ranks().to(allocation.weights.device)
    hard = hard_tails(discrete, allocation.rank_max)
    gap = soft_hard_gap(allocation.masks_of(allocation.noiseless_tails()), allocation.masks_of(hard))
    in_use, used = allocation.ranks_in_use().tolist(), float(allocation.area(discrete).sum())
    return {
        "allocation/alpha": allocation.alpha,
        "allocation/budget_requested": allocation.budget,
        "allocation/budget_used": used,
        "allocation/budget_left": allocation.budget - used,
        "allocation/average_rank": float(discrete.double().mean()),
        "allocation/soft_hard_gap": float(gap),
        **{f"rank/{name}": float(rank) for name, rank in zip(adapter.layer_names, in_use, strict=True)},
    }
