"""What a majority vote, bags of words and TF-IDF reach on a run's test split, beside the run's own figure.

python -m benchmarks.baselines runs/quickstart
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import yaml
from lightning.pytorch.cli import instantiate_class
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from sklearn.pipeline import make_pipeline

from benchmarks.output import print_table
from common.errors import InputError
from datamodules.sources import Examples

_TOKEN = r"\S+"  # every token counts, single letters and punctuation too
_WORDS, _PAIRS = (CountVectorizer(token_pattern=_TOKEN, ngram_range=(1, longest)) for longest in (1, 2))
BASELINES = {
    "majority": make_pipeline(_WORDS, DummyClassifier(strategy="most_frequent")),
    "bag of words": make_pipeline(_WORDS, LogisticRegression(max_iter=2000)),
    "bag of words and pairs of words": make_pipeline(_PAIRS, LogisticRegression(max_iter=2000)),
    "TF-IDF": make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=2000)),
}
SCORES: dict[str, Callable[..., float]] = {
    "matthews_correlation": matthews_corrcoef,
    "accuracy": accuracy_score,
    "f1": f1_score,
}


def baseline_scores(train: Examples, test: Examples, metric: str = "matthews_correlation") -> dict[str, float]:
    """The metric of each baseline, trained on `train`, on `test`."""
    scores = {}
    for name, pipeline in BASELINES.items():
        pipeline.fit(_texts(train), train.labels)
        scores[name] = float(SCORES[metric](test.labels, pipeline.predict(_texts(test))))
    return scores


def _texts(examples: Examples) -> list[str]:
    if examples.pairs is None:
        return examples.texts
    return [f"{first} {second}" for first, second in zip(examples.texts, examples.pairs, strict=True)]


def compare(folder: Path) -> None:
    """Prints the run's test figure under those of the baselines, on the very rows that it was trained and tested on.

    `InputError`: the run isn't finished, has no test figure, or one that a classifier of texts doesn't have.
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
    config = yaml.safe_load((folder / "config.yaml").read_text())
    examples = instantiate_class((), config["data"]).read_splits()
    scores = baseline_scores(examples["train"], examples["test"], metric)
    rows = [{"model": f"{name} (scikit-learn)", "score": score} for name, score in scores.items()]
    rows.append({"model": f"this run ({folder})", "score": results["test"][metric]})
    columns = {"model": "model", "score": metric.replace("_", " ")}
    print_table(f"test split of {results['data']['name']}", rows, columns)


def main() -> None:
    """Prints the comparison for a run folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_folder", type=Path)
    try:
        compare(parser.parse_args().run_folder)
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
