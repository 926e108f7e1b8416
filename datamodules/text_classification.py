"""The data module all text classification shares: read, tokenise once, batch."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import ClassVar

from common.errors import InputError, listing, shown
from common.terminal import logger
from datamodules.batching import Batching
from datamodules.files import read_predict_table
from datamodules.labels import check_labels
from datamodules.loaders import Collate, EvaluationDataLoader, Padding, collate
from datamodules.model_limits import read_limits
from datamodules.sources import Examples, unlabelled_examples
from datamodules.subsets import random_subset
from datamodules.task import Task
from datamodules.tokenization import TokenizedSplit, tokenize_cached
from datamodules.tokenized_data import TokenizedDataModule, check_positive
from datamodules.tokenizer import Tokenizer, load_tokenizer

_NO_LIMIT = 10**9  # what transformers has for tokenizers without one is larger


@dataclass(kw_only=True, eq=False, repr=False)
class TextClassificationDataModule(TokenizedDataModule):
    """Texts or pairs of texts with labels. Subclasses say where they come from.

    Args:
        max_length: longer rows are cut to this many tokens.
        length_multiple: pad every batch to a multiple of this many tokens, a divisor of max_length: then there are few
            different lengths for --model.cuda_graphs, and 8 suits a GPU's products.
        batching: length_grouped (little padding), random, or neighbour_pairs (rows 2i and 2i + 1 in one batch).
        train_rows: train on a fixed random subset of at most this many rows; null takes all.
        validation_rows: validate on a fixed random subset of at most this many rows; null takes all.
        subset_seed: seed of these subsets. It is separate from seed, so that all runs see the same rows.
        predict_file: file for predict: plain text, one sentence per line (pairs: separated by a tab), or a table with
            the text columns (.csv, .tsv, .jsonl, .json, .parquet).
    """

    predict_advice: ClassVar[str] = (
        "A file of this ending is read by its columns: rename them, or call a file of plain lines .txt."
    )

    backbone: str = "roberta-large"
    max_length: int = 128
    length_multiple: int = 1
    batching: Batching = "length_grouped"
    subset_seed: int = 42
    separator: str | None = field(init=False, default=None)  # of the cells of .csv files, if not a comma
    _examples: dict[str, Examples] = field(init=False, default_factory=dict)

    # What a subclass says

    @property
    def task(self) -> Task:
        raise NotImplementedError

    def check_settings(self) -> None:
        super().check_settings()
        check_positive("max_length", self.max_length)
        if self.length_multiple < 1 or self.max_length % self.length_multiple:
            raise InputError(
                f"length_multiple is {self.length_multiple} and max_length is {self.max_length}, no multiple of it; "
                "allowed: divisors of max_length, such as 8 or 16 with 128. Set --data.length_multiple or "
                "--data.max_length."
            )

    def load_examples(self) -> dict[str, Examples]:
        """The splits `train`, `validation` and perhaps `test`; a second validation set is `validation_…`."""
        raise NotImplementedError

    # What it holds after setup

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The backbone's tokenizer, checked against `max_length`."""
        tokenizer = load_tokenizer(self.backbone, self.revision)
        limits = read_limits(self.backbone, self.revision)
        if limits.token_types == 1:  # the second text of a pair has the same type: none need be given
            tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
        longest = min(tokenizer.model_max_length, limits.positions or tokenizer.model_max_length)
        texts = len(self.task.text_fields)
        around = tokenizer.num_special_tokens_to_add(texts == 2)
        least = max(4, around + texts)  # else a text would be cut away as a whole
        if not least <= self.max_length <= longest:
            raise InputError(
                f"max_length is {self.max_length}; allowed with {self.backbone}: {least} to "
                f"{longest if longest < _NO_LIMIT else 'any length'}, for {texts} texts and {around} tokens around "
                "them. Set --data.max_length."
            )
        return tokenizer

    @property
    def summary(self) -> dict[str, object]:
        return {**super().summary, "truncated_rows": self.truncated_rows}

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.task.label_names

    @property
    def tag_names(self) -> tuple[str, ...]:
        """What the numbers in a batch's `tag` mean; empty when the data has no tags."""
        # One list for all splits: the same number has to mean the same everywhere.
        return tuple(sorted({tag for rows in self._examples.values() for tag in rows.tags or ()}))

    @property
    def truncated_rows(self) -> dict[str, int]:
        """Rows of each split that were cut to `max_length`."""
        return {name: split.truncated_rows for name, split in self._splits.items()}

    @property
    def evaluated_split(self) -> tuple[str, Examples]:
        """Name and rows of the split that is reported: the test, or validation where the test has no labels."""
        name = "test" if self.has_labelled_test else "validation"
        return name, self._examples[name]

    def majority_share(self) -> float | None:
        labels = self.evaluated_split[1].labels
        return Counter(labels).most_common(1)[0][1] / len(labels) if labels and self.class_names else None

    def predict_examples(self) -> Examples:
        """The rows `predict` runs over, in file order: the predict file, else test, else validation."""
        if self.predict_file is not None:
            path = Path(self.predict_file).expanduser()
            table = read_predict_table(path, self.task.text_fields, self.separator, self.predict_advice)
            return unlabelled_examples(self.task, table)
        self.setup()
        return self._examples["test" if "test" in self._examples else "validation"]

    # Lightning's hooks

    def prepare_data(self) -> None:
        super().prepare_data()
        if self.trainer is not None and self.trainer.training:
            self._describe()

    def setup(self, stage: str | None = None) -> None:
        """Reads and tokenises all splits. A second call does nothing.

        `InputError`: see `check_settings`, `load_examples` and `load_tokenizer`; or tokens that the model can't take.
        """
        self.check_settings()
        if self._splits or (stage == "predict" and self.predict_file is not None):
            return
        self._examples = self.read_splits()
        # An unlabelled test split is only tokenised when predict asks for it.
        self._splits = {
            name: self._tokenized(name, rows) for name, rows in self._examples.items() if rows.labels is not None
        }

    def read_splits(self) -> dict[str, Examples]:
        """The rows of each split that this run uses, as text.

        `InputError`: see `load_examples`; or a training or validation split with one label only.
        """
        examples = self.load_examples()
        for split, rows in (("train", self.train_rows), ("validation", self.validation_rows)):
            pairs = self.batching == "neighbour_pairs" and split == "train"
            for name in [name for name in examples if name.startswith(split)]:
                examples[name] = random_subset(examples[name], rows, self.subset_seed, pairs)
                check_labels(self.name, split, self.task, examples[name])
        return examples

    def predict_dataloader(self) -> EvaluationDataLoader:
        # In file order; `row` in each batch says where its rows belong.
        return self._evaluation_loader(self._tokenized("predict", self.predict_examples()), sort=False)

    # How

    def _describe(self) -> None:
        """Says what is trained on: the rows of each class, what f1 looks for, and rows that are in several splits."""
        for name, rows in self._examples.items():
            counts = Counter(rows.labels or ())
            classes = [f"{counts[number]:,} {label}" for number, label in enumerate(self.class_names) if counts]
            logger.info(f"{self.name}: {len(rows):,} {name} rows" + (f": {listing(classes)}" if classes else ""))
        if "f1" in self.task.metrics:
            logger.info(f"{self.name}: f1 is of the class {self.class_names[1]!r}, the second one.")
        seen = {split: set(zip(rows.texts, rows.pairs or rows.texts)) for split, rows in self._examples.items()}
        for first, second in combinations(seen, 2):
            if shared := len(seen[first] & seen[second]):
                logger.info(f"{self.name}: {shared:,} different texts are in both the {first} and the {second} split.")

    def _refuse_lost_texts(self, examples: Examples) -> None:
        """Raises `InputError` for a pair of which the tokenizer keeps one text only; letters and digits are kept."""
        for column in () if examples.pairs is None or self.task.name == "qqp" else (examples.texts, examples.pairs):
            odd = [row for row, text in enumerate(column) if not any(map(str.isalnum, text))]
            for row in odd:  # in QQP's own files texts are empty
                if not self.tokenizer(column[row], add_special_tokens=False)["input_ids"]:
                    raise InputError(
                        f"{examples.where(row)} gives no tokens for one of its texts: {shown(column[row])}; every text "
                        "needs some. Correct or remove the row."
                    )

    def _tokenized(self, name: str, examples: Examples) -> TokenizedSplit:
        self._refuse_lost_texts(examples)
        split = tokenize_cached(examples, self.tokenizer, self.max_length, self.tag_names)
        read_limits(self.backbone, self.revision).check(split, self.tokenizer, self.backbone, examples.where)
        if odd := split.rows_of_nothing_but(self.tokenizer.all_special_ids):
            logger.warning(
                f"{self.name}: {len(odd)} of {len(split)} {name} rows are special tokens alone, such as "
                f"{examples.where(odd[0])}: {shown(examples.texts[odd[0]])}. The model can't read what stands there."
            )
        if split.truncated_rows:
            logger.info(
                f"{self.name}: {split.truncated_rows} of {len(split)} {name} rows are longer than max_length "
                f"= {self.max_length} tokens and were cut; --data.max_length sets it."
            )
        return split

    def _collate(self) -> Collate:
        return partial(collate, padding=Padding.of(self.tokenizer, self.length_multiple))
