"""A nested adapter evaluated at every rank in each validation, not only once training has ended."""

from itertools import islice
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import Tensor

from callbacks.trained_module import TrainedModule
from lora.nested import NestedRanks


class EveryRankEvaluation(Callback):
    """Evaluates a nested adapter at each of its `evaluated_ranks` in every validation of a fit.

    The figures are logged as val/METRIC/rank_K, and results.json has them among its validations: each rank has a best
    epoch of its own, as in the adaptive-rank study's rank masking. An epoch costs one validation more for each rank.
    The figures without a rank, which choose the best checkpoint, are those of rank_max.
    """

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        adapter = pl_module.adapter
        if not isinstance(adapter, NestedRanks) or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        for rank in adapter.evaluated_ranks:
            adapter.use_rank(rank)
            pl_module.use_discrete_ranks()  # hands the cut adapter over
            for name, value in _figures(trainer, pl_module).items():
                pl_module.log(f"{name}/rank_{rank}", value)
        adapter.use_rank(adapter.rank_max)  # the validation itself begins after this callback


def _figures(trainer: Any, pl_module: TrainedModule) -> dict[str, Tensor]:
    """Figures of all validation splits by their tags, such as val/accuracy, with the adapter as it is."""
    loaders = zip(trainer.val_dataloaders, trainer.num_val_batches, strict=True)
    for index, (loader, batches) in enumerate(loaders):
        for number, batch in enumerate(islice(loader, batches)):
            batch = trainer.strategy.batch_to_device(batch, dataloader_idx=index)
            trainer.strategy.validation_step(batch, number, index)
    splits = pl_module.data.validation_names
    return {f"{split}/{name}": value for split in splits for name, value in pl_module.split_figures(split).items()}
