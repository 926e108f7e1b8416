"""Drives the rank allocation of PEFT's AdaLoRA."""

from lightning.pytorch import Trainer

from callbacks.run_ends import EpochCheck, planned_steps
from callbacks.trained_module import StepCallback, TrainedModule
from common.terminal import logger


class AdaLoRAAllocation(EpochCheck, StepCallback):
    """After every optimizer step: measures the ranks' importance and cuts them to the budget of that step.

    The module brings it along; it does nothing for other methods. Logs the budget, requested and used, per epoch,
    as a number of ranks over all layers. An epoch before the target is reached uses more ranks than asked for, and
    may still be the best one: compare methods at equal budgets with the last epoch. train/loss includes the
    orthogonality penalty, train/epoch_loss doesn't.
    """

    def check(self, trainer: Trainer, pl_module: TrainedModule, batches: int) -> None:
        if pl_module.adapter is not None:
            pl_module.adapter.check_steps(planned_steps(trainer, pl_module, batches))

    def on_fit_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        if pl_module.adapter is not None and (budget := pl_module.adalora) is not None:
            steps = pl_module.training_steps()
            pl_module.adapter.check_steps(steps)
            budget.schedule(steps)

    def on_step_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        # The gradients of the step are still there: Lightning clears them just before the next backward pass.
        if (budget := pl_module.adalora) is None:
            return
        budget.allocate(trainer.global_step)
        if trainer.global_step == budget.final_step:
            ranks = budget.ranks().values()
            logger.info(
                f"AdaLoRA's ranks are final from step {trainer.global_step} on: {min(ranks)} to {max(ranks)}, "
                f"{sum(ranks):,} of {budget.target:,} budget used"
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        if (budget := pl_module.adalora) is None:
            return
        ranks, asked = budget.ranks().values(), float(budget.budget_at(trainer.global_step))
        pl_module.log_now(
            {
                "allocation/budget_requested": asked,
                "allocation/budget_used": float(sum(ranks)),
                "allocation/budget_left": asked - sum(ranks),
                "allocation/average_rank": sum(ranks) / len(ranks),
            }
        )
