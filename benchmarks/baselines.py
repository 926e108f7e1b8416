"""What a majority vote and a bag of words reach on the quickstart's test split, beside a run's own figure.

python -m benchmarks.baselines runs/quickstart
"""

import argparse
import json
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import matthews_corrcoef
from sklearn.pipeline import Pipeline, make_pipeline

from datamodules.quickstart import QuickstartDataModule
from datamodules.sources import Examples

BASELINES = {
    "majority": lambda: make_pipeline(_word_counts(1), DummyClassifier(strategy="most_frequent")),
    "bag of words": lambda: make_pipeline(_word_counts(1), LogisticRegression(max_iter=2000)),
    "bag of words and pairs of words": lambda: make_pipeline(_word_counts(2), LogisticRegression(max_iter=2000)),
}


def _word_counts(longest: int) -> CountVectorizer:
    # every token counts, single letters and punctuation too
    return CountVectorizer(lowercase=True, token_pattern=r"\S+", ngram_range=(1, longest))


def baseline_scores(train: Examples, test: Examples) -> dict[str, float]:
    """Matthews correlation of each baseline, trained on `train`, on `test`."""
    scores = {}
    for name, make in BASELINES.items():
        pipeline: Pipeline = make()
        pipeline.fit(train.texts, train.labels)
        scores[name] = float(matthews_corrcoef(test.labels, pipeline.predict(test.texts)))
    return scores


def main() -> None:
    """Reads a run of the quickstart and prints its test figure under those of the baselines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_folder", type=Path)
    folder: Path = parser.parse_args().run_folder
    settings = yaml.safe_load((folder / "config.yaml").read_text())["data"]["init_args"]
    sizes = {name: value for name, value in settings.items() if name.endswith("_sentences") or name == "corpus_seed"}
    examples = QuickstartDataModule(**sizes).load_examples()
    table = Table(title="test split of the quickstart corpus", show_header=True)
    table.add_column("model")
    table.add_column("Matthews correlation", justify="right")
    for name, score in baseline_scores(examples["train"], examples["test"]).items():
        table.add_row(f"{name} (scikit-learn)", f"{score:.4f}")
    test = json.loads((folder / "results.json").read_text())["test"]
    table.add_row(f"this run ({folder})", f"{test['matthews_correlation']:.4f}")
    Console().print(table)


if __name__ == "__main__":
    main()
