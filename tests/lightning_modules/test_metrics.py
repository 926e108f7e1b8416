import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sklearn_metrics

from common.errors import InputError
from lightning_modules.metrics import AccuracyByTag, make_metric, matthews_correlation

UNEVEN = [1, 7, 3, 16, 1, 12]


def accumulated(name: str, predictions: torch.Tensor, labels: torch.Tensor, classes: int = 2) -> float:
    """The metric after batches of uneven sizes, one row among them."""
    metric = make_metric(name, classes)
    for part, truth in zip(predictions.split(UNEVEN), labels.split(UNEVEN)):
        metric.update(part, truth)
    return float(metric.compute())


def drawn(classes: int, seed: int, rows: int = sum(UNEVEN)):
    """Labels, and predictions that are right about half of the time."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (rows,), generator=generator)
    wrong = torch.randint(classes, (rows,), generator=generator)
    return torch.where(torch.rand(rows, generator=generator) < 0.5, labels, wrong), labels


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_figures_of_classes_are_those_of_scikit_learn(classes, seed):
    predictions, labels = drawn(classes, seed)
    theirs = {
        "matthews_correlation": sklearn_metrics.matthews_corrcoef,
        "accuracy": sklearn_metrics.accuracy_score,
        "f1": sklearn_metrics.f1_score,
    }
    for name, figure in theirs.items():
        if name != "f1" or classes == 2:
            ours = accumulated(name, predictions, labels, classes)
            assert math.isclose(ours, figure(labels, predictions), abs_tol=1e-6)


@pytest.mark.parametrize(("classes", "parts"), [(2, ("f1", "accuracy")), (1, ("pearson", "spearman"))])
def test_glues_average_is_the_mean_of_the_tasks_two_figures(classes, parts):
    predictions, labels = drawn(5, 3)  # five values: as scores, or cut into two classes
    if classes == 2:
        predictions, labels = predictions // 3, labels // 3
    else:
        predictions, labels = predictions.float(), labels.float()
    first, second = (accumulated(name, predictions, labels, classes) for name in parts)
    assert first != second
    assert math.isclose(accumulated("average", predictions, labels, classes), (first + second) / 2, abs_tol=1e-6)


@pytest.mark.parametrize("answer", [0, 1, 2])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_constant_predictor_has_a_matthews_correlation_of_exactly_0(classes, answer):
    # CoLA's proportions: torchmetrics' own gives 0.026 there
    labels = torch.cat([torch.zeros(322), torch.ones(721)]).long()
    predictions = torch.full_like(labels, min(answer, classes - 1))
    metric = make_metric("matthews_correlation", classes)
    metric.update(predictions, labels)
    assert float(metric.compute()) == 0.0


def test_labels_of_one_class_and_perfect_and_opposite_predictions():
    # scikit-learn's answers too; torchmetrics' own gives 1.0 when labels have one class and nothing is wrong
    ones, labels = torch.ones(40, dtype=torch.long), torch.tensor([0, 1] * 20)
    for predictions in (ones, torch.where(torch.arange(40) < 3, 0, ones)):
        assert accumulated("matthews_correlation", predictions, ones) == 0.0
    assert math.isclose(accumulated("matthews_correlation", labels, labels), 1.0, abs_tol=1e-6)
    assert math.isclose(accumulated("matthews_correlation", 1 - labels, labels), -1.0, abs_tol=1e-6)


@pytest.mark.parametrize(("a", "b", "c", "d"), [(221_113, 12_471, 33_217, 97_045), (221_113, 12_471, 123_301, 6_962)])
def test_matthews_correlation_is_exact_at_the_size_of_qqp(a, b, c, d):
    # in the second matrix products of counts cancel: float32 would be off by 0.1 %
    expected = (a * d - b * c) / math.sqrt((a + b) * (a + c) * (d + b) * (d + c))
    assert math.isclose(float(matthews_correlation(torch.tensor([[a, b], [c, d]]))), expected, rel_tol=1e-6)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_correlations_are_those_of_the_formula_with_ties_and_of_any_size(scale, offset):
    generator = torch.Generator().manual_seed(0)
    labels = (5 * torch.rand(sum(UNEVEN), generator=generator)).round(decimals=0)
    predictions = (labels + torch.randn(len(labels), generator=generator) + offset) * scale
    exact = [side.numpy().astype("longdouble") for side in (predictions, labels)]
    for name, sides in (("pearson", exact), ("spearman", [stats.rankdata(side) for side in exact])):
        assert math.isclose(accumulated(name, predictions, labels), np.corrcoef(*sides)[0, 1], abs_tol=1e-6)


@pytest.mark.parametrize("name", ["pearson", "spearman", "average"])
@pytest.mark.parametrize("value", [-7.3, 1e20, math.nan])
def test_a_correlation_with_a_constant_is_exactly_0(name, value):
    labels = 5 * torch.rand(300, generator=torch.Generator().manual_seed(0))
    constant = torch.full_like(labels, value)
    for rows in (1, 14, 300):
        metric = make_metric(name, 1)
        for part, truth in zip(constant.split(rows), labels.split(rows)):
            metric.update(part, truth)
        assert float(metric.compute()) == 0.0
        metric.reset()
        metric.update(labels, constant)
        assert float(metric.compute()) == 0.0
    assert accumulated(name, labels[: sum(UNEVEN)], labels[: sum(UNEVEN)], 1) == pytest.approx(1.0, abs=1e-6)


def test_accuracy_by_tag_counts_each_tag_alone():
    predictions, labels = drawn(2, 1)
    tags = torch.arange(len(labels)) % 3
    metric = AccuracyByTag(4)
    for part in zip(predictions.split(UNEVEN), labels.split(UNEVEN), tags.split(UNEVEN)):
        metric.update(*part)
    ours = metric.compute().tolist()
    for tag in range(3):
        expected = sklearn_metrics.accuracy_score(labels[tags == tag], predictions[tags == tag])
        assert math.isclose(ours[tag], expected, abs_tol=1e-6)
    assert math.isnan(ours[3])


def test_an_unknown_metric_is_refused():
    with pytest.raises(InputError, match=r"metric is 'acuracy'.*Did you mean 'accuracy'"):
        make_metric("acuracy", 2)
