"""Texts cut into windows of tokens: what a language model sees at once, and which tokens count."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from datamodules.batching import MicroBatch
from datamodules.loaders import Batch, Padding, collate
from datamodules.tokenization import TokenizedSplit

IGNORED = -100  # the label that torch's cross entropy leaves out


@dataclass(frozen=True, kw_only=True)
class Windows(TokenizedSplit):
    """Rows that may overlap: row i is `input_ids[offsets[i]:ends[i]]`, and its last `scored[i]` tokens count.

    `offsets` (rows,) int64 is the place of each row's first token.
    """

    ends: Tensor  # (rows,) int64, place after each row's last token
    scored: Tensor  # (rows,) int64, tokens of each row that the loss counts; the others are context
    text: Tensor  # (rows,) int64, the text each row is a part of

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def starts(self) -> Tensor:
        return self.offsets

    @cached_property
    def lengths(self) -> Tensor:
        """Tokens of each row, context included, (rows,)."""
        return self.ends - self.offsets

    def select(self, rows: Tensor) -> "Windows":
        """The rows that a mask (rows,) or an index chooses."""
        chosen = {name: getattr(self, name)[rows] for name in ("offsets", "ends", "scored", "text")}
        return Windows(input_ids=self.input_ids, **chosen)


def cut_windows(tokens: TokenizedSplit, size: int, stride: int | None = None) -> Windows:
    """Cuts every text (a row of `tokens`) into windows of at most `size` tokens; those that score nothing are left out.

    Without `stride` the windows lie end to end, and a window of n tokens scores n - 1: its first has no context. With
    `stride` a window starts every `stride` tokens (1 to size - 1), until one reaches the end of the text. It scores
    the tokens that no earlier window has scored, so that each token but a text's first counts exactly once, and each
    outside the first window has at least `size - stride` tokens of context.
    """
    step = size if stride is None else stride
    lengths = tokens.lengths  # (texts,)
    # The last window is the first that reaches the end: its start is at least length - size.
    counts = 1 + (lengths - size).clamp_min(0).add(step - 1).div(step, rounding_mode="floor")  # (texts,)
    text = torch.arange(len(tokens)).repeat_interleave(counts)  # (rows,)
    place = torch.arange(len(text)) - (counts.cumsum(0) - counts)[text]  # (rows,) number within the text
    starts = place * step
    ends = torch.minimum(starts + size, lengths[text])
    # What earlier windows have scored ends where the window before this one ends.
    scored_before = torch.where(place == 0, 1, starts - step + size) if stride else starts + 1
    windows = Windows(
        input_ids=tokens.input_ids,
        offsets=tokens.starts[text] + starts,
        ends=tokens.starts[text] + ends,
        scored=(ends - scored_before).clamp_min(0),
        text=text,
    )
    return windows.select(windows.scored > 0)


def collate_windows(split: Windows, micro_batch: MicroBatch, padding: Padding) -> Batch:
    """`collate`, with labels for every position.

    Returns:
        What `collate` returns, and `labels` (rows, length): the token itself where it is scored, else `IGNORED`;
        the model's answer at position i is for the label at i + 1. `scored` (rows,) counts the labels of each row,
        0 for one that only takes part because another process has a row left.
    """
    batch = collate(split, micro_batch, padding)
    rows = batch["row"]
    input_ids, real = batch["inputs"]["input_ids"], batch["inputs"]["attention_mask"]  # (rows, length)
    # Padding is on the right: a row's scored tokens end at its length.
    lengths, scored = split.lengths[rows][:, None], split.scored[rows]
    columns = torch.arange(input_ids.shape[1])
    counted = (columns >= lengths - scored[:, None]) & real.bool()
    return {**batch, "labels": input_ids.where(counted, IGNORED), "scored": scored * (batch["weights"] > 0)}
