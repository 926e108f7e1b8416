"""Text to tokens: once, in batches, cached on disk."""

import hashlib
import itertools
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from common.errors import InputError, shown
from common.files import cache_directory
from common.locks import cached
from datamodules.sources import Examples
from datamodules.tokenizer import Tokenizer, tokenizer_identity

# Part of the cache key: raise it when the meaning of the cached tensors changes, or which rows are refused.
FORMAT_VERSION = 2
ROWS_PER_CALL = 1000


@dataclass(frozen=True)
class TokenizedSplit:
    """The tokens of a split, end to end: row i is `input_ids[offsets[i]:offsets[i + 1]]`."""

    input_ids: Tensor  # (tokens,) int32
    offsets: Tensor  # (rows + 1,) int64
    token_type_ids: Tensor | None = None  # (tokens,) uint8, or None where the model has none
    labels: Tensor | None = None  # (rows,) int64, float32 for regression, None when unlabelled
    tags: Tensor | None = None  # (rows,) int64 index into the data module's `tag_names`, or None
    truncated_rows: int = 0  # rows that were longer than `max_length`

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def checksum(self) -> int:
        """CRC-32 of tokens, row lengths and labels: other rows have another one."""
        found = 0
        for part in (self.input_ids, self.offsets, self.labels):
            found = found if part is None else zlib.crc32(part.contiguous().numpy().data, found)
        return found

    @property
    def starts(self) -> Tensor:
        """Place of each row's first token in `input_ids`, (rows,)."""
        return self.offsets[:-1]

    @cached_property
    def lengths(self) -> Tensor:
        """Tokens of each row, (rows,)."""
        return self.offsets.diff()

    def rows_of_nothing_but(self, ids: Sequence[int]) -> list[int]:
        """The rows that have no other tokens than these."""
        others = nn.functional.pad((~torch.isin(self.input_ids, torch.tensor(ids))).cumsum(0), (1, 0))
        return (others[self.offsets].diff() == 0).nonzero().flatten().tolist()


def tokenize_cached(
    examples: Examples,
    tokenizer: Tokenizer,
    max_length: int | None,
    tag_names: tuple[str, ...] = (),
    add_special_tokens: bool = True,
) -> TokenizedSplit:
    """`tokenize`, remembered on disk below `cache_directory("tokenized")`.

    A damaged file is made again. A cache that can't be written costs only time, so it is a warning.

    Args:
        max_length: longer rows are cut to this many tokens; None: no row is cut.
        tag_names: numbers the tags, for all splits alike.
        add_special_tokens: gives each row what the tokenizer puts around a text.
    """
    key = _cache_key(examples, tokenizer, max_length, add_special_tokens)
    path = cache_directory("tokenized") / f"{key}.tokens"
    tensors = load(
        cached(path, lambda: save(tokenize(examples, tokenizer, max_length, add_special_tokens)), "tokens are")
    )
    return TokenizedSplit(
        input_ids=tensors["input_ids"],
        offsets=tensors["offsets"],
        token_type_ids=tensors.get("token_type_ids"),
        labels=None if examples.labels is None else torch.tensor(examples.labels),
        tags=None if examples.tags is None else torch.tensor([tag_names.index(tag) for tag in examples.tags]),
        truncated_rows=int(tensors["truncated_rows"]),
    )


def tokenize(
    examples: Examples, tokenizer: Tokenizer, max_length: int | None, add_special_tokens: bool = True
) -> dict[str, Tensor]:
    """Tokenises all rows: `input_ids`, `offsets`, `truncated_rows` and where used `token_type_ids`.

    `InputError`: a row has no tokens but those that the tokenizer puts around every text.
    """
    types = {"input_ids": np.int32, "token_type_ids": np.uint8}
    names = {"input_ids", *tokenizer.model_input_names}
    flat: dict[str, list[np.ndarray]] = {name: [] for name in types if name in names}
    longest = math.inf if max_length is None else max_length
    around = tokenizer.num_special_tokens_to_add(examples.pairs is not None) if add_special_tokens else 0
    lengths: list[int] = []
    truncated = 0
    with _parallel_tokenizer():
        for start in range(0, len(examples), ROWS_PER_CALL):
            rows = range(start, min(start + ROWS_PER_CALL, len(examples)))
            encoded = _encode(examples, rows, tokenizer, max_length, add_special_tokens)
            found = [len(ids) for ids in encoded["input_ids"]]
            if min(found) <= around:
                row = rows[found.index(min(found))]
                raise InputError(
                    f"{examples.where(row)} gives no tokens of its own: {shown(examples.texts[row])}; every row needs "
                    "some text. Correct or remove the row."
                )
            for name, parts in flat.items():
                chain = itertools.chain.from_iterable(encoded[name])
                parts.append(np.fromiter(chain, dtype=types[name], count=sum(found)))
            # only rows of exactly max_length can have been cut
            if full := [row for row, length in zip(rows, found, strict=True) if length >= longest]:
                truncated += sum(len(ids) > longest for ids in _encode(examples, full, tokenizer, None)["input_ids"])
            lengths.extend(found)
    return {
        **{name: torch.from_numpy(np.concatenate(parts)) for name, parts in flat.items()},
        "offsets": torch.tensor([0, *lengths]).cumsum(0),
        "truncated_rows": torch.tensor(truncated),
    }


def _encode(
    examples: Examples,
    rows: Sequence[int],
    tokenizer: Tokenizer,
    max_length: int | None,
    add_special_tokens: bool = True,
) -> Mapping[str, list[list[int]]]:
    # padding and truncation are always said: some tokenizer.json files switch both on.
    return tokenizer(
        [examples.texts[row] for row in rows],
        None if examples.pairs is None else [examples.pairs[row] for row in rows],
        padding=False,
        add_special_tokens=add_special_tokens,
        truncation=max_length is not None,
        max_length=max_length,
        return_attention_mask=False,
        verbose=False,
    )


@contextmanager
def _parallel_tokenizer() -> Iterator[None]:
    """Tokenises on all cores, then switches that off: a later fork must neither warn nor hang."""
    chosen = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = chosen or "true"
    try:
        yield
    finally:
        os.environ["TOKENIZERS_PARALLELISM"] = chosen or "false"


def _cache_key(examples: Examples, tokenizer: Tokenizer, max_length: int | None, add_special_tokens: bool) -> str:
    import tokenizers

    bare = "" if add_special_tokens else "no special tokens/"
    digest = hashlib.sha256(f"{FORMAT_VERSION}/{tokenizers.__version__}/{max_length}/{bare}".encode())
    digest.update(tokenizer_identity(tokenizer))
    for column in (examples.texts, examples.pairs):
        encoded = [text.encode() for text in column or ()]
        digest.update(b"none" if column is None else np.array([len(text) for text in encoded]).tobytes())
        digest.update(b"".join(encoded))
    return digest.hexdigest()
