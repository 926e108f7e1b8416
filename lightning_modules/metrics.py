"""Metrics that are exact over a whole split, whatever the batches and processes."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryF1Score, MulticlassAccuracy, MulticlassConfusionMatrix
from torchmetrics.regression import PearsonCorrCoef, SpearmanCorrCoef

from common.errors import InputError, one_of

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

        Raises:
            InputError: no token was scored.
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
    match name:
        case "matthews_correlation":
            return MatthewsCorrelation(classes)
        case "accuracy":
            return MulticlassAccuracy(classes, average="micro")
        case "f1":
            return BinaryF1Score()
        case "pearson":
            return PearsonCorrCoef()
        case "spearman":
            return SpearmanCorrCoef()
        case "average":
            first, second = ("pearson", "spearman") if classes == 1 else ("f1", "accuracy")
            return 0.5 * (make_metric(first, classes) + make_metric(second, classes))
        case _:
            raise one_of("metric", name, METRICS)
