"""Changes the rank budget over the epochs."""

from dataclasses import dataclass

from lightning.pytorch import Callback, Trainer

from callbacks.trained_module import Batch, TrainedModule
from common.errors import InputError
from lora.rank_allocation import RankAllocation


def budget_at(
    epochs: float, memory_start: float, memory_end: float, epochs_memory_start: float, epochs_memory_start_to_end: float
) -> float:
    """The budget after so many epochs: constant, then linear, then constant."""
    if epochs <= epochs_memory_start:
        return memory_start
    if epochs >= epochs_memory_start + epochs_memory_start_to_end:
        return memory_end
    return memory_start + (memory_end - memory_start) * (epochs - epochs_memory_start) / epochs_memory_start_to_end


@dataclass(eq=False, repr=False)
class BudgetSchedule(Callback):
    """Moves the budget linearly from memory_start to memory_end; without them it stays as the adapter has it.

    A validation sees the budget of the step it stands at: the one that the next step would train with. When ranks
    become discrete for good, the budget stays where it is: ranks no longer follow it.

    Args:
        memory_start: budget at the start, in the adapter's own unit: entries of R, or of A and B, over all layers.
        memory_end: budget at the end; give both or neither.
        epochs_memory_start: number of epochs with the first budget.
        epochs_memory_start_to_end: number of epochs over which it then changes.
    """

    memory_start: float | None = None
    memory_end: float | None = None
    epochs_memory_start: float = 0
    epochs_memory_start_to_end: float = 0

    def __post_init__(self) -> None:
        start, end = self.memory_start, self.memory_end
        if (start is None) != (end is None):
            raise InputError(f"memory_start is {start} and memory_end is {end}; allowed: both budgets, or neither.")
        epochs = (self.epochs_memory_start, self.epochs_memory_start_to_end)
        told = f"epochs_memory_start is {epochs[0]} and epochs_memory_start_to_end is {epochs[1]}"
        if min(epochs) < 0:
            raise InputError(f"{told}; allowed: 0 or more.")
        if start is None and any(epochs):
            raise InputError(f"{told}, but would have no effect: memory_start and memory_end are not given.")

    def check(self, allocation: RankAllocation | None) -> None:
        """Raises `InputError` unless the allocation can change, and has a solution for both budgets."""
        if allocation is None or self.memory_start is None or self.memory_end is None:
            return
        if allocation.is_fixed:
            raise InputError(
                f"memory_start is {self.memory_start}, but model.adapter.allocation is {allocation.rule}, whose ranks "
                "stay as they are; allowed with a changing budget: softmax or bounded."
            )
        for budget in (self.memory_start, self.memory_end):
            allocation.check_budget(budget)

    def on_fit_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        self.check(pl_module.rank_allocation)

    def on_train_batch_start(self, trainer: Trainer, pl_module: TrainedModule, batch: Batch, batch_idx: int) -> None:
        self._set_budget(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        # before MergedEvaluation takes the discrete ranks, which are then those of this budget
        if trainer.state.fn == "fit" and not trainer.sanity_checking:  # before training an epoch has no length yet
            self._set_budget(trainer, pl_module)

    def _set_budget(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        if pl_module.rank_allocation is None or self.memory_start is None or self.memory_end is None:
            return
        step = min(trainer.global_step, pl_module.soft_steps())
        pl_module.rank_allocation.budget = budget_at(
            step / pl_module.steps_per_epoch(),
            self.memory_start,
            self.memory_end,
            self.epochs_memory_start,
            self.epochs_memory_start_to_end,
        )
