import random

from benchmarks.baselines import baseline_scores
from datamodules.sources import Examples


def examples(rows: int, seed: int, cue: bool) -> Examples:
    """Random words; with a cue, one word gives the label away."""
    draw = random.Random(seed)
    labels = [row % 2 for row in range(rows)]
    texts = [" ".join(draw.choices("abcdefgh", k=6)) + (" yes" if cue and label else "") for label in labels]
    return Examples(texts=texts, pairs=None, labels=labels, tags=None)


def test_a_word_that_gives_the_label_away_is_found_and_noise_is_not():
    with_cue = baseline_scores(examples(400, 0, True), examples(200, 1, True))
    assert with_cue["majority"] == 0
    assert with_cue["bag of words"] > 0.95
    without = baseline_scores(examples(400, 0, False), examples(200, 1, False))
    assert abs(without["bag of words"]) < 0.2
