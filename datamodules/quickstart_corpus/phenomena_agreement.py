"""Agreement of verbs with subjects, and of determiners with nouns.

The families of phenomena follow BLiMP (Warstadt et al. 2020, arXiv 1912.00582); the sentences are our own.
Singular and plural are drawn equally often, so that "is" and "are" occur equally often under both labels.
"""

from __future__ import annotations

from datamodules.quickstart_corpus.phenomena_shared import (
    SLOT,
    MinimalPair,
    PairMaker,
    Sampler,
    be,
    contrast,
    contrast_by,
    have,
)

_COPULAS = (("are", "is"), ("were", "was"))
_PLACES = ("near", "beside", "behind", "next to", "in front of")
_DEMONSTRATIVES = (("these", "this"), ("those", "that"))
_PLURAL_QUANTIFIERS = ("several", "many", "few", "both", "two")
_SINGULAR_QUANTIFIERS = ("every", "each", "one", "another")


def subject_verb_agreement(sampler: Sampler) -> MinimalPair:
    """The nurse admires / *admire the sailors."""
    plural = sampler.coin()
    words = sampler.vocabulary
    first, second = sampler.two(words.people)
    subject, other = first.form(plural), second.form(sampler.coin())
    verb = sampler.choose(words.attitude_verbs)
    copula = sampler.choose(_COPULAS)
    action = sampler.choose(words.object_verbs)
    options = (
        (f"the {subject} {SLOT} the {other}.", verb.base, verb.third_person),
        (f"the {subject} {SLOT} {sampler.choose(words.person_adjectives)}.", *copula),
        (f"the {subject} {SLOT} {action.participle} the {sampler.object()}.", "have", "has"),
        (f"the {subject} {SLOT} not {verb.base} the {other}.", "do", "does"),
    )
    return contrast_by(plural, *sampler.choose(options))


def subject_verb_agreement_prepositional_attractor(sampler: Sampler) -> MinimalPair:
    """The clock behind the chairs is / *are dusty. The noun before the verb always has the other number."""
    plural = sampler.coin()
    words = sampler.vocabulary
    first, second = sampler.two(words.objects)
    if sampler.coin():
        subject = f"the {first.form(plural)} {sampler.choose(_PLACES)} the {second.form(not plural)}"
        adjective = sampler.choose(words.object_adjectives)
    else:
        preposition = sampler.choose(("with", "near", "behind"))
        subject = f"the {sampler.person(plural)} {preposition} the {second.form(not plural)}"
        adjective = sampler.choose(words.person_adjectives)
    return contrast_by(plural, f"{subject} {SLOT} {adjective}.", *sampler.choose(_COPULAS))


def subject_verb_agreement_relative_attractor(sampler: Sampler) -> MinimalPair:
    """The sailor that the nurses admire is / *are tall. The other noun has the other number."""
    plural = sampler.coin()
    words = sampler.vocabulary
    head, attractor = sampler.two(words.people)
    verb = sampler.choose(words.attitude_verbs)
    relative_clause = (
        f"who {verb.present(plural)} the {attractor.form(not plural)}"
        if sampler.coin()
        else f"that the {attractor.form(not plural)} {verb.present(not plural)}"
    )
    subject = f"the {head.form(plural)} {relative_clause}"
    if sampler.coin():
        frame = f"{subject} {SLOT} {sampler.choose(words.person_adjectives)}."
        return contrast_by(plural, frame, *sampler.choose(_COPULAS))
    frame = f"{subject} {SLOT} {sampler.choose(words.object_verbs).participle} the {sampler.object()}."
    return contrast_by(plural, frame, have(True), have(False))


def _determiner_number(sampler: Sampler) -> MinimalPair:
    plural = sampler.coin()
    words = sampler.vocabulary
    plural_determiner, singular_determiner = sampler.choose(
        (
            sampler.choose(_DEMONSTRATIVES),
            (sampler.choose(_PLURAL_QUANTIFIERS), sampler.choose(_SINGULAR_QUANTIFIERS)),
        )
    )
    adjective = f"{sampler.choose(words.object_adjectives)} " if sampler.coin() else ""
    noun = f"{adjective}{sampler.object(plural)}"
    verb_phrase = sampler.affirmative_verb_phrase(sampler.choose(words.object_verbs))
    frame = sampler.choose(
        (
            f"the {sampler.person()} {verb_phrase} {SLOT} {noun}.",
            f"{SLOT} {noun} {be(plural)} {sampler.choose(_PLACES)} the {sampler.person()}.",
        )
    )
    return contrast_by(plural, frame, plural_determiner, singular_determiner)


def _mass_and_count(sampler: Sampler) -> MinimalPair:
    countable = sampler.coin()
    words = sampler.vocabulary
    noun = sampler.choose(words.foods).plural if countable else sampler.choose(words.mass_nouns)
    verb = sampler.choose(words.food_verbs)
    person = sampler.person(sampler.coin())
    frame = sampler.choose(
        (
            f"the {person} {verb.past} {sampler.choose(('too', 'so'))} {SLOT} {noun}.",
            f"how {SLOT} {noun} did the {person} {verb.base}?",
        )
    )
    return contrast_by(countable, frame, "many", "much")


def determiner_noun_agreement(sampler: Sampler) -> MinimalPair:
    """The nurse repaired these / *this lamps; The nurse bought too much / *many rice."""
    return _mass_and_count(sampler) if sampler.choose(range(3)) == 0 else _determiner_number(sampler)


_ALMOST = ("almost", "nearly", "practically")
_WEAK_AND_STRONG = (  # with whether they go with plural nouns
    ("several", "all", True),
    ("many", "all", True),
    ("some", "all", True),
    ("another", "every", False),
)


def quantifier_strength(sampler: Sampler) -> MinimalPair:
    """There are several / *all lamps behind the piano; The lamps are all / *several dusty.

    Existential "there" wants a weak quantifier (Milsark 1974); "almost" and the place after the verb want a
    universal one. So each quantifier is acceptable in one frame and unacceptable in another.
    """
    weak, strong, plural = sampler.choose(_WEAK_AND_STRONG)
    words = sampler.vocabulary
    first, second = sampler.two(words.objects)
    place = f"{sampler.choose(_PLACES)} the {second.form(sampler.coin())}"
    copula = sampler.choose(_COPULAS)[0 if plural else 1]
    if sampler.coin():
        adjective = f"{sampler.choose(words.object_adjectives)} " if sampler.coin() else ""
        return contrast(f"there {copula} {SLOT} {adjective}{first.form(plural)} {place}.", weak, strong)
    predicate = sampler.choose((place, sampler.choose(words.object_adjectives)))
    if plural and sampler.choose(range(4)):
        predicate = sampler.choose(words.object_adjectives)
        return contrast(f"the {first.plural} {copula} {SLOT} {predicate}.", strong, weak)
    return contrast(f"{sampler.choose(_ALMOST)} {SLOT} {first.form(plural)} {copula} {predicate}.", strong, weak)


MAKERS: tuple[PairMaker, ...] = (
    subject_verb_agreement,
    subject_verb_agreement_prepositional_attractor,
    subject_verb_agreement_relative_attractor,
    determiner_noun_agreement,
    quantifier_strength,
)
