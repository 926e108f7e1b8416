"""How an adapted module is evaluated: at its discrete ranks, and with merged weights where that is exact."""

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from callbacks.trained_module import TrainedModule


class MergedEvaluation(Callback):
    """Merges the adapter, at its discrete ranks, into the frozen weights for each evaluation, and removes it again.

    Training then goes on with the masks it had, soft or hard. The module brings this callback along.
    """

    def __init__(self) -> None:
        self._was_discrete = False

    # not earlier: other callbacks may change the weights when an evaluation starts
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        if pl_module.adapter is None:
            return
        allocation = pl_module.rank_allocation
        self._was_discrete = allocation is not None and allocation.is_discrete
        pl_module.use_discrete_ranks()
        # in 16 bits W + ΔW would lose most of ΔW; a sharded W can't be added to
        if isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy) and trainer.precision == "32-true":
            pl_module.adapter.merge()

    def on_validation_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        if pl_module.adapter is None:
            return
        pl_module.adapter.unmerge()
        if pl_module.rank_allocation is not None and not self._was_discrete:
            pl_module.rank_allocation.soften()

    on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start  # type: ignore[assignment]
    on_test_end = on_predict_end = on_validation_end  # type: ignore[assignment]
