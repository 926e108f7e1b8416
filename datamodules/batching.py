"""Which rows form which batch.

The order of global batches is a pure function of (lengths, batch size, seed, epoch): processes and gradient
accumulation only decide how each global batch is cut, so a run means the same on one device and on eight.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from common.errors import InputError, check_one_of

Batching = Literal["length_grouped", "random", "neighbour_pairs"]

# Rows are sorted by length inside windows of this many batches: little padding, and still a random order.
WINDOW_BATCHES = 50


class MicroBatch(NamedTuple):
    """The rows one process feeds through the model at once.

    The loss of the rows is `(row_losses * weights).sum() / loss_denominator`. Averaged over processes (DDP)
    and accumulation steps (Lightning), that is the mean over the rows of the whole global batch, or over its
    tokens where a row's loss is a sum over tokens and the sampler was given `row_counts`.
    """

    indices: list[int]
    weights: list[float]
    loss_denominator: float


def global_batches(
    lengths: Tensor, batch_size: int, seed: int, epoch: int, batching: Batching = "length_grouped"
) -> list[Tensor]:
    """Row indices of every global batch of an epoch, in order; each row exactly once.

    `InputError`: an unknown `batching`, or pairs that can't be formed.

    Args:
        lengths: tokens of each row, (rows,).
        batch_size: rows of a global batch. Rows that are left over form one smaller batch, the last one.
        seed: seed of the data order.
        epoch: each epoch has its own order.
        batching: `length_grouped` puts rows of similar length together, `random` does not look at lengths,
            `neighbour_pairs` is length_grouped with rows 2i and 2i + 1 (a minimal pair) in the same batch.
    """
    _check_batching(lengths, batch_size, batching)
    if batching == "neighbour_pairs":
        longer = lengths.view(-1, 2).amax(dim=1)  # (pairs,)
        batches = global_batches(longer, batch_size // 2, seed, epoch)
        return [torch.stack([2 * pairs, 2 * pairs + 1], dim=1).flatten() for pairs in batches]
    # A hash, not seed + epoch: neighbouring seeds must not share their epochs' orders.
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    shuffled = torch.randperm(len(lengths), generator=generator)  # (rows,)
    whole = len(lengths) // batch_size * batch_size
    # The left-over rows are drawn at random, before sorting: they must not be the longest ones of each epoch.
    left_over = [shuffled[whole:]] if whole < len(lengths) else []
    if batching == "random":
        return [*shuffled[:whole].split(batch_size), *left_over] if whole else left_over
    batches = []
    for window in shuffled[:whole].split(WINDOW_BATCHES * batch_size) if whole else ():
        batches.extend(_sorted_by_length(window, lengths).split(batch_size))
    order = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[index] for index in order] + [_sorted_by_length(rows, lengths) for rows in left_over]


def _check_batching(lengths: Tensor, batch_size: int, batching: str) -> None:
    check_one_of("batching", batching, get_args(Batching))
    if batching == "neighbour_pairs" and (len(lengths) % 2 or batch_size % 2):
        raise InputError(
            f"batching is 'neighbour_pairs' with {len(lengths)} rows and batch_size {batch_size}; allowed: even "
            "numbers of both. Use length_grouped for data that isn't made of pairs."
        )


def _sorted_by_length(rows: Tensor, lengths: Tensor) -> Tensor:
    return rows[torch.argsort(lengths[rows], stable=True)]


@dataclass(eq=False, repr=False)
class TrainingBatchSampler:
    """The micro-batches of one process, epoch after epoch.

    Every global batch is cut into `processes * accumulate` shares; accumulation step `a` of process `rank` takes share
    `a * processes + rank`. All processes get the same number of micro-batches. `InputError`: `batch_size` can't be
    split evenly; or see `global_batches`.
    """

    lengths: Tensor  # tokens of each row, (rows,)
    batch_size: int  # rows of a global batch; a multiple of `processes * accumulate`
    seed: int = 42  # seed of the data order
    batching: Batching = "length_grouped"  # see `global_batches`
    processes: int = 1  # number of data-parallel processes
    rank: int = 0  # number of this process
    accumulate: int = 1  # micro-batches per optimizer step
    same_order: bool = False  # use the first epoch's order in every epoch (to overfit a few batches on purpose)
    # what each row counts in the mean, (rows,): 1 if not given, its scored tokens in language modelling
    row_counts: Tensor | None = None
    epoch: int = field(init=False, default=0)
    _batches: tuple[int, list[Tensor]] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._check_shares()
        # at the first batch the run's folder would have been begun
        _check_batching(self.lengths, self.batch_size, self.batching)

    @property
    def sampler(self) -> "TrainingBatchSampler":
        """Itself: Lightning announces a new epoch to `batch_sampler.sampler`."""
        return self

    @property
    def shares(self) -> int:
        return self.processes * self.accumulate

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def micro_batch(self, epoch: int, index: int) -> MicroBatch:
        """The `index`-th micro-batch of this process in `epoch`."""
        batch = self._global_batches(epoch)[index // self.accumulate]
        share = index % self.accumulate * self.processes + self.rank
        start, end = (len(batch) * edge // self.shares for edge in (share, share + 1))
        counted = len(batch) if self.row_counts is None else int(self.row_counts[batch].sum())
        denominator = counted / self.shares
        if start == end:
            # Fewer rows than shares: this process still has to take part, with a row that counts nothing.
            return MicroBatch([int(batch[0])], [0.0], denominator)
        return MicroBatch(batch[start:end].tolist(), [1.0] * (end - start), denominator)

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size) * self.accumulate

    def __iter__(self) -> Iterator[MicroBatch]:
        epoch = self.epoch
        return (self.micro_batch(epoch, index) for index in range(len(self)))

    def _global_batches(self, epoch: int) -> list[Tensor]:
        epoch = 0 if self.same_order else epoch
        if self._batches is None or self._batches[0] != epoch:
            batches = global_batches(self.lengths, self.batch_size, self.seed, epoch, self.batching)
            self._batches = epoch, batches
        return self._batches[1]

    def _check_shares(self) -> None:
        if self.batch_size % self.shares == 0:
            return
        below = self.batch_size // self.shares * self.shares
        near = " or ".join(str(size) for size in (below, below + self.shares) if size)
        parts = f"{self.processes} x {self.accumulate} = {self.shares}"
        raise InputError(
            f"batch_size is {self.batch_size}, but devices x accumulation = {parts}; "
            f"allowed: multiples of {self.shares}, such as --data.batch_size {near}."
        )


class EvaluationBatchSampler:
    """Batches for evaluation: every row once; batch i belongs to process i % processes.

    All processes get the same number of batches, because metrics are summed over processes: where batches run out, a
    process takes part with a row that counts nothing (weight 0). Rows of similar length (rows,) stand together if
    `sort`; otherwise rows stay in file order.
    """

    def __init__(self, lengths: Tensor, batch_size: int, processes: int = 1, rank: int = 0, sort: bool = True) -> None:
        rows = torch.arange(len(lengths))
        if sort:
            rows = _sorted_by_length(rows, lengths)
        batches = rows.split(batch_size) if len(rows) else ()
        self.batches = list(batches[rank::processes])
        self.placeholders = -(-len(batches) // processes) - len(self.batches)

    def __len__(self) -> int:
        return len(self.batches) + self.placeholders

    def __iter__(self) -> Iterator[MicroBatch]:
        for batch in self.batches:
            yield MicroBatch(batch.tolist(), [1.0] * len(batch), float(len(batch)))
        for _ in range(self.placeholders):
            yield MicroBatch([0], [0.0], 1.0)
