"""Begins training with a look at the task's gradient, or the layers' inputs, from which an adapter takes directions."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import Tensor

from callbacks.run_ends import EpochCheck
from callbacks.trained_module import Batch, TrainedModule
from common.errors import InputError
from common.terminal import logger
from lora.adapter import FixedRank
from lora.gradient import gradient_directions

_LARGEST_NUMBER_OF_BATCHES = 500


class GradientDirections(EpochCheck):
    """Trains the head alone for some steps, and gives the adapter the directions of the gradient (`lora.gradient`).

    Once, before the first step, on the first batches of the run's own data order, which training then begins anew. In
    evaluation mode, so that no random number is drawn; the head keeps what it has learned. A run that goes on from a
    checkpoint has its directions already. The module brings this callback along.
    """

    def check(self, trainer: Trainer, pl_module: TrainedModule, batches: int) -> None:
        """Raises `InputError` if an epoch has fewer batches than the gradient is to be taken over."""
        adapter, steps = pl_module.adapter, ceil(batches / trainer.accumulate_grad_batches)
        if getattr(trainer, "fast_dev_run", False):  # set by Lightning, but not declared
            return
        if adapter is not None and adapter.gradient_pass is not None and adapter.gradient_pass.batches > steps:
            raise InputError(
                f"gradient_batches is {adapter.gradient_pass.batches}, but an epoch has {steps} batches; allowed: 1 to "
                f"{steps}. Set --model.adapter.gradient_batches {steps}, or a smaller --data.batch_size."
            )

    def on_train_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        adapter = pl_module.adapter
        if not isinstance(adapter, FixedRank) or adapter.gradient_pass is None or not adapter.lacks_directions:
            return
        super().on_train_start(trainer, pl_module)
        started, order = time.monotonic(), FirstSteps(trainer, pl_module, adapter.gradient_pass.batches)
        head = pl_module.head_optimizer()
        warmup = adapter.gradient_pass.head_warmup_steps if head is not None else 0
        logger.info(f"Directions from the gradient: {warmup} steps of the head alone, {order.batches} batches.")
        layers = dict(zip(adapter.layer_names, adapter.adapted_layers, strict=True))
        with _frozen(pl_module):
            for step in range(warmup):
                order.backward(step)
                _update(head, _mean_over(trainer))
            measured = range(warmup, warmup + order.batches)
            found = gradient_directions(layers, adapter.rank, measured, order.backward, _mean_over(trainer))
        pl_module.zero_grad(set_to_none=True)
        adapter.take_directions(trainer.strategy.broadcast([found[name] for name in adapter.layer_names]))
        pl_module.record.factors = {
            "rule": "gradient",
            "rows": order.rows * trainer.world_size,
            "seconds": time.monotonic() - started,
        }


class FirstSteps:
    """The batches of a run's first steps, epoch after epoch, without moving the place of the loader.

    `batches` is how many the gradient is to be taken over, `rows` what this process has gone through so far.
    """

    def __init__(self, trainer: Trainer, module: TrainedModule, batches: int) -> None:
        self._module: Any = module
        self._loader: Any = trainer.train_dataloader
        self._precision: Any = trainer.precision_plugin
        self._accumulated, self._micro_batches = trainer.accumulate_grad_batches, int(trainer.num_training_batches)
        self._steps = module.steps_per_epoch()
        self.batches, self.rows = min(batches, self._steps), 0  # fewer are there in a fast_dev_run alone

    def micro_batches(self, step: int) -> list[Batch]:
        """A step's batches as the loader makes them, on the host."""
        epoch, first = step // self._steps, step % self._steps * self._accumulated
        places = range(first, min(first + self._accumulated, self._micro_batches))
        rows = [self._loader.batch_sampler.micro_batch(epoch, place) for place in places]
        batches = [self._loader.collate(self._loader.split, one) for one in rows]
        self.rows += sum(batch["real_rows"] for batch in batches)
        return batches

    def backward(self, step: int) -> None:
        """Adds the gradients of a step's loss to those of the parameters that are trained."""
        batches = self.micro_batches(step)
        for batch in batches:
            batch = self._module.data.on_before_batch_transfer(batch, 0)
            batch = self._module.data.transfer_batch_to_device(batch, self._module.device, 0)
            with self._precision.forward_context():
                total, _ = self._module.batch_loss(batch)
            (total / batch["loss_denominator"] / len(batches)).backward()


def _update(optimizer: Any, mean_over_processes: Callable[[Tensor], Tensor]) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = mean_over_processes(parameter.grad)
    optimizer.step()
    optimizer.zero_grad()


def _mean_over(trainer: Trainer) -> Callable[[Tensor], Tensor]:
    return lambda sums: trainer.strategy.reduce(sums.clone(), reduce_op="mean")


@contextmanager
def _frozen(module: TrainedModule) -> Iterator[None]:
    """Dropout off, and gradients for the head alone."""
    assert module.adapter is not None
    training = [part for part in module.modules() if part.training]
    trained = [parameter for parameter in module.adapter.parameters() if parameter.requires_grad]
    try:
        module.eval()
        for parameter in trained:
            parameter.requires_grad_(False)
        module.use_discrete_ranks()  # soft masks may draw noise
        yield
    finally:
        if module.rank_allocation is not None:
            module.rank_allocation.soften()
        for part in training:
            part.training = True
        for parameter in trained:
            parameter.requires_grad_(True)


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
