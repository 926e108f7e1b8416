"""What a majority vote, bags of words and TF-IDF reach on a run's test split, beside the run's own figure.

python -m benchmarks.baselines runs/quickstart
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.cli import instantiate_class
from rich.console import Console
from rich.table import Table
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from sklearn.pipeline import Pipeline, make_pipeline

from common.errors import InputError
from datamodules.sources import Examples

BASELINES = {
    "majority": lambda: make_pipeline(_word_counts(1), DummyClassifier(strategy="most_frequent")),
    "bag of words": lambda: make_pipeline(_word_counts(1), LogisticRegression(max_iter=2000)),
    "bag of words and pairs of words": lambda: make_pipeline(_word_counts(2), LogisticRegression(max_iter=2000)),
    "TF-IDF": lambda: make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=2000)),
}
SCORES: dict[str, Callable[..., float]] = {
    "matthews_correlation": matthews_corrcoef,
    "accuracy": accuracy_score,
    "f1": f1_score,
}


def _word_counts(longest: int) -> CountVectorizer:
    # every token counts, single letters and punctuation too
    return CountVectorizer(lowercase=True, token_pattern=r"\S+", ngram_range=(1, longest))


def baseline_scores(train: Examples, test: Examples, metric: str = "matthews_correlation") -> dict[str, float]:
    """The metric of each baseline, trained on `train`, on `test`."""
    scores = {}
    for name, make in BASELINES.items():
        pipeline: Pipeline = make()
        pipeline.fit(_texts(train), train.labels)
        scores[name] = float(SCORES[metric](test.labels, pipeline.predict(_texts(test))))
    return scores


def _texts(examples: Examples) -> list[str]:
    if examples.pairs is None:
        return examples.texts
    return [f"{first} {second}" for first, second in zip(examples.texts, examples.pairs, strict=True)]


def examples_of_run(config: dict[str, Any]) -> dict[str, Examples]:
    """The very rows that a run was trained and tested on, as text.

    Args:
        config: the run's config.yaml.
    """
    return instantiate_class((), config["data"]).read_splits()


def compare(folder: Path) -> Table:
    """The run's test figure under those of the baselines.

    Raises:
        InputError: the run isn't finished, has no test figure, or one that a classifier of texts doesn't have.
    """
    if not (folder / "results.json").is_file():
        raise InputError(
            f"{folder} holds no results.json; allowed: the folder of a finished run, such as runs/quickstart."
        )
    results = json.loads((folder / "results.json").read_text())
    metric = results["metric"]["name"]
    if results["test"] is None or metric not in SCORES:
        raise InputError(
            f"{folder} has the metric {metric!r} and the test figures {results['test']}; allowed: a run with a "
            f"labelled test split and one of {', '.join(SCORES)}."
        )
    examples = examples_of_run(yaml.safe_load((folder / "config.yaml").read_text()))
    table = Table(title=f"test split of {results['data']['name']}", show_header=True)
    table.add_column("model")
    table.add_column(metric.replace("_", " "), justify="right")
    for name, score in baseline_scores(examples["train"], examples["test"], metric).items():
        table.add_row(f"{name} (scikit-learn)", f"{score:.4f}")
    table.add_row(f"this run ({folder})", f"{results['test'][metric]:.4f}")
    return table


def main() -> None:
    """Prints the comparison for a run folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_folder", type=Path)
    try:
        Console().print(compare(parser.parse_args().run_folder))
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
