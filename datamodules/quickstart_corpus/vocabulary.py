"""The types of the words in the quickstart corpus.

Each inflection is written out in full, so a reader can check it without running an inflection rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Noun:
    """A count noun. Mass nouns and names are plain strings, since they have one form."""

    singular: str
    plural: str

    def form(self, plural: bool) -> str:
        return self.plural if plural else self.singular


@dataclass(frozen=True)
class Verb:
    base: str
    third_person: str
    past: str
    participle: str
    gerund: str

    def present(self, plural: bool) -> str:
        return self.base if plural else self.third_person


@dataclass(frozen=True)
class IrregularVerb:
    """A verb whose past tense and participle differ, with objects that make sense with it."""

    verb: Verb
    objects: tuple[Noun, ...]


@dataclass(frozen=True)
class Vocabulary:
    """The content words of one split."""

    masculine_names: tuple[str, ...]
    feminine_names: tuple[str, ...]
    masculine_nouns: tuple[Noun, ...]
    feminine_nouns: tuple[Noun, ...]
    people: tuple[Noun, ...]
    objects: tuple[Noun, ...]
    foods: tuple[Noun, ...]
    mass_nouns: tuple[str, ...]
    messages: tuple[Noun, ...]
    person_adjectives: tuple[str, ...]
    object_adjectives: tuple[str, ...]
    manner_adverbs: tuple[str, ...]
    object_verbs: tuple[Verb, ...]  # need an object, which may be any of `objects`
    person_verbs: tuple[Verb, ...]  # need an object, which may be a person or a reflexive
    attitude_verbs: tuple[Verb, ...]  # states, natural in the present tense: "admires"
    intransitive_verbs: tuple[Verb, ...]  # never take an object
    irregular_verbs: tuple[IrregularVerb, ...]
    food_verbs: tuple[Verb, ...]
    knowledge_verbs: tuple[Verb, ...]  # take "that" clauses and questions: "knew that", "knew what"
    statement_verbs: tuple[Verb, ...]  # take "that" clauses: "thought that"
    giving_verbs: tuple[Verb, ...]  # "gave the nurse the lamp"
    delivering_verbs: tuple[Verb, ...]  # "donated the lamp to the nurse" only
    telling_verbs: tuple[Verb, ...]  # "told the nurse the story"
    explaining_verbs: tuple[Verb, ...]  # "explained the story to the nurse" only


def nouns(text: str) -> tuple[Noun, ...]:
    return tuple(Noun(*entry.split()) for entry in text.split(","))


def verbs(text: str) -> tuple[Verb, ...]:
    return tuple(Verb(*entry.split()) for entry in text.split(","))


def irregular_verb(forms: str, objects: tuple[Noun, ...]) -> IrregularVerb:
    return IrregularVerb(Verb(*forms.split()), objects)


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def inflected_forms(entry: str | Noun | Verb | IrregularVerb) -> Iterator[tuple[str, str]]:
    if isinstance(entry, str):
        yield entry, entry
    elif isinstance(entry, Noun):
        yield from ((form, entry.singular) for form in (entry.singular, entry.plural))
    elif isinstance(entry, Verb):
        forms = (entry.base, entry.third_person, entry.past, entry.participle, entry.gerund)
        yield from ((form, entry.base) for form in forms)
    else:
        yield from inflected_forms(entry.verb)
        for noun in entry.objects:
            yield from inflected_forms(noun)


def inflection_table(vocabulary: Vocabulary) -> dict[str, str]:
    """Each lower-cased inflected form of the vocabulary's content words, with its lemma."""
    return {
        form.lower(): lemma.lower()
        for field in fields(vocabulary)
        for entry in getattr(vocabulary, field.name)
        for form, lemma in inflected_forms(entry)
    }
