"""The data module all language modelling shares: read running text, tokenise once, cut into windows."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, get_args

import torch

from common.errors import InputError, check_one_of
from common.terminal import logger
from datamodules.files import TABLE_ENDINGS, read_lines, read_table, table_ending
from datamodules.loaders import Collate, EvaluationDataLoader, Padding
from datamodules.model_limits import read_limits
from datamodules.sources import Examples, Table
from datamodules.splits import folder_content
from datamodules.tokenization import TokenizedSplit, tokenize_cached
from datamodules.tokenized_data import TokenizedDataModule, check_positive
from datamodules.tokenizer import Tokenizer, read_tokenizer
from datamodules.windows import Windows, collate_windows, cut_windows

Packing = Literal["blocks", "lines"]
# A long text is tokenised in pieces of about this many characters: bounded memory, and all cores at work.
PIECE_CHARACTERS = 1 << 20
_PLACE_TO_CUT = re.compile(r"(?<=\S)\s*\n")


@dataclass(kw_only=True, eq=False, repr=False)
class LanguageModellingDataModule(TokenizedDataModule):
    """Running text, for models that predict the next token. Subclasses say where it comes from.

    Packing `blocks` takes a split as one text and cuts it into blocks of `block_size` tokens, without padding; a
    last, shorter block is left out in training and kept in evaluation. Packing `lines` takes every line for itself;
    empty lines are dropped, lines of similar length share a batch, padding never counts, and a line longer than
    `block_size` goes on in a row of its own.

    What is scored: in a row of n tokens the last n - 1, each given all tokens before it in the row; the first has no
    context. With `stride`, evaluation rows overlap: every token of the split (of the line) but the first is scored
    exactly once, with at least `block_size - stride` tokens of context where there are as many. Where the tokenizer
    puts a beginning-of-text token first, that one is the context of the first word.

    Args:
        block_size: tokens the model sees at once.
        packing: blocks (the split as one text) or lines (each line by itself).
        stride: tokens between the starts of evaluation rows, 1 to block_size - 1; not given: rows don't overlap.
        train_rows: train on the first so many rows only.
        validation_rows: validate on the first so many rows only.
        test_rows: test on the first so many rows only.
        predict_file: text file for predict: the loss of each line is written.
    """

    backbone: str = "distilgpt2"
    evaluation_batch_size: int = 8
    block_size: int = 128
    packing: Packing = "blocks"
    stride: int | None = None
    test_rows: int | None = None
    _predict_texts: list[str] = field(init=False, default_factory=list)
    _splits: dict[str, Windows] = field(init=False, default_factory=dict)

    # What a subclass says

    def load_texts(self) -> dict[str, list[str]]:
        """The splits `train`, `validation` and perhaps `test`: their lines, each with its line end."""
        raise NotImplementedError

    def read_predict_file(self, file: str) -> list[str]:
        """The lines of the predict file."""
        raise NotImplementedError

    def check_settings(self) -> None:
        super().check_settings()
        check_positive("test_rows", self.test_rows)
        check_one_of("packing", self.packing, get_args(Packing))
        if self.block_size < 2:
            raise InputError(
                f"block_size is {self.block_size}; allowed: 2 or more, because a row's first token isn't scored. Set "
                "--data.block_size."
            )
        if self.stride is not None and not 1 <= self.stride < self.block_size:
            raise InputError(
                f"stride is {self.stride}; allowed: 1 to {self.block_size - 1} (block_size - 1), or none for rows that "
                "don't overlap. Set --data.stride."
            )

    # What it holds after setup

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The backbone's tokenizer, which needs no pad token; `block_size` is checked against the model."""
        longest = read_limits(self.backbone, self.revision).positions
        if longest is not None and self.block_size > longest:
            raise InputError(
                f"block_size is {self.block_size}, but {self.backbone} sees at most {longest} tokens. Set "
                "--data.block_size."
            )
        return read_tokenizer(self.backbone, self.revision)

    @property
    def row_counts(self) -> dict[str, int]:
        """Rows that training, validation and test use, and the tokens that their losses count."""
        tokens = {f"{name}_tokens": int(split.scored.sum()) for name, split in self._splits.items()}
        return {**super().row_counts, "train_tokens": 0, "validation_tokens": 0, "test_tokens": 0, **tokens}

    def predict_examples(self) -> Examples:
        """The lines `predict` runs over, empty ones left out: the predict file's, else test's, else validation's."""
        if self.predict_file is not None:
            return Examples(_lines(self.read_predict_file(self.predict_file)))
        self.setup()
        return Examples(_lines(self._predict_texts))

    @cached_property
    def predict_windows(self) -> Windows:
        """The rows of `predict_dataloader`; their `text` is the place of the line in `predict_examples`."""
        return self._rows_of_lines("predict", self.predict_examples().texts, self.stride)

    # Lightning's hooks

    def setup(self, stage: str | None = None) -> None:
        """Reads, tokenises and cuts all splits. A second call does nothing.

        `InputError`: see `check_settings`, `load_texts` and `read_tokenizer`, or a split with nothing to score.
        """
        self.check_settings()
        if self._splits or (stage == "predict" and self.predict_file is not None):
            return
        splits = self.load_texts()
        self._predict_texts = splits["test" if "test" in splits else "validation"]
        limits = {"train": self.train_rows, "validation": self.validation_rows, "test": self.test_rows}
        for name, texts in splits.items():
            windows = self._windows(name, texts)
            self._splits[name] = windows.select(torch.arange(min(len(windows), limits[name] or len(windows))))

    def predict_dataloader(self) -> EvaluationDataLoader:
        return self._evaluation_loader(self.predict_windows, sort=False)

    # How

    def _windows(self, name: str, texts: list[str]) -> Windows:
        stride = None if name == "train" else self.stride
        if self.packing == "lines":
            windows = self._rows_of_lines(name, _lines(texts), stride)
        else:
            tokens = self._tokens(name, Examples(cut_pieces("".join(texts))), add_special_tokens=False).input_ids
            tokens = torch.cat([torch.tensor(first_tokens(self.tokenizer), dtype=torch.int32), tokens])
            whole_text = TokenizedSplit(tokens, offsets=torch.tensor([0, len(tokens)]))
            windows = cut_windows(whole_text, self.block_size, stride)
        if not len(windows):
            raise InputError(
                f"the {name} split of {self.name} has no token to score, so there is no perplexity; allowed: at least "
                "two tokens of text in a row. Check the file."
            )
        whole = windows.lengths == self.block_size
        if name == "train" and self.packing == "blocks" and bool(whole.any()):
            return windows.select(whole)
        return windows

    def _rows_of_lines(self, name: str, lines: list[str], stride: int | None) -> Windows:
        if not lines:
            raise InputError(f"the {name} split of {self.name} has no line that isn't empty. Check the file.")
        tokens = self._tokens(name, Examples(lines))
        longer = int((tokens.lengths > self.block_size).sum())
        if longer:
            logger.info(
                f"{self.name}: {longer} of {len(lines)} {name} lines are longer than block_size = {self.block_size} "
                "tokens, so they continue in further rows. --data.block_size sets the limit."
            )
        return cut_windows(tokens, self.block_size, stride)

    def _tokens(self, name: str, examples: Examples, add_special_tokens: bool = True) -> TokenizedSplit:
        tokens = tokenize_cached(examples, self.tokenizer, max_length=None, add_special_tokens=add_special_tokens)
        limits, where = read_limits(self.backbone, self.revision), f"the {name} split of {self.name}"
        limits.check(tokens, self.tokenizer, self.backbone, lambda _: where, classified=False)
        return tokens

    def _row_weights(self, split: TokenizedSplit) -> torch.Tensor:
        assert isinstance(split, Windows)
        return split.scored

    def _collate(self) -> Collate:
        # On the right, whatever the tokenizer says: nothing looks ahead, so padding changes no answer that counts.
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return partial(collate_windows, padding=Padding(next(token for token in known if token is not None)))


