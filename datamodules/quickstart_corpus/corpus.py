"""Assembles the quickstart corpus: minimal pairs of all phenomena, without repetition, in three splits.

The task and the labels are those of CoLA (Warstadt et al. 2019): is the sentence acceptable English? The
pairs follow the idea of BLiMP (Warstadt et al. 2020, arXiv 1912.00582). No sentence comes from either.
"""

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from common.errors import InputError
from datamodules.quickstart_corpus.expansion import Expander, grammar, vocabularies

# What every phenomenon can supply, so that all stay evenly represented. A test generates this much.
MAXIMUM_SENTENCES = {"train": 24000, "validation": 12000, "test": 12000}
_MOST_DRAWS = 10**6  # of one phenomenon, far more than the maximum needs


class Sentence(NamedTuple):
    """A sentence with its judgment: label 1 is acceptable, 0 unacceptable, as in CoLA."""

    text: str
    label: int
    phenomenon: str


def phenomena() -> tuple[str, ...]:
    """The names of the phenomena, in the order of the grammar."""
    return tuple(grammar()["phenomena"])


def generate_corpus(
    train_sentences: int = 4000, validation_sentences: int = 800, test_sentences: int = 1200, seed: int = 0
) -> dict[str, list[Sentence]]:
    """The splits "train", "validation" and "test"; the same arguments give the same sentences everywhere.

    Each split is a series of minimal pairs: the acceptable sentence at an even position, its unacceptable
    counterpart right after it. The pairs are in random order, and phenomena as evenly represented as the
    number allows.

    Raises:
        InputError: a number of sentences that is odd, below 2 or above `MAXIMUM_SENTENCES`.
    """
    counts = {"train": train_sentences, "validation": validation_sentences, "test": test_sentences}
    for split, count in counts.items():
        maximum = MAXIMUM_SENTENCES[split]
        if count > maximum:
            raise InputError(
                f"{split}_sentences is {count}, but at most {maximum} {split} sentences can be generated without "
                f"repetition. Ask for {maximum} or fewer."
            )
        if count < 2 or count % 2:
            raise InputError(
                f"{split}_sentences is {count}, but the corpus consists of pairs of sentences: an even number from 2 "
                f"to {maximum} is allowed. Ask for {max(2, count + count % 2)} instead."
            )
    return {split: _generate_split(split, count // 2, seed) for split, count in counts.items()}


def _generate_split(split: str, pairs: int, seed: int) -> list[Sentence]:
    order = Random(f"quickstart corpus, seed {seed}, {split}, order")
    # Which phenomena get one pair more when the number does not divide evenly is left to chance.
    names = list(phenomena())
    order.shuffle(names)
    seen: set[str] = set()
    generators = [_distinct_pairs(split, phenomenon, seed, seen) for phenomenon in names]
    sentence_pairs = [next(generators[position % len(generators)]) for position in range(pairs)]
    order.shuffle(sentence_pairs)
    return [sentence for pair in sentence_pairs for sentence in pair]


def _distinct_pairs(split: str, phenomenon: str, seed: int, seen: set[str]) -> Iterator[tuple[Sentence, Sentence]]:
    """Pairs of one phenomenon in which neither sentence occurred before in the split."""
    expander = Expander(vocabularies()[split], Random(f"quickstart corpus, seed {seed}, {split}, {phenomenon}"))
    for _ in range(_MOST_DRAWS):
        acceptable, unacceptable = expander.pair(phenomenon)
        if seen.isdisjoint((acceptable, unacceptable)):
            seen.update((acceptable, unacceptable))
            yield Sentence(acceptable, 1, phenomenon), Sentence(unacceptable, 0, phenomenon)
