"""Reflexives, reciprocals and the case of pronouns.

The families of phenomena follow BLiMP (Warstadt et al. 2020, arXiv 1912.00582); the sentences are our own.
Antecedents are names and nouns whose gender is certain; a noun such as "doctor" would allow either reflexive.
"""

from __future__ import annotations

from datamodules.quickstart_corpus.phenomena_shared import (
    PAST_AUXILIARIES,
    SLOT,
    MinimalPair,
    PairMaker,
    Sampler,
    contrast,
    contrast_by,
    reflexive,
)

_CASES = (("he", "him"), ("she", "her"), ("they", "them"), ("we", "us"), ("I", "me"))


def _gender(sampler: Sampler) -> MinimalPair:
    feminine = sampler.coin()
    subject = sampler.gendered_phrase(feminine)
    verb_phrase = sampler.verb_phrase(sampler.choose(sampler.vocabulary.person_verbs))
    return contrast(f"{subject.text} {verb_phrase} {SLOT}.", reflexive(feminine), reflexive(not feminine))


def _number(sampler: Sampler) -> MinimalPair:
    plural, feminine = sampler.coin(), sampler.coin()
    subject = sampler.gendered_noun(feminine).form(plural)
    verb_phrase = sampler.verb_phrase(sampler.choose(sampler.vocabulary.person_verbs))
    return contrast_by(plural, f"the {subject} {verb_phrase} {SLOT}.", "themselves", reflexive(feminine))


def _number_of_antecedent(sampler: Sampler) -> MinimalPair:
    """Here the antecedent differs: The queens / *queen praised each other."""
    plural, feminine = sampler.coin(), sampler.coin()
    anaphor = sampler.choose(("each other", "themselves")) if plural else reflexive(feminine)
    antecedent = sampler.gendered_noun(feminine)
    verb_phrase = sampler.verb_phrase(sampler.choose(sampler.vocabulary.person_verbs))
    return contrast_by(plural, f"the {SLOT} {verb_phrase} {anaphor}.", antecedent.plural, antecedent.singular)


def reflexive_agreement(sampler: Sampler) -> MinimalPair:
    """The queen praised herself / *himself; The kings praised themselves / *himself."""
    return sampler.choose((_gender, _number, _number_of_antecedent))(sampler)


def reflexive_locality(sampler: Sampler) -> MinimalPair:
    """Mary thought that Robert praised himself / *herself; The queen with him praised herself / *himself.

    The sentence offers one antecedent of each gender, and only one of them is the subject of the same clause.
    """
    feminine = sampler.coin()
    words = sampler.vocabulary
    first, second = sampler.gendered_phrase(feminine), sampler.gendered_phrase(not feminine)
    verb = sampler.choose(words.person_verbs)
    if sampler.coin():
        verb_phrase = sampler.verb_phrase(verb, PAST_AUXILIARIES)
        thought = sampler.choose(words.statement_verbs).past
        frame = f"{first.text} {thought} that {second.text} {verb_phrase} {SLOT}."
        return contrast(frame, second.reflexive, first.reflexive)
    # A restrictive modifier needs a common noun: "the queen behind Robert", but not "Mary behind Robert".
    head = sampler.gendered_noun(feminine).singular
    modifier = sampler.choose(
        (
            f"{sampler.choose(('beside', 'behind', 'next to', 'with'))} {second.text}",
            f"who {sampler.choose(words.attitude_verbs).third_person} {second.text}",
        )
    )
    return contrast(f"the {head} {modifier} {sampler.verb_phrase(verb)} {SLOT}.", first.reflexive, second.reflexive)


def pronoun_case(sampler: Sampler) -> MinimalPair:
    """The nurse praised him / *he; He / *Him praised the nurse.

    Coordinations ("him and Mary") are left out, since speakers disagree about them.
    """
    nominative, accusative = sampler.choose(_CASES)
    words = sampler.vocabulary
    person, item = sampler.person(sampler.coin()), sampler.object(sampler.coin())
    verb = sampler.choose(words.person_verbs)
    action = sampler.choose(words.object_verbs)
    statement = sampler.choose(words.statement_verbs)
    embedded_verb_phrase = sampler.verb_phrase(action, PAST_AUXILIARIES)
    subject_frames = (
        f"{SLOT} {sampler.verb_phrase(verb)} the {person}.",
        f"the {person} {statement.past} that {SLOT} {embedded_verb_phrase} the {item}.",
        f"{sampler.choose(('yesterday', 'last week'))} {SLOT} {verb.past} the {person}.",
    )
    object_frames = (
        f"the {person} {sampler.verb_phrase(verb)} {SLOT}.",
        f"the {person} {verb.past} {SLOT} {sampler.choose(('again', 'yesterday', 'twice', 'last week'))}.",
        f"the {person} {sampler.verb_phrase(action)} the {item} for {SLOT}.",
    )
    is_subject = sampler.coin()
    frame = sampler.choose(subject_frames if is_subject else object_frames)
    return contrast_by(is_subject, frame, nominative, accusative)


MAKERS: tuple[PairMaker, ...] = (reflexive_agreement, reflexive_locality, pronoun_case)
