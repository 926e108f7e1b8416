"""Begins training with a look at the inputs of the adapted layers, from which PEFT's EVA takes its directions."""

import time
from collections.abc import Iterator

from lightning.pytorch import Callback, Trainer
from torch import Tensor

from callbacks.gradient_directions import FirstSteps
from callbacks.trained_module import TrainedModule
from common.errors import InputError
from common.terminal import logger

_LARGEST_NUMBER_OF_BATCHES = 500


class EVAInitialisation(Callback):
    """Gives PEFT's EVA its start on the first batches of the run's own data order, which training then begins anew.

    In evaluation mode and full precision, with as many batches as EVA takes until its directions hardly change. With
    several processes the first one's share of each batch decides for all. It does nothing for other methods, nor for a
    run that goes on from a checkpoint. The module brings this callback along. `InputError`: the directions still change
    after 500 batches.
    """

    def on_train_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        adapter = pl_module.adapter
        if adapter is None or not adapter.starts_from_inputs or trainer.global_step > 0:
            return
        started, order = time.monotonic(), FirstSteps(trainer, pl_module, 1)
        training = [part for part in pl_module.modules() if part.training]
        pl_module.eval()
        found = adapter.input_directions(_Batches(order), pl_module)
        for part in training:
            part.training = True
        adapter.take_input_directions(trainer.strategy.broadcast(found))
        rows, seconds = order.rows, time.monotonic() - started
        logger.info(f"Directions from the layers' inputs: {rows} rows in {seconds:.1f} s.")
        pl_module.record.factors = {"rule": "eva", "rows": rows, "seconds": seconds}


class _Batches:
    """As PEFT wants them: with a length, and over and over again."""

    def __init__(self, order: FirstSteps) -> None:
        self._order = order

    def __len__(self) -> int:
        return _LARGEST_NUMBER_OF_BATCHES

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for step in range(_LARGEST_NUMBER_OF_BATCHES):
            yield from (batch["inputs"] for batch in self._order.micro_batches(step))
        raise InputError(
            f"EVA's directions still change after {_LARGEST_NUMBER_OF_BATCHES} batches; allowed: settings with which "
            "they settle. Lower model.adapter.settings.r, or raise data.batch_size: a batch needs more tokens than r."
        )
