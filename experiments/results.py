"""results.json: what a run came to. One definition, by which it is written, read back and checked."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.files import write_json
from experiments.typed_json import Part

Figure = float | None  # null in the file: a number that isn't finite, or one that wasn't measured


@dataclass(frozen=True, kw_only=True)
class DataCounts(Part):
    """The data's name and the rows of each split; data modules may tell more, which `other` keeps."""

    name: str
    train_rows: int
    validation_rows: int
    test_rows: int


@dataclass(frozen=True, kw_only=True)
class Metric(Part):
    """The validation metric that chooses the best epoch; None where no validation gave a number."""

    name: str
    higher_is_better: bool
    best: Figure
    best_epoch: int | None
    last: Figure


@dataclass(frozen=True, kw_only=True)
class ValidationCurve(Part):
    """The validation metric by epoch; as paused.json, what a sweep's early exit decides by."""

    values: list[Figure]
    higher_is_better: bool
    validation_rows: int

    def scores(self) -> NDArray[np.float64]:
        """Higher is better, and a difference is a share: of a perplexity the logarithm. NaN where nothing is known."""
        found = np.array(self.values, dtype=float)
        return found if self.higher_is_better else -np.log(found)


@dataclass(frozen=True, kw_only=True)
class TrainableParameters(Part):
    """Numbers of trained values; a backbone that is trained counts as adapter."""

    head: int = 0
    adapter: int = 0
    allocation: int = 0
    total: int


@dataclass(frozen=True, kw_only=True)
class Budget(Part):
    """Values in the adapted layers' cores (or factors): asked for, and taken up by the discrete ranks."""

    requested: float
    used: float


@dataclass(frozen=True, kw_only=True)
class RankFigures(Part):
    """The discrete ranks of one moment."""

    budget: Budget | None  # None without learnable ranks
    average_rank: float | None  # mean over the layers; None without an adapter
    # the one rank that would use as much in every layer; None in files of early versions, too
    equal_area_rank: float | None


@dataclass(frozen=True, kw_only=True)
class MeasuredNorms(Part):
    """Norms of the updates (of the weights' change in full fine-tuning), also relative to the frozen weights."""

    LEFT_OUT = ("layers", "relative_layers")  # a file of trials has no figures by layer

    total: Figure
    relative: Figure = None
    layers: dict[str, Figure] | None = None
    relative_layers: dict[str, Figure] | None = None


@dataclass(frozen=True, kw_only=True)
class NormsOverTime(Part):
    """The norms when training began (None in full fine-tuning: nothing has changed yet) and when it ended."""

    initial: MeasuredNorms | None
    final: MeasuredNorms | None


@dataclass(frozen=True, kw_only=True)
class FactorCost(Part):
    """What directions cost that were taken from the task's gradient: rows gone through and seconds, before training."""

    rule: str
    rows: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Throughput(Part):
    """Speed of training alone, evaluation and checkpoints left out."""

    LEFT_OUT = ("train_rows",)

    train_samples_per_second: float
    train_tokens_per_second: float
    train_rows: int | None = None


@dataclass(frozen=True, kw_only=True)
class RunResults(Part):
    """What a run came to; metrics are fractions, epochs are counted from 0.

    Parts with a default are missing from files of some versions, or from files of trials.

    Attributes:
        width: the backbone's hidden size.
        adapter: its name, "full fine-tuning" without one.
        validations: the figures of each epoch by their tags, with "epoch".
        test: the figures of the best epoch on the test split; None where it has no labels.
        test_last: the same after the last epoch; None in files of earlier versions, too.
        train_losses: the mean of each epoch; None in some files of trials.
        val_losses: of each epoch, None for one without validation; None as a whole in some files of trials.
        budget: with `average_rank` and `equal_area_rank` the ranks when training ended: see `RankFigures`.
        at_best_epoch: the ranks of best.ckpt, to which validation and test figures belong.
        rank_curve: figures by rank of nested training.
        factors: None where no gradient was asked for.
        wall_seconds: the time between an interruption and its resumption left out.
        status: finished, collapsed, diverged or budget_missed.
        other: parts that this version doesn't know.
    """

    LEFT_OUT = ("run_name", "throughput", "device", "device_name", "width")
    ADVICE = "Move this run elsewhere, or delete the file and run it again."

    run_name: str | None = None
    seed: int | None
    data: DataCounts
    backbone: str
    width: int | None = None
    adapter: str
    metric: Metric
    validations: list[dict[str, Figure]] = field(default_factory=list)
    test: dict[str, Figure | dict[str, Figure]] | None = None
    test_last: dict[str, Figure | dict[str, Figure]] | None = None
    train_losses: list[Figure] | None
    val_losses: list[Figure] | None
    best_val_loss: Figure
    trainable_parameters: TrainableParameters
    budget: Budget | None = None
    average_rank: float | None
    equal_area_rank: float | None = None
    at_best_epoch: RankFigures | None = None
    update_norms: NormsOverTime | None = None
    rank_curve: list[dict[str, Figure]] | None = None
    factors: FactorCost | None = None
    throughput: Throughput | None = None
    wall_seconds: float
    peak_memory_bytes: int | None
    device: str | None = None
    device_name: str | None = None
    processes: int = 1
    status: str
    skipped_updates: int = 0
    collapsed_epochs: list[int] = field(default_factory=list)
    versions: dict[str, str]

    def write(self, path: Path) -> None:
        write_json(path, self.as_plain())

    @property
    def ranks(self) -> RankFigures:
        """The ranks when training ended."""
        return RankFigures(budget=self.budget, average_rank=self.average_rank, equal_area_rank=self.equal_area_rank)

    @property
    def curve(self) -> ValidationCurve:
        """The validation metric by epoch."""
        tags = [tag for entry in self.validations for tag in entry if tag.rpartition("/")[2] == self.metric.name]
        return ValidationCurve(
            values=[entry.get(tags[0]) for entry in self.validations] if tags else [],
            higher_is_better=self.metric.higher_is_better,
            validation_rows=self.data.validation_rows,
        )

    @property
    def test_figures(self) -> dict[str, float]:
        """The figures of the whole test split, those that are numbers; empty without a test."""
        return _numbers(self.test)

    @property
    def last_test_figures(self) -> dict[str, float]:
        """The same after the last epoch; empty where nobody measured it, as in files of earlier versions."""
        if self.test_last is None and self.val_losses and self.metric.best_epoch == len(self.val_losses) - 1:
            return self.test_figures
        return _numbers(self.test_last)

    @property
    def accuracy_by_tag(self) -> dict[str, Figure]:
        """Accuracy on the test rows of each tag; empty where they have none."""
        found = (self.test or {}).get("accuracy_by_tag")
        return found if isinstance(found, dict) else {}


def _numbers(figures: dict[str, Figure | dict[str, Figure]] | None) -> dict[str, float]:
    return {name: value for name, value in (figures or {}).items() if isinstance(value, int | float)}
