"""The base of all data modules: tokenised splits, their loaders, and the position in the data order."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from common.errors import InputError
from common.terminal import logger
from datamodules.batching import Batching, EvaluationBatchSampler, TrainingBatchSampler
from datamodules.loaders import Batch, Collate, EvaluationDataLoader, ResumableDataLoader, moved
from datamodules.sources import Examples
from datamodules.tokenization import TokenizedSplit
from datamodules.tokenizer import Tokenizer


@dataclass(kw_only=True, eq=False, repr=False)
class TokenizedDataModule(LightningDataModule):
    """Splits `train`, `validation…` and perhaps `test…`, tokenised by `setup` into `_splits`.

    Subclasses fill `_splits` and say how rows are put together (`_collate`).

    Args:
        backbone: model whose tokenizer is used; normally linked from the model.
        revision: hub branch, tag or commit of the tokenizer.
        batch_size: global batch in rows, split evenly over devices and accumulation.
        evaluation_batch_size: rows per device in validation, test and prediction.
        seed: seed of the data order.
    """

    backbone: str
    revision: str | None = None
    batch_size: int = 32
    evaluation_batch_size: int = 64
    seed: int = 42
    train_rows: int | None = None
    validation_rows: int | None = None
    predict_file: str | None = None
    batching: Batching = field(init=False, default="length_grouped")
    _splits: Mapping[str, TokenizedSplit] = field(init=False, default_factory=dict)
    _training_loader: ResumableDataLoader | None = field(init=False, default=None)
    _position: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def check_settings(self) -> None:
        """Raises InputError for a setting out of range; not in the constructor, where jsonargparse would hide it."""
        for name in ("batch_size", "evaluation_batch_size", "train_rows", "validation_rows"):
            check_positive(name, getattr(self, name))

    @property
    def name(self) -> str:
        """What the data set is called in results."""
        raise NotImplementedError

    @cached_property
    def tokenizer(self) -> Tokenizer:
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Reads and tokenises all splits into `_splits`. A second call does nothing."""
        raise NotImplementedError

    def predict_examples(self) -> Examples:
        """The rows `predict` runs over, in file order."""
        raise NotImplementedError

    def _collate(self) -> Collate:
        """What makes a batch of the rows of a split."""
        raise NotImplementedError

    @property
    def validation_names(self) -> tuple[str, ...]:
        """Metric prefixes, in the order of `val_dataloader`: `val`, `val_mismatched`."""
        return tuple(name.replace("validation", "val", 1) for name in self._split_names("validation"))

    @property
    def test_names(self) -> tuple[str, ...]:
        """Metric prefixes, in the order of `test_dataloader`; empty without a labelled test split."""
        return self._split_names("test")

    @property
    def has_labelled_test(self) -> bool:
        return bool(self.test_names)

    def majority_share(self) -> float | None:
        """How often the most frequent label is right, in the test split or, without labels there, in validation."""
        return None

    @property
    def tag_names(self) -> tuple[str, ...]:
        """What the numbers in a batch's `tag` mean; empty when the data has no tags."""
        return ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in label order; empty for numbers and for running text."""
        return ()

    @property
    def row_counts(self) -> dict[str, int]:
        """Rows that training, validation (all sets together) and test use."""
        counts = dict.fromkeys(("train_rows", "validation_rows", "test_rows"), 0)
        for name, split in self._splits.items():
            counts[f"{name.split('_')[0]}_rows"] += len(split)
        return counts

    @property
    def checksums(self) -> dict[str, int]:
        """A checksum of each labelled split's tokens and labels."""
        return {name: split.checksum for name, split in self._splits.items()}

    @property
    def summary(self) -> dict[str, object]:
        """What results.json says about the data."""
        return {"name": self.name, **self.row_counts}

    # Lightning's hooks

    def prepare_data(self) -> None:
        """Reads and tokenises once per machine; the other processes find the tokens in the cache."""
        predicting = self.trainer is not None and self.trainer.predicting
        self.setup("predict" if predicting else None)

    def train_dataloader(self) -> ResumableDataLoader:
        split, trainer = self._splits["train"], self.trainer
        processes, rank = self._processes()
        sampler = TrainingBatchSampler(
            split.lengths,
            self.batch_size,
            seed=self.seed,
            batching=self.batching,
            processes=processes,
            rank=rank,
            accumulate=trainer.accumulate_grad_batches if trainer else 1,
            same_order=bool(getattr(trainer, "overfit_batches", 0)),
            row_counts=self._row_weights(split),
        )
        self._training_loader = ResumableDataLoader(split, sampler, self._collate())
        if self._position:
            self._training_loader.load_state_dict(self._position)
        self._position = {}
        return self._training_loader

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return self.trainer.lightning_module.ready_batch(batch)  # type: ignore[union-attr, operator]

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return moved(batch, device)

    # Lightning restores a loader's own state only if it is made late enough, so the data module keeps it.

    def state_dict(self) -> dict[str, int]:
        """The position in the data order, for checkpoints."""
        return self._training_loader.state_dict() if self._training_loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Keeps a position for the training loader to come."""
        self._position = state_dict

    def val_dataloader(self) -> list[EvaluationDataLoader]:
        return [self._evaluation_loader(self._splits[name]) for name in self._split_names("validation")]

    def test_dataloader(self) -> list[EvaluationDataLoader]:
        if not self.has_labelled_test:
            raise InputError(
                f"{self.name} has no labelled test split, so there is nothing to test on; "
                "use validate for the validation split, or predict to write predictions."
            )
        return [self._evaluation_loader(self._splits[name]) for name in self.test_names]

    # How

    def _split_names(self, kind: str) -> tuple[str, ...]:
        return tuple(name for name in self._splits if name.startswith(kind))

    def _row_weights(self, split: TokenizedSplit) -> Tensor | None:
        """What each row counts in the mean loss of a batch, (rows,); None: every row the same."""
        return None

    def _evaluation_loader(self, split: TokenizedSplit, sort: bool = True) -> EvaluationDataLoader:
        processes, rank = self._processes()
        sampler = EvaluationBatchSampler(split.lengths, self.evaluation_batch_size, processes, rank, sort)
        return EvaluationDataLoader(split, sampler, self._collate())

    def _processes(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)


def tell_idle(name: str, value: object, default: object, reason: str) -> None:
    """Warns of a setting that was given and that changes nothing, as is known once the data are read."""
    if value != default:
        logger.warning(f"Settings without effect in this run: data.{name} ({reason}).")


def check_positive(name: str, value: int | None) -> None:
    """Raises InputError when a setting is below 1."""
    if value is not None and value < 1:
        everything = ", or null for all" if name in ("train_rows", "validation_rows") else ""
        raise InputError(f"{name} is {value}; allowed: 1 or more{everything}. Set --data.{name}.")
