import json
import random

import pytest
import yaml
from lightning.pytorch.cli import instantiate_class
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from benchmarks.baselines import baseline_scores, compare
from common.errors import InputError
from datamodules.sources import Examples
from tests import tiny


def examples(rows: int, seed: int, cue: bool) -> Examples:
    """Random words; with a cue, one word gives the label away."""
    draw = random.Random(seed)
    labels = [row % 2 for row in range(rows)]
    texts = [" ".join(draw.choices("abcdefgh", k=6)) + (" yes" if cue and label else " or") for label in labels]
    return Examples(texts=texts, pairs=None, labels=labels, tags=None)


def test_a_word_that_gives_the_label_away_is_found_and_noise_is_not():
    with_cue = baseline_scores(examples(400, 0, True), examples(200, 1, True))
    assert with_cue["majority"] == 0
    assert with_cue["bag of words"] > 0.95
    assert with_cue["TF-IDF"] > 0.95
    without = baseline_scores(examples(400, 0, False), examples(200, 1, False))
    assert abs(without["bag of words"]) < 0.2


def test_a_run_on_ag_news_is_compared_on_its_own_rows_and_metric(tmp_path, capsys):
    data_dir = str(tiny.save_ag_news(tmp_path / "ag_news", train=60, test=20))
    settings = {"data_dir": data_dir, "validation_rows": 12, "train_rows": 40}
    config = {"data": {"class_path": "datamodules.AGNewsDataModule", "init_args": settings}}
    results = {"data": {"name": "ag_news"}, "metric": {"name": "accuracy"}, "test": {"accuracy": 0.125}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "results.json").write_text(json.dumps(results))
    rows = instantiate_class((), config["data"]).read_splits()
    assert (len(rows["train"]), len(rows["test"])) == (40, 20)
    words = TfidfVectorizer().fit(rows["train"].texts)
    model = LogisticRegression(max_iter=2000).fit(words.transform(rows["train"].texts), rows["train"].labels)
    expected = model.score(words.transform(rows["test"].texts), rows["test"].labels)
    compare(tmp_path)
    shown = capsys.readouterr().out.splitlines()
    assert f"{expected:.4g}" in next(line for line in shown if "TF-IDF" in line)
    assert any("0.125 " in line for line in shown)
    (tmp_path / "results.json").write_text(json.dumps(results | {"test": None}))
    with pytest.raises(InputError, match="allowed: a run with a labelled test split"):
        compare(tmp_path)
    with pytest.raises(InputError, match=r"ag_news holds no results.json; allowed: the folder of a finished run"):
        compare(tmp_path / "ag_news")
