"""Questions, islands, ellipsis and negative polarity.

The families of phenomena follow BLiMP (Warstadt et al. 2020, arXiv 1912.00582); the sentences are our own.
Most of these pairs have the same words in two orders, so that no list of words can tell the two apart.
"""

from __future__ import annotations

from datamodules.quickstart_corpus.phenomena_shared import (
    PAST_AUXILIARIES,
    SLOT,
    TRANSPARENT_AUXILIARIES,
    MinimalPair,
    PairMaker,
    Sampler,
    be,
    contrast,
    contrast_by,
    have,
    reordering,
)


def _question_phrase(sampler: Sampler, other_item: str) -> str:
    """The word "what", or "which lamp" with a lamp that is not the other item of the sentence."""
    if sampler.coin():
        return "what"
    candidates = [noun.singular for noun in sampler.vocabulary.objects if noun.singular != other_item]
    return f"which {sampler.choose(candidates)}"


def adjunct_island(sampler: Sampler) -> MinimalPair:
    """What did the nurse find before damaging it? / *What did the nurse find it before damaging?"""
    words = sampler.vocabulary
    item = sampler.object()
    question = _question_phrase(sampler, item)
    main, adjunct = sampler.two(words.object_verbs)
    auxiliary = sampler.choose(("did", "will", "can", "should"))
    start = f"{question} {auxiliary} the {sampler.person(sampler.coin())} {main.base}"
    link = sampler.choose(("before", "after", "without"))
    return reordering(f"{start} {link} {adjunct.gerund} the {item}?", f"{start} the {item} {link} {adjunct.gerund}?")


def complex_noun_phrase_island(sampler: Sampler) -> MinimalPair:
    """What has the man who has praised her damaged? / *What has the man praised her who has damaged?"""
    words = sampler.vocabulary
    question = _question_phrase(sampler, other_item="")
    plural = sampler.coin()
    auxiliary = sampler.choose((have(plural), "had", *TRANSPARENT_AUXILIARIES))
    form = "participle" if auxiliary in ("has", "have", "had") else "base"
    first, second = (noun.form(plural) for noun in sampler.two(words.people))
    inner = getattr(sampler.choose(words.person_verbs), form)
    outer = getattr(sampler.choose(words.object_verbs), form)
    return reordering(
        f"{question} {auxiliary} the {first} who {auxiliary} {inner} the {second} {outer}?",
        f"{question} {auxiliary} the {first} {inner} the {second} who {auxiliary} {outer}?",
    )


def filler_gap(sampler: Sampler) -> MinimalPair:
    """The nurse knew what / *that the sailor had found; ... that / *what the sailor had found the lamp."""
    words = sampler.vocabulary
    knower, actor = sampler.people()
    about_person = sampler.coin()
    verb = sampler.choose(words.person_verbs if about_person else words.object_verbs)
    patient = sampler.gendered_noun(sampler.coin()).singular if about_person else sampler.object()
    question_word = "who" if about_person else "what"
    has_gap = sampler.coin()
    rest = "" if has_gap else f" the {patient}"
    auxiliary = sampler.choose(("had", "should have", "could have"))
    knew = sampler.verb_phrase(sampler.choose(words.knowledge_verbs))
    frame = f"the {knower} {knew} {SLOT} the {actor} {auxiliary} {verb.participle}{rest}."
    return contrast_by(has_gap, frame, question_word, "that")


def _main_clause_question(sampler: Sampler, question: str) -> MinimalPair:
    person = f"the {sampler.person(sampler.coin())}"
    auxiliary, verb = _auxiliary_and_verb(sampler)
    return reordering(f"{question} {auxiliary} {person} {verb}?", f"{question} {person} {auxiliary} {verb}?")


def _embedded_question(sampler: Sampler, question: str) -> MinimalPair:
    knower, actor = sampler.people()
    knew = f"the {knower} {sampler.verb_phrase(sampler.choose(sampler.vocabulary.knowledge_verbs))}"
    auxiliary, verb = _auxiliary_and_verb(sampler)
    return reordering(
        f"{knew} {question} the {actor} {auxiliary} {verb}.",
        f"{knew} {question} {auxiliary} the {actor} {verb}.",
    )


def _auxiliary_and_verb(sampler: Sampler) -> tuple[str, str]:
    """The same auxiliaries in main and embedded questions, so that "what had" occurs under both labels."""
    verb = sampler.choose(sampler.vocabulary.object_verbs)
    auxiliary = sampler.choose(("had", *PAST_AUXILIARIES))
    return auxiliary, verb.participle if auxiliary == "had" else verb.base


