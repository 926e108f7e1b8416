"""The quickstart corpus: minimal pairs of all phenomena, without repetition, in three splits.

The task and the labels are those of CoLA (Warstadt et al. 2019): is the sentence acceptable English? The pairs follow
the idea of BLiMP (Warstadt et al. 2020, arXiv 1912.00582). No sentence comes from either. The rules of grammar.yaml are
run over the words of lexicon.yaml.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import yaml

from common.errors import InputError

# What every phenomenon can supply, so that all stay evenly represented. A test generates this much.
MAXIMUM_SENTENCES = {"train": 24000, "validation": 12000, "test": 12000}
_MOST_DRAWS = 10**6  # of one phenomenon, far more than the maximum needs
_SLOT = "___"  # the place of the one word in which the two sentences of a pair differ
_FORMS = {1: ("word",), 2: ("singular", "plural"), 5: ("base", "third_person", "past", "participle", "gerund")}
_WHOLE_WORD = re.compile(r"\{(\w+)\}")


class Sentence(NamedTuple):
    """A sentence with its judgment: label 1 is acceptable, 0 unacceptable, as in CoLA."""

    text: str
    label: int
    phenomenon: str


@dataclass(frozen=True)
class Word:
    """A word with its forms, which templates name: `{verb:past}`."""

    # each form by its name, the first one is the lemma; a verb has another one for each number of its subject, and
    # words of the lexicon have the name of their `list`
    forms: Mapping[str, str]
    objects: Sequence["Word"] = ()  # the nouns that make sense with a verb, where the lexicon says so

    def __format__(self, form: str) -> str:
        return self.forms[form or "word"]


Value = Word | str  # what a name stands for in a rule
Scope = dict[str, Value]


def phenomena() -> tuple[str, ...]:
    """The names of the phenomena, in the order of the grammar."""
    return tuple(_grammar()["phenomena"])


def generate_corpus(
    train_sentences: int = 4000, validation_sentences: int = 800, test_sentences: int = 1200, seed: int = 0
) -> dict[str, list[Sentence]]:
    """The splits "train", "validation" and "test"; the same arguments give the same sentences everywhere.

    Each split is a series of minimal pairs: the acceptable sentence at an even position, its unacceptable counterpart
    right after it. Pairs are in random order, and phenomena as evenly represented as the number allows. `InputError`: a
    number of sentences that is odd, below 2 or above `MAXIMUM_SENTENCES`.
    """
    counts = {"train": train_sentences, "validation": validation_sentences, "test": test_sentences}
    for split, count in counts.items():
        maximum = MAXIMUM_SENTENCES[split]
        if not 2 <= count <= maximum or count % 2:
            raise InputError(
                f"{split}_sentences is {count}, but the corpus consists of pairs of sentences without repetition; "
                f"allowed: even numbers from 2 to {maximum}. Ask for {min(max(2, count + count % 2), maximum)} instead."
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
    expander = _Expander(vocabularies()[split], Random(f"quickstart corpus, seed {seed}, {split}, {phenomenon}"))
    for _ in range(_MOST_DRAWS):
        acceptable, unacceptable = expander.pair(phenomenon)
        if seen.isdisjoint((acceptable, unacceptable)):
            seen.update((acceptable, unacceptable))
            yield Sentence(acceptable, 1, phenomenon), Sentence(unacceptable, 0, phenomenon)


@cache
def _grammar() -> dict[str, Any]:
    return _load("grammar.yaml")


def _load(name: str) -> dict[str, Any]:
    return yaml.safe_load((Path(__file__).parent / name).read_text(encoding="utf-8"))


@cache
def vocabularies() -> dict[str, dict[str, list[Word]]]:
    """The words of each split by list: those of the lexicon, and the grammar's own, which all splits share."""
    shared = {
        name: [Word({"word": entry} if isinstance(entry, str) else entry) for entry in entries]
        for name, entries in _grammar()["lists"].items()
    }
    return {split: shared | _vocabulary(lists) for split, lists in _load("lexicon.yaml").items()}


