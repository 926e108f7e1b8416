"""How a metric reads: which direction is better, and how it is printed."""

from typing import Any

_LOWER_IS_BETTER = {"loss", "perplexity", "bits_per_byte", "mean_squared_error", "mean_absolute_error"}
_FRACTIONS = {"matthews_correlation", "accuracy", "f1", "pearson", "spearman"}


def higher_is_better(metric: dict[str, Any]) -> bool:
    """Whether more of a results.json's metric is better: as it says itself, else by its name."""
    said = metric.get("higher_is_better")
    return bool(said) if said is not None else metric["name"] not in _LOWER_IS_BETTER


def scale(name: str) -> float:
    """What a value is multiplied with for print: 100 for fractions, as papers do."""
    return 100.0 if name in _FRACTIONS else 1.0


def title(name: str) -> str:
    """The metric's name in words, with × 100 where values are printed so."""
    return name.replace("_", " ") + (" × 100" if scale(name) == 100 else "")
