"""How a metric is printed."""

_FRACTIONS = {"matthews_correlation", "accuracy", "f1", "pearson", "spearman", "average"}


def scale(name: str) -> float:
    """What a value is multiplied with for print: 100 for fractions, as papers do."""
    return 100.0 if name in _FRACTIONS else 1.0


def title(name: str) -> str:
    """The metric's name in words, with × 100 where values are printed so."""
    return name.replace("_", " ") + (" × 100" if scale(name) == 100 else "")
