"""Pairs that are counted, not timed: they come out the same on every machine."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.data import training_rows
from benchmarks.looped_mask import looped_masks, looped_ranks
from benchmarks.settings import SEED, Settings
from datamodules.batching import Batching, global_batches
from lora.rank_allocation import RankAllocation

LAYERS, RANK_MIN, RANK_MAX, RANK_AVERAGE = 96, 5, 25, 20


def padded_tokens_per_real_token(settings: Settings, epoch: int, batching: Batching) -> float:
    """Positions that go through the model per real token, in one epoch over all rows."""
    lengths = training_rows(settings)[0].lengths
    batches = global_batches(lengths, settings.batch_size, SEED, epoch, batching)
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return padded / int(lengths.sum())


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return function(*args, **(kwargs or {}))


def count_operations(step: Callable[[], Any]) -> int:
    """Tensor operations that PyTorch dispatches in a step, once it has run before."""
    step()
    with _Counter() as counter:
        step()
    return counter.operations


def our_mask_operations() -> int:
    """From allocation weights to R ∘ mask of 96 layers (softmax allocation), and back."""
    allocation = RankAllocation(torch.ones(LAYERS), 2, RANK_MIN, RANK_MAX, LAYERS * RANK_AVERAGE**2, "softmax")
    cores = torch.zeros(LAYERS, RANK_MAX, RANK_MAX, requires_grad=True)

    def step() -> None:
        _forget_gradients([allocation.weights, cores])
        masked = (cores * allocation.masks()).unbind(0)
        torch.autograd.backward(list(masked), [torch.ones(RANK_MAX, RANK_MAX)] * LAYERS)

    return count_operations(step)


def looped_mask_operations() -> int:
    """The same by the study's loop."""
    weights = torch.randn(LAYERS, requires_grad=True)
    cores = [torch.zeros(RANK_MAX, RANK_MAX, requires_grad=True) for _ in range(LAYERS)]

    def step() -> None:
        _forget_gradients([weights, *cores])
        ranks = looped_ranks(weights, LAYERS * RANK_AVERAGE**2, RANK_MIN)
        masks = looped_masks(ranks, 1.0, RANK_MIN, RANK_MAX, cores)
        masked = [core * mask for core, mask in zip(cores, masks, strict=True)]
        torch.autograd.backward(masked, [torch.ones(RANK_MAX, RANK_MAX)] * LAYERS)

    return count_operations(step)


def _forget_gradients(parameters: list[torch.Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None