def _polar_question(sampler: Sampler) -> MinimalPair:
    """Which auxiliary moves: Is the nurse who can sneeze tall? / *Can the nurse who sneeze is tall?"""
    words = sampler.vocabulary
    plural = sampler.coin()
    person, adjective = sampler.person(plural), sampler.choose(words.person_adjectives)
    auxiliary, verb = sampler.choose(TRANSPARENT_AUXILIARIES), sampler.choose(words.intransitive_verbs).base
    return reordering(
        f"{be(plural)} the {person} who {auxiliary} {verb} {adjective}?",
        f"{auxiliary} the {person} who {verb} {be(plural)} {adjective}?",
    )


def subject_auxiliary_inversion(sampler: Sampler) -> MinimalPair:
    """What had the nurse found? / *What the nurse had found? The other way round in embedded questions."""
    question = _question_phrase(sampler, other_item="")
    kind = sampler.choose(("main", "embedded", "polar"))
    if kind == "main":
        return _main_clause_question(sampler, question)
    if kind == "embedded":
        return _embedded_question(sampler, question)
    return _polar_question(sampler)


def sluicing(sampler: Sampler) -> MinimalPair:
    """The nurse purchased something, but the king did not know what / *who.

    "Where", "when" and "why" stay out: they may follow any such clause.
    """
    words = sampler.vocabulary
    actor, knower = sampler.people()
    about_person = sampler.coin()
    perfect = sampler.coin()
    if about_person and sampler.coin():
        verb = sampler.choose(words.object_verbs)
        subject, item = "somebody", f"the {sampler.object()}"
    else:
        verb = sampler.choose(words.person_verbs if about_person else words.object_verbs)
        subject, item = f"the {actor}", "somebody" if about_person else "something"
    clause = f"{subject} {'had ' + verb.participle if perfect else verb.past} {item}"
    frame = f"{clause}, but the {knower} did not {sampler.choose(words.knowledge_verbs).base} {SLOT}."
    return contrast_by(about_person, frame, "who", "what")


def _polarity_scope(sampler: Sampler) -> MinimalPair:
    """The word "no" has to be outside the relative clause: from inside it does not reach "ever"."""
    words = sampler.vocabulary
    first, second = sampler.people()
    attitude = sampler.choose(words.attitude_verbs).third_person
    rest = f"has ever {sampler.choose(words.intransitive_verbs).participle}."
    if sampler.coin():
        rest = f"has ever {sampler.choose(words.object_verbs).participle} the {sampler.object()}."
    if sampler.coin():
        return reordering(
            f"no {first} who {attitude} the {second} {rest}", f"the {first} who {attitude} no {second} {rest}"
        )
    return reordering(
        f"no {first} that the {second} {attitude} {rest}", f"the {first} that no {second} {attitude} {rest}"
    )


def _polarity_clause(sampler: Sampler) -> MinimalPair:
    """The word "ever" may not stand above "no". Past tense and participle of these verbs are alike."""
    words = sampler.vocabulary
    first, second = sampler.people()
    said, verb = sampler.choose(words.statement_verbs), sampler.choose(words.intransitive_verbs)
    return reordering(
        f"the {first} {said.past} that no {second} had ever {verb.participle}.",
        f"the {first} had ever {said.participle} that no {second} {verb.past}.",
    )


def _polarity_licensor(sampler: Sampler) -> MinimalPair:
    """The licensor or the item itself is replaced; most of them occur under both labels."""
    words = sampler.vocabulary
    verb, items = sampler.choose(words.object_verbs), sampler.object(plural=True)
    intransitive = sampler.choose(words.intransitive_verbs)
    plural = sampler.coin()
    person = sampler.person(plural)
    options = (
        (f"the {person} {SLOT} {verb.past} any {items}.", "never", "often"),
        (f"the {person} {have(plural)} {SLOT} {intransitive.participle}.", "often", "ever"),
        (f"the {person} hardly {SLOT} {intransitive.past}.", "ever", "often"),
        (f"the {person} {verb.past} {SLOT} {items}.", "some", "any"),
        (f"the {person} {verb.past} hardly {SLOT} {items}.", "any", "some"),
        (f"{SLOT} {sampler.person(plural=True)} have ever {intransitive.participle}.", "few", "some"),
    )
    return contrast(*sampler.choose(options))


def negative_polarity(sampler: Sampler) -> MinimalPair:
    """No nurse who admires the king has ever sneezed / *The nurse who admires no king has ever sneezed."""
    makers = (_polarity_scope, _polarity_clause, _polarity_licensor, _polarity_licensor)
    return sampler.choose(makers)(sampler)


MAKERS: tuple[PairMaker, ...] = (
    adjunct_island,
    complex_noun_phrase_island,
    filler_gap,
    subject_auxiliary_inversion,
    sluicing,
    negative_polarity,
)
