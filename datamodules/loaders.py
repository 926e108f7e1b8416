"""Padding, and the loaders Lightning iterates: evaluation, and training that goes on where it stopped.

They are plain iterables rather than `torch.utils.data.DataLoader`s, on purpose. A DataLoader draws from the
global random state at every `iter()`, which would make a resumed run differ from an uninterrupted one; and
Lightning rebuilds DataLoaders to inject its own sampler (several processes, predict), which would undo the
batches made here. Collating is a handful of tensor operations on tokens that are already in memory: worker
processes gain nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, NotRequired, TypedDict, cast

import torch
from torch import Tensor

from common.errors import InputError
from datamodules.batching import EvaluationBatchSampler, MicroBatch, TrainingBatchSampler
from datamodules.tokenization import TokenizedSplit
from datamodules.tokenizer import Tokenizer

Places = list[tuple[int, Tensor]]
_ALIGNED = 16  # bytes: a tensor of any type can begin there


class Batch(TypedDict):
    """What a model is given at once; figures leave out rows that only fill a process's share."""

    inputs: dict[str, Tensor]  # what the model takes, each (rows, length)
    labels: NotRequired[Tensor]  # (rows,), or (rows, length) in language modelling
    scored: NotRequired[Tensor]  # (rows,), labels that count in language modelling
    weights: Tensor  # (rows,)
    row: Tensor  # (rows,)
    tag: NotRequired[Tensor]  # (rows,)
    loss_denominator: float
    real_rows: int
    real_tokens: int
    padded_tokens: int


class Padding(NamedTuple):
    """How rows are filled up to the longest one of their batch, or to the next multiple of a length."""

    token_id: int
    side: str = "right"
    token_type_id: int = 0
    length_multiple: int = 1

    @classmethod
    def of(cls, tokenizer: Tokenizer, length_multiple: int = 1) -> "Padding":
        return cls(tokenizer.pad_token_id, tokenizer.padding_side, tokenizer.pad_token_type_id, length_multiple)


