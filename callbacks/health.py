"""Says so when a model collapses to one answer, or when an allocation that should move does not."""

import torch
from lightning.pytorch import Callback, Trainer

from callbacks.trained_module import TrainedModule
from common.terminal import logger


class CollapseDetection(Callback):
    """Warns after a validation in which the model gave every row the same answer, and records it."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        if trainer.sanity_checking:
            return
        record, epoch = pl_module.record, trainer.current_epoch
        answer = pl_module.constant_answer(pl_module.data.validation_names[0])
        record.collapsed = answer is not None
        # Of several validations within an epoch the last one counts.
        record.collapsed_epochs = [known for known in record.collapsed_epochs if known != epoch]
        if answer is None:
            return
        record.collapsed_epochs.append(epoch)
        logger.warning(
            f"Collapsed: after epoch {epoch + 1} the model answers {answer} for every validation row. "
            "A lower learning rate, a longer warm-up, a larger rank or a stronger backbone may help."
        )


class AllocationMovement(Callback):
    """Warns after training if the rank-allocation weights, or the ranks they imply, did not move."""

    def __init__(self) -> None:
        self._start: torch.Tensor | None = None
        self._start_ranks: torch.Tensor | None = None

    def state_dict(self) -> dict[str, torch.Tensor | None]:
        return {"start": self._start, "start_ranks": self._start_ranks}

    def load_state_dict(self, state_dict: dict[str, torch.Tensor | None]) -> None:
        self._start, self._start_ranks = state_dict["start"], state_dict["start_ranks"]

    def on_train_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        allocation = pl_module.rank_allocation
        if allocation is not None and not allocation.is_fixed and self._start is None:
            self._start = allocation.weights.detach().cpu().clone()
            self._start_ranks = allocation.discrete_ranks()

    def on_train_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        allocation = pl_module.rank_allocation
        if allocation is None or self._start is None or self._start_ranks is None:
            return
        if float((allocation.weights.detach().cpu() - self._start).abs().max()) < 1e-6:
            logger.warning(
                "The rank-allocation weights have not moved: these ranks are the initial ones, not learned. Check "
                "model.optimizer.allocation_learning_rate and that some epochs train with soft masks "
                "(rank_discretisation.epochs_rank_discrete below trainer.max_epochs)."
            )
        elif bool((allocation.discrete_ranks() == self._start_ranks).all()):
            logger.warning(
                "The rank-allocation weights moved, but no layer's discrete rank changed. A higher "
                "model.optimizer.allocation_learning_rate or more steps would let ranks adapt."
            )
