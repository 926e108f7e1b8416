"""Metrics that are exact over a whole split, whatever the batches and processes."""

from collections.abc import Callable

import torch
from scipy.stats import pearsonr, spearmanr
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryF1Score, MulticlassAccuracy, MulticlassConfusionMatrix
from torchmetrics.utilities import dim_zero_cat

from common.errors import InputError, check_one_of

EPSILON = torch.finfo(torch.float32).eps
METRICS = ("matthews_correlation", "accuracy", "f1", "pearson", "spearman", "average")


def matthews_correlation(confusion: Tensor) -> Tensor:
    """Matthews correlation of a confusion matrix (classes, classes), rows true, columns predicted.

    Gorodkin's R_K for any number of classes; 0 where it is undefined (one class only, or constant predictions),
    as scikit-learn has it. torchmetrics' own gives other values there.
    """
    confusion = confusion.double() if confusion.device.type != "mps" else confusion.float()
    true, predicted, total = confusion.sum(1), confusion.sum(0), confusion.sum()
    covariance = confusion.trace() * total - true @ predicted
    spread = (total**2 - predicted @ predicted) * (total**2 - true @ true)
    return torch.where(spread > 0, covariance / spread.clamp_min(1e-30).sqrt(), torch.zeros_like(covariance)).float()


class MatthewsCorrelation(MulticlassConfusionMatrix):
    """`matthews_correlation` of the confusion matrix summed over all batches and processes."""

    is_differentiable = False
    higher_is_better = True

    def compute(self) -> Tensor:
        return matthews_correlation(super().compute())


class Correlation(Metric):
    """Pearson's correlation, or Spearman's, of all rows of all batches and processes together, in float64.

    0 where it is undefined, as Matthews': one side is constant but for the last digit of float32, or isn't finite.
    torchmetrics' own are made of running float32 figures: a constant's is noise there, and 1e20 overflows.
    """

    is_differentiable = False
    higher_is_better = True

    def __init__(self, of_ranks: bool) -> None:
        super().__init__()
        self.of_ranks = of_ranks
        self.predictions: list[Tensor]
        self.labels: list[Tensor]
        self.add_state("predictions", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Adds rows: predictions and labels, each (rows,)."""
        self.predictions.append(predictions.float())
        self.labels.append(labels.float())

    def compute(self) -> Tensor:
        sides = [dim_zero_cat(side).cpu().double() for side in (self.predictions, self.labels)]
        if not all(side.max() - side.min() > EPSILON * side.abs().max() for side in sides):  # also if there is a NaN
            return torch.zeros((), device=self.device)
        correlation = spearmanr if self.of_ranks else pearsonr
        return torch.tensor(correlation(*(side.numpy() for side in sides)).statistic, device=self.device).float()


class AccuracyByTag(Metric):
    """Accuracy (tags,) of each group of rows, such as the linguistic phenomena of a corpus."""

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.correct: Tensor
        self.rows: Tensor
        self.add_state("correct", torch.zeros(tags), dist_reduce_fx="sum")
        self.add_state("rows", torch.zeros(tags), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, labels: Tensor, tags: Tensor) -> None:
        """Adds rows: predicted classes, labels and tags, each (rows,)."""
        self.correct.index_add_(0, tags, (predictions == labels).float())
        self.rows.index_add_(0, tags, torch.ones_like(tags, dtype=torch.float))

    def compute(self) -> Tensor:
        """Accuracy (tags,); NaN for a tag without rows."""
        return self.correct / self.rows


class TokenLoss(Metric):
    """Mean loss of all scored tokens of a split: sums over batches and processes, divided once."""

    is_differentiable = False
    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        self.loss: Tensor
        self.tokens: Tensor
        exact = torch.float32 if torch.backends.mps.is_available() else torch.float64  # Apple's devices have no float64
        self.add_state("loss", torch.zeros((), dtype=exact), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, row_losses: Tensor, scored: Tensor) -> None:
        """Adds rows: the sum of each one's token losses, and the number of its scored tokens, each (rows,)."""
        self.loss += row_losses.to(self.loss.dtype).sum()
        self.tokens += scored.sum()

    def compute(self) -> Tensor:
        """Mean loss in nats per token; its exponential is the perplexity.

        `InputError`: no token was scored.
        """
        if not self.tokens:
            raise InputError(
                "perplexity over zero tokens: no row of the split was evaluated; allowed: at least one. Check "
                "trainer.limit_val_batches and trainer.limit_test_batches."
            )
        return self.loss / self.tokens


def make_metric(name: str, classes: int) -> Metric:
    """A metric by name, for predicted classes (or values, in regression) against labels, each (rows,).

    `average` is GLUE's figure of a task with two: the mean of F1 and accuracy, or of both correlations.
    """
    if name == "average":
        first, second = ("pearson", "spearman") if classes == 1 else ("f1", "accuracy")
        return 0.5 * (make_metric(first, classes) + make_metric(second, classes))
    made: dict[str, Callable[[], Metric]] = {
        "matthews_correlation": lambda: MatthewsCorrelation(classes),
        "accuracy": lambda: MulticlassAccuracy(classes, average="micro"),
        "f1": BinaryF1Score,
        "pearson": lambda: Correlation(of_ranks=False),
        "spearman": lambda: Correlation(of_ranks=True),
    }
    check_one_of("metric", name, METRICS)
    return made[name]()
