"""What is counted, not timed: it comes out the same on every machine."""

from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.data import training_rows
from benchmarks.seed_loop import RANK_AVERAGE, RANK_MAX, RANK_MIN, looped_mask, looped_ranks
from benchmarks.settings import SEED, BenchmarkSettings
from benchmarks.timing import Figures
from datamodules.batching import global_batches
from lora.rank_allocation import RankAllocation

LAYERS = 96


def padding(settings: BenchmarkSettings) -> Figures:
    """Positions that go through the model per real token, in one epoch over all rows, by the way of batching."""
    lengths = training_rows(settings)[0].lengths
    figures = {}
    for batching in ("length_grouped", "random"):
        batches = global_batches(lengths, settings.batch_size, SEED, settings.repetition, batching)
        padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
        figures[batching] = padded / int(lengths.sum())
    return figures


def mask_operations(settings: BenchmarkSettings) -> Figures:
    """Tensor operations from allocation weights to R ∘ mask of 96 layers (softmax allocation), and back."""
    return {"softmax_masks": count_operations(our_masks()), "looped_masks": count_operations(looped_masks())}


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(
        self,
        function: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        self.operations += 1
        return function(*args, **(kwargs or {}))


def count_operations(step: Callable[[], object]) -> int:
    """Tensor operations that PyTorch dispatches in a step, once it has run before."""
    step()
    with _Counter() as counter:
        step()
    return counter.operations


def our_masks() -> Callable[[], None]:
    allocation = RankAllocation(torch.ones(LAYERS), 2, RANK_MIN, RANK_MAX, LAYERS * RANK_AVERAGE**2, "softmax")
    cores = torch.zeros(LAYERS, RANK_MAX, RANK_MAX, requires_grad=True)

    def step() -> None:
        allocation.weights.grad = cores.grad = None
        masked = (cores * allocation.masks()).unbind(0)
        torch.autograd.backward(list(masked), [torch.ones(RANK_MAX, RANK_MAX)] * LAYERS)

    return step


def looped_masks() -> Callable[[], None]:
    weights = torch.randn(LAYERS, requires_grad=True)
    cores = [torch.zeros(RANK_MAX, RANK_MAX, requires_grad=True) for _ in range(LAYERS)]

    def step() -> None:
        for parameter in (weights, *cores):
            parameter.grad = None
        ranks = looped_ranks(weights, LAYERS * RANK_AVERAGE**2, RANK_MIN)
        masked = [core * looped_mask(rank, 1.0, RANK_MIN, RANK_MAX, core) for core, rank in zip(cores, ranks)]
        torch.autograd.backward(masked, [torch.ones(RANK_MAX, RANK_MAX)] * LAYERS)

    return step