def collate(split: TokenizedSplit, micro_batch: MicroBatch, padding: Padding) -> Batch:
    """Pads the rows of a micro-batch to the longest of them.

    Returns:
        `inputs` (what the model takes: input_ids, attention_mask and where used token_type_ids, each
        (rows, length)), `labels` (rows,) unless the split has none, `weights` (rows,), `row` (rows,), `tag`
        (rows,) where the split has tags, `loss_denominator`, and the numbers `real_rows`, `real_tokens` and
        `padded_tokens` (all positions of the rows that count, padding included).
    """
    rows = torch.tensor(micro_batch.indices)  # (rows,)
    weights = torch.tensor(micro_batch.weights)  # (rows,)
    starts, lengths = split.starts[rows], split.lengths[rows]
    longest = -(-int(lengths.max()) // padding.length_multiple) * padding.length_multiple
    columns = torch.arange(longest)
    # Position of each cell in its row's tokens; cells outside [0, length) are padding.
    shift = (longest - lengths)[:, None] if padding.side == "left" else 0
    positions = columns[None, :] - shift  # (rows, length)
    real = (positions >= 0) & (positions < lengths[:, None])
    source = (starts[:, None] + positions)[real]

    def padded(flat: Tensor, fill: int) -> Tensor:
        cells = torch.full((len(rows), longest), fill, dtype=torch.long)
        cells[real] = flat[source].long()
        return cells

    inputs = {"input_ids": padded(split.input_ids, padding.token_id), "attention_mask": real.long()}
    if split.token_type_ids is not None:
        inputs["token_type_ids"] = padded(split.token_type_ids, padding.token_type_id)
    counted = weights > 0
    batch: Batch = {
        "inputs": inputs,
        "weights": weights,
        "loss_denominator": micro_batch.loss_denominator,
        "row": rows,
        "real_rows": int(counted.sum()),
        "real_tokens": int(lengths[counted].sum()),
        "padded_tokens": int(counted.sum()) * longest,
    }
    if split.labels is not None:
        batch["labels"] = split.labels[rows]
    if split.tags is not None:
        batch["tag"] = split.tags[rows]
    return batch


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on the device, by one copy that the host doesn't wait for."""
    if device.type == "cpu":
        return batch
    top = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
    packed, places = _pack_tensors([*batch["inputs"].values(), *top.values()], pinned=device.type == "cuda")
    there = _unpack_tensors(packed.to(device, non_blocking=True), places)
    tensors = {**dict(zip(top, there[len(batch["inputs"]) :])), "inputs": dict(zip(batch["inputs"], there))}
    return cast(Batch, {**batch, **tensors})


def _pack_tensors(tensors: list[Tensor], pinned: bool = False) -> tuple[Tensor, Places]:
    """All the tensors' bytes, one after the other, and where each begins."""
    ends = list(accumulate(-(-tensor.nbytes // _ALIGNED) * _ALIGNED for tensor in tensors))
    packed = torch.empty(ends[-1], dtype=torch.uint8, pin_memory=pinned)
    places = list(zip([0, *ends], tensors))
    for view, tensor in zip(_unpack_tensors(packed, places), tensors):
        view.copy_(tensor)
    return packed, places


def _unpack_tensors(packed: Tensor, places: Places) -> list[Tensor]:
    """Views of the bytes with the shapes and types that `_pack_tensors` was given."""
    return [packed[start : start + like.nbytes].view(like.dtype).view(like.shape) for start, like in places]


Collate = Callable[[TokenizedSplit, MicroBatch], Batch]


@dataclass(eq=False, repr=False)
class EvaluationDataLoader:
    """Collated batches of a sampler."""

    split: TokenizedSplit
    batch_sampler: EvaluationBatchSampler | TrainingBatchSampler
    collate: Collate

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        return (self.collate(self.split, micro_batch) for micro_batch in self.batch_sampler)


@dataclass(eq=False, repr=False)
class ResumableDataLoader(EvaluationDataLoader):
    """Collated micro-batches of a `TrainingBatchSampler`, with a position that checkpoints keep.

    `state_dict` after k batches says `next_batch` = k. After `load_state_dict` the next iteration of that
    epoch continues there; any other epoch (announced by `set_epoch`) starts at its first batch. Nothing is
    decided before the first `next()`, because Lightning calls `iter()` before it announces the epoch.
    """

    batch_sampler: TrainingBatchSampler

    def __post_init__(self) -> None:
        self._epoch = self.batch_sampler.epoch
        self._next_batch = 0
        self._resuming = False

    def __iter__(self) -> Iterator[Batch]:
        # A generator: the lines below run at the first next().
        epoch = self.batch_sampler.epoch
        start = self._next_batch if self._resuming and epoch == self._epoch else 0
        self._epoch, self._next_batch, self._resuming = epoch, start, False
        for index in range(start, len(self)):
            batch = self.collate(self.split, self.batch_sampler.micro_batch(epoch, index))
            self._next_batch = index + 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The position in the data order, and what it must be resumed with."""
        epoch = self.batch_sampler.epoch
        return {
            "epoch": epoch,
            "next_batch": self._next_batch if epoch == self._epoch else 0,
            "batches": len(self),
            "rows": len(self.split),
            "checksum": self.split.checksum,
            "batch_size": self.batch_sampler.batch_size,
            "accumulate": self.batch_sampler.accumulate,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Takes up the position of `state_dict`.

        `InputError`: the training data or the global batch size differ from the checkpoint's, or the accumulation does
        in the middle of an epoch.
        """
        here = self.state_dict()
        for key, option in (("rows", "train rows"), ("batch_size", "--data.batch_size")):
            if state[key] != here[key]:
                raise InputError(
                    f"the checkpoint was trained with {option} = {state[key]}, this run has {here[key]}; a "
                    "run can only be resumed with the same training data and batch_size. "
                    "Use the checkpoint's, or start a new run with another --run_name."
                )
        if state["checksum"] != here["checksum"]:
            raise InputError(
                "the checkpoint was trained on as many rows as this run reads, but on other ones: their texts, their "
                "labels, their order, the tokenizer or --data.max_length differ. Use the same data and settings, or "
                "start a new run with another --run_name."
            )
        finished = state["next_batch"] >= state["batches"]
        if not finished and state["next_batch"] and state["accumulate"] != here["accumulate"]:
            raise InputError(
                f"the checkpoint stands in the middle of an epoch with accumulate_grad_batches = "
                f"{state['accumulate']}, this run has {here['accumulate']}; allowed: the same value, or a "
                "checkpoint from the end of an epoch."
            )
        self.batch_sampler.set_epoch(state["epoch"])
        self._epoch = state["epoch"]
        self._next_batch = len(self) if finished else state["next_batch"]
        self._resuming = True
