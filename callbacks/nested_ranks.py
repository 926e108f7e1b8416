"""Nested training over time: a random rank for each step, and the curve of ranks when training has ended."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, Trainer

from callbacks.trained_module import Batch, TrainedModule
from lora.nested import NestedRanks


def rank_at(step: int, seed: int, rank_min: int, rank_max: int) -> int:
    """The rank an optimizer step trains at, uniform from rank_min to rank_max: a pure function of seed and step.

    So a resumed run draws what the undisturbed one would have, and all processes agree.
    """
    return random.Random(f"nested rank {seed} {step}").randint(rank_min, rank_max)


class NestedRankSampling(Callback):
    """Cuts a nested adapter to a random rank in each training step, and to none in evaluations.

    The module brings it along. Ranks are drawn with the seed of the data order.
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: TrainedModule, batch: Batch, batch_idx: int) -> None:
        if isinstance(adapter := pl_module.adapter, NestedRanks):
            rank = rank_at(trainer.global_step, pl_module.data.seed, adapter.rank_min, adapter.rank_max)
            adapter.use_rank(rank)

    def on_after_backward(self, trainer: Trainer, pl_module: TrainedModule) -> None:
        # between two steps everyone sees the whole adapter: other callbacks, checkpoints, evaluations
        if isinstance(adapter := pl_module.adapter, NestedRanks):
            adapter.use_rank(adapter.rank_max)


def rank_curve(trainer: Trainer, pl_module: TrainedModule) -> list[dict[str, float | None]] | None:
    """Evaluates a nested adapter at each of its `evaluated_ranks`, and logs the figures as val/METRIC/rank_K.

    Once per run, after training, with the weights the module has then: evaluating all ranks after each epoch would cost
    as many validations as there are ranks. Returns one entry per rank: {"rank", then each figure by its tag,
    such as "val/accuracy" and "test/accuracy"}; None if the adapter isn't nested.
    """
    adapter = pl_module.adapter
    if not isinstance(adapter, NestedRanks):
        return None
    found: dict[int, dict[str, float]] = {}
    with _without_callbacks_and_loggers(trainer):
        for rank in adapter.evaluated_ranks:
            adapter.use_rank(rank)
            found[rank] = _figures(trainer, pl_module)
    adapter.use_rank(adapter.rank_max)
    for rank, figures in found.items():
        metrics = {f"{name}/rank_{rank}": value for name, value in figures.items()}
        pl_module.log_now(metrics, step=trainer.global_step)
    return [{"rank": rank, **figures} for rank, figures in found.items()]


def _figures(trainer: Trainer, pl_module: TrainedModule) -> dict[str, float]:
    """Every figure of the validation splits, and of the test splits if they have labels."""
    figures, data = dict[str, float](), pl_module.data
    for evaluate in [trainer.validate, trainer.test] if data.has_labelled_test else [trainer.validate]:
        evaluate(pl_module, datamodule=data, verbose=False)
        figures |= {name: float(value) for name, value in trainer.callback_metrics.items()}
    return figures


@contextmanager
def _without_callbacks_and_loggers(trainer: Any) -> Iterator[None]:
    """They record the run itself, whose figures are those of rank_max."""
    callbacks, loggers = trainer.callbacks, trainer.loggers
    trainer.callbacks, trainer.loggers = [], []
    try:
        yield
    finally:
        trainer.callbacks, trainer.loggers = callbacks, loggers
