"""Runs the rules of grammar.yaml over the words of lexicon.yaml."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import yaml

SLOT = "___"  # the place of the one word in which the two sentences of a pair differ
_FORMS = {1: ("word",), 2: ("singular", "plural"), 5: ("base", "third_person", "past", "participle", "gerund")}
_WHOLE_WORD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Word:
    """A word with its forms, which templates name: `{verb:past}`.

    Attributes:
        forms: each form by its name, the first one is the lemma; a verb has another one for each number of its subject,
            and words of the lexicon have the name of their `list`.
        objects: the nouns that make sense with a verb, where the lexicon says so.
    """

    forms: Mapping[str, str]
    objects: Sequence["Word"] = ()

    def __format__(self, form: str) -> str:
        return self.forms[form or "word"]


Value = Word | str  # what a name stands for in a rule
Scope = dict[str, Value]


@cache
def grammar() -> dict[str, Any]:
    """The rules, as they stand in grammar.yaml."""
    return _load("grammar.yaml")


@cache
def vocabularies() -> dict[str, dict[str, list[Word]]]:
    """The words of each split by list: those of the lexicon, and the grammar's own, which all splits share."""
    shared = {
        name: [Word({"word": entry} if isinstance(entry, str) else entry) for entry in entries]
        for name, entries in grammar()["lists"].items()
    }
    return {split: shared | _vocabulary(lists) for split, lists in _load("lexicon.yaml").items()}


def _load(name: str) -> dict[str, Any]:
    return yaml.safe_load((Path(__file__).parent / name).read_text(encoding="utf-8"))


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
    for entry in entries.split(","):
        written = entry.split()
        forms = dict(zip(_FORMS[len(written)], written, strict=True)) | {"list": list_name}
        if "base" in forms:
            forms |= {"plural": forms["base"], "singular": forms["third_person"]}
        words.append(Word(forms))
    return words


class Expander:
    """Makes pairs of sentences from one vocabulary.

    Only `Random.choice` is used: from the same seed it draws the same on each Python version from 3.11 on.
    """

    def __init__(self, vocabulary: Mapping[str, Sequence[Word]], random: Random) -> None:
        self._vocabulary = vocabulary
        self._random = random
        self._tables: Scope = {name: Word(forms) for name, forms in grammar()["tables"].items()}

    def pair(self, phenomenon: str) -> tuple[str, str]:
        """An acceptable sentence and its unacceptable counterpart."""
        scope: Scope = {**self._tables, "series": "auxiliaries"}
        self._run(grammar()["phenomena"][phenomenon], scope)
        if "frame" in scope:
            first, second = (str(scope["frame"]).replace(SLOT, f"{scope[filler]}") for filler in ("good", "bad"))
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
        kind, rest = _parsed(rule)
        if kind == "any":
            return self._random.choice(self._candidates(rest.format_map(scope), scope))
        if kind == "use":
            return self._macro(rest, dict(scope))
        return scope[rest] if kind == "word" else rest.format_map(scope)

    def _macro(self, name: str, scope: Scope) -> Value:
        self._run(grammar()["macros"][name], scope)
        return scope["text"]

    def _candidates(self, lists: str, scope: Scope) -> list[Word]:
        """The words of `people`, `people but other`, `object_verbs or intransitive_verbs`, or `objects of verb`."""
        names, _, left_out = lists.partition(" but ")
        if names.startswith("objects of "):
            verb = scope[names.removeprefix("objects of ")]
            return list(verb.objects) if isinstance(verb, Word) else []
        words = [word for name in names.split(" or ") for word in self._vocabulary[name]]
        return [word for word in words if word is not scope.get(left_out)] if left_out else words


@cache
def _parsed(rule: str) -> tuple[str, str]:
    """What a rule asks for: a draw ("any"), a macro ("use"), a word as it is, or a template to fill in."""
    kind, _, rest = rule.partition(" ")
    if kind in ("any", "use"):
        return kind, rest
    whole = _WHOLE_WORD.fullmatch(rule)
    return ("word", whole[1]) if whole else ("template", rule)


def _drawn(cases: Mapping[str, Any], scope: Scope) -> str:
    """What was drawn for the name that `by` gives, such as `number` or `verb:list`."""
    return f"{{{cases['by']}}}".format_map(scope)


def _case(cases: Mapping[str, Any], scope: Scope) -> Any:
    drawn = _drawn(cases, scope)
    return cases[drawn if drawn in cases else "else"]
