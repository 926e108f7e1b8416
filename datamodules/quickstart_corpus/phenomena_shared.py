"""What all phenomena share: minimal pairs, and a sampler that draws words from one vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple, TypeVar

from datamodules.quickstart_corpus.vocabulary import Noun, Verb, Vocabulary

Item = TypeVar("Item")

SLOT = "___"  # the place of the one word in which the two sentences of a pair differ
# Auxiliaries that do not agree with the subject; the second series fits clauses below a past-tense verb.
TRANSPARENT_AUXILIARIES = ("will", "can", "must", "should")
PAST_AUXILIARIES = ("would", "could", "might", "should")


class MinimalPair(NamedTuple):
    acceptable: str
    unacceptable: str


class GenderedPhrase(NamedTuple):
    """A singular noun phrase whose gender is certain, such as "Mary" or "the king"."""

    text: str
    feminine: bool

    @property
    def pronoun(self) -> str:
        return "she" if self.feminine else "he"

    @property
    def reflexive(self) -> str:
        return reflexive(self.feminine)


def reflexive(feminine: bool) -> str:
    return "herself" if feminine else "himself"


def be(plural: bool) -> str:
    return "are" if plural else "is"


def have(plural: bool) -> str:
    return "have" if plural else "has"


def _capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


def reordering(acceptable: str, unacceptable: str) -> MinimalPair:
    """A pair of two word orders, each written without its initial capital."""
    return MinimalPair(_capitalized(acceptable), _capitalized(unacceptable))


def contrast(frame: str, acceptable: str, unacceptable: str) -> MinimalPair:
    """A pair from one frame, such as "the lamps ___ dusty.", and two fillers of its slot."""
    return reordering(frame.replace(SLOT, acceptable), frame.replace(SLOT, unacceptable))


def contrast_by(condition: bool, frame: str, when_true: str, when_false: str) -> MinimalPair:
    """A pair whose acceptable filler depends on the condition: each filler occurs under both labels."""
    return contrast(frame, when_true, when_false) if condition else contrast(frame, when_false, when_true)


class Sampler:
    """Draws words and phrases.

    Only `Random.choice` is used: from the same seed it draws the same on each Python version from 3.11 on.
    """

    def __init__(self, vocabulary: Vocabulary, random: Random) -> None:
        self.vocabulary = vocabulary
        self._random = random

    def choose(self, items: Sequence[Item]) -> Item:
        return self._random.choice(items)

    def coin(self) -> bool:
        return self._random.choice((True, False))

    def two(self, items: Sequence[Item]) -> tuple[Item, Item]:
        """Two different items."""
        first = self.choose(items)
        return first, self.choose([item for item in items if item != first])

    def person(self, plural: bool = False) -> str:
        return self.choose(self.vocabulary.people).form(plural)

    def people(self) -> tuple[str, str]:
        """Two different singular nouns for people."""
        first, second = self.two(self.vocabulary.people)
        return first.singular, second.singular

    def object(self, plural: bool = False) -> str:
        return self.choose(self.vocabulary.objects).form(plural)

    def gendered_noun(self, feminine: bool) -> Noun:
        return self.choose(self.vocabulary.feminine_nouns if feminine else self.vocabulary.masculine_nouns)

    def gendered_phrase(self, feminine: bool) -> GenderedPhrase:
        if self.coin():
            return GenderedPhrase(f"the {self.gendered_noun(feminine).singular}", feminine)
        names = self.vocabulary.feminine_names if feminine else self.vocabulary.masculine_names
        return GenderedPhrase(self.choose(names), feminine)

    def affirmative_verb_phrase(self, verb: Verb, auxiliaries: Sequence[str] = TRANSPARENT_AUXILIARIES) -> str:
        """The verb in a tense or mood that shows no agreement, so it goes with any subject."""
        return self.choose((verb.past, f"had {verb.participle}", f"{self.choose(auxiliaries)} {verb.base}"))

    def verb_phrase(self, verb: Verb, auxiliaries: Sequence[str] = TRANSPARENT_AUXILIARIES) -> str:
        """The same, negated in two cases of five."""
        affirmative = self.affirmative_verb_phrase(verb, auxiliaries)
        negated = (f"did not {verb.base}", f"never {verb.past}")
        return self.choose((*negated, affirmative, affirmative, affirmative))


PairMaker = Callable[[Sampler], MinimalPair]