def _vocabulary(lists: dict[str, Any]) -> dict[str, list[Word]]:
    irregular = lists.pop("irregular_verbs")
    words = {name: _words(entries, name) for name, entries in lists.items()}
    words["irregular_verbs"] = [
        Word(verb.forms, words.get(objects) or _words(objects, "objects"))
        for forms, objects in irregular.items()
        for verb in _words(forms, "irregular_verbs")
    ]
    return words


def _words(entries: str, list_name: str) -> list[Word]:
    words = []
    for written in map(str.split, entries.split(",")):
        forms = dict(zip(_FORMS[len(written)], written, strict=True)) | {"list": list_name}
        if "base" in forms:
            forms |= {"plural": forms["base"], "singular": forms["third_person"]}
        words.append(Word(forms))
    return words


class _Expander:
    """Makes pairs of sentences from one vocabulary; how rules are written stands above grammar.yaml.

    Only `Random.choice` is used: from the same seed it draws the same on each Python version from 3.11 on.
    """

    def __init__(self, vocabulary: Mapping[str, Sequence[Word]], random: Random) -> None:
        self._vocabulary = vocabulary
        self._random = random
        self._tables: Scope = {name: Word(forms) for name, forms in _grammar()["tables"].items()}

    def pair(self, phenomenon: str) -> tuple[str, str]:
        """An acceptable sentence and its unacceptable counterpart."""
        scope: Scope = {**self._tables, "series": "auxiliaries"}
        self._run(_grammar()["phenomena"][phenomenon], scope)
        if "frame" in scope:
            first, second = (str(scope["frame"]).replace(_SLOT, f"{scope[filler]}") for filler in ("good", "bad"))
        else:
            first, second = f"{scope['acceptable']}", f"{scope['unacceptable']}"
        return first[0].upper() + first[1:], second[0].upper() + second[1:]

    def _run(self, steps: Sequence[dict[str, Any]], scope: Scope) -> None:
        for step in steps:
            if "by" in step:
                self._run(_case(step, scope), scope)
                continue
            ((names, rule),) = step.items()
            if names == "contrast":
                scope["good"] = self._value(_case(rule, scope), scope)
                (other,) = (value for case, value in rule.items() if case not in ("by", _drawn(rule, scope)))
                scope["bad"] = self._value(other, scope)
            elif " / " in names:
                scope.update(zip(names.split(" / "), f"{self._value(rule, scope)}".split(" / "), strict=True))
            else:
                scope[names] = self._value(rule, scope)

    def _value(self, rule: Any, scope: Scope) -> Value:
        if isinstance(rule, list):
            return self._value(self._random.choice(rule), scope)
        if isinstance(rule, dict) and "use" in rule:
            words = {name: self._value(given, scope) for name, given in rule.items() if name != "use"}
            return self._macro(rule["use"], scope | words)
        if isinstance(rule, dict):
            return self._value(_case(rule, scope), scope)
        kind, _, rest = rule.partition(" ")
        if kind == "any":
            return self._random.choice(self._candidates(rest.format_map(scope), scope))
        if kind == "use":
            return self._macro(rest, dict(scope))
        whole = _WHOLE_WORD.fullmatch(rule)
        return scope[whole[1]] if whole else rule.format_map(scope)

    def _macro(self, name: str, scope: Scope) -> Value:
        self._run(_grammar()["macros"][name], scope)
        return scope["text"]

    def _candidates(self, lists: str, scope: Scope) -> list[Word]:
        """The words of `people`, `people but other`, `object_verbs or intransitive_verbs`, or `objects of verb`."""
        names, _, left_out = lists.partition(" but ")
        if names.startswith("objects of "):
            verb = scope[names.removeprefix("objects of ")]
            return list(verb.objects) if isinstance(verb, Word) else []
        words = [word for name in names.split(" or ") for word in self._vocabulary[name]]
        return [word for word in words if word is not scope.get(left_out)] if left_out else words


def _drawn(cases: Mapping[str, Any], scope: Scope) -> str:
    """What was drawn for the name that `by` gives, such as `number` or `verb:list`."""
    return f"{{{cases['by']}}}".format_map(scope)


def _case(cases: Mapping[str, Any], scope: Scope) -> Any:
    drawn = _drawn(cases, scope)
    return cases[drawn if drawn in cases else "else"]