def _lines(texts: list[str]) -> list[str]:
    """The lines that aren't empty, without their line ends."""
    return [text.removesuffix("\n") for text in texts if text.strip()]


def cut_pieces(text: str, characters: int = PIECE_CHARACTERS) -> list[str]:
    """Cuts a text before line breaks, into pieces of at least so many characters (the last may be shorter).

    Byte-level tokenizers, GPT-2's among them, make the same tokens of the pieces as of the whole.
    """
    pieces, start = [], 0
    while (found := _PLACE_TO_CUT.search(text, start + characters)) is not None:
        pieces.append(text[start : found.start()])
        start = found.start()
    rest = text[start:]
    if rest.strip() or not pieces:
        return [*pieces, rest]
    return [*pieces[:-1], pieces[-1] + rest]


def first_tokens(tokenizer: Tokenizer) -> list[int]:
    """The special tokens that a tokenizer puts before a text, such as beginning-of-text."""
    bare = tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"]
    full = tokenizer("a", verbose=False)["input_ids"]
    return full[: next((place for place in range(len(full)) if full[place : place + len(bare)] == bare), 0)]


def read_running_text(path: Path, column: str = "text") -> list[str]:
    """The lines of a text file, or the rows of a column of a CSV, JSON-lines or Parquet file; plain or gzip-compressed.

    `InputError`: a missing, empty or unreadable file, a missing column, or a row that is no text.
    """
    if not path.is_file():
        folder = path.parent
        there = f"{folder} holds: {folder_content(folder)}" if folder.is_dir() else f"there is no folder {folder}"
        raise InputError(f"there is no file {path}; {there}. Check the path.")
    if table_ending(path.name) in TABLE_ENDINGS:
        return running_text(read_table(path, (column,)), column)
    *lines, last = read_lines(path)
    return [*(f"{line}\n" for line in lines), *([last] if last else [])]


def running_text(table: Table, column: str) -> list[str]:
    """The rows of a column; one without a line end gets one.

    `InputError`: the column is missing or empty, or a row is no text.
    """
    table.require((column,), "Rename the column, or name the one that holds the text with --data.text_column.")
    rows = table.texts(column, may_be_empty=True)
    if not any(map(str.strip, rows)):
        raise InputError(f"{table.source} has no text in its column {column}. Fetch or write it again.")
    return [text if text.endswith("\n") else f"{text}\n" for text in rows]


def running_texts(tables: Mapping[str, Table], column: str) -> dict[str, list[str]]:
    """`running_text` of the splits that language modelling uses."""
    return {split: running_text(tables[split], column) for split in ("train", "validation", "test") if split in tables}
